package engine

import (
	"context"
	"sync"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/diskuse"
)

// Info is the present description of a sandbox. Its JSON form is stable: it is what
// `bawn inspect` and `bawn ls --json` print.
type Info struct {
	*sandbox.Spec
	State  sandbox.State   `json:"state"`
	Status *control.Status `json:"status,omitempty"` // nil unless the sandbox runs and answers

	// Bytes on the host: of its disk, its snapshots, and the memory that it is
	// suspended with, where that is not a snapshot's.
	DiskUsed      int64 `json:"diskUsed"`
	SnapshotsUsed int64 `json:"snapshotsUsed"`
	SuspendedUsed int64 `json:"suspendedUsed"`

	Suspended bool `json:"suspended"` // its next start resumes it

	// Hidden are paths of the project that the guest does not see, at most 1,000 of them, from
	// its root. Only Describe finds them.
	Hidden []string `json:"hidden,omitempty"`
}

// statusLimit is how long a supervisor may take to answer while sandboxes are listed.
const statusLimit = 2 * time.Second

// Describe returns what is known of a sandbox.
func (e *Engine) Describe(ctx context.Context, name string) (*Info, error) {
	i, err := e.describe(ctx, name)
	if err == nil {
		i.Hidden, _ = hidden(i.Spec, hiddenListed)
	}
	return i, err
}

// describe is Describe without what must be looked for in the project.
func (e *Engine) describe(ctx context.Context, name string) (*Info, error) {
	d, err := e.folder(name)
	if err != nil {
		return nil, err
	}
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	st, err := d.State()
	if err != nil {
		return nil, err
	}
	if spec.Mounts == nil { // in JSON a list without entries, not null
		spec.Mounts = []sandbox.Source{}
	}
	if spec.Ports == nil {
		spec.Ports = []sandbox.Port{}
	}
	i := &Info{Spec: spec, State: st}
	var used diskuse.Counter // counts files once that have several names
	i.DiskUsed = used.Add(d.File(store.DiskFile))
	i.SnapshotsUsed = used.Add(d.File(store.SnapshotsFolder))
	i.SuspendedUsed = used.Add(d.File(store.SuspendedFolder))
	if st.Phase == sandbox.Stopped && suspended(d) {
		i.Suspended, i.State.Phase = true, sandbox.Suspended
	}
	if st.Phase == sandbox.Running {
		ctx, cancel := context.WithTimeout(ctx, statusLimit)
		defer cancel()
		if s, err := control.NewClient(d.DialControl).Status(ctx); err == nil {
			i.Status = &s
		}
	}
	return i, nil
}

// List describes all sandboxes, in the order of their names. Those that cannot be
// described are in failed, by name.
func (e *Engine) List(ctx context.Context) (list []*Info, failed map[string]error, err error) {
	names, err := e.Names()
	if err != nil {
		return nil, nil, err
	}
	found, errs := make([]*Info, len(names)), make([]error, len(names))
	var asked sync.WaitGroup
	for i, n := range names { // at once: one that does not answer holds up no other
		asked.Go(func() { found[i], errs[i] = e.describe(ctx, n) })
	}
	asked.Wait()
	failed = map[string]error{}
	for i, n := range names {
		switch {
		case errs[i] == nil:
			list = append(list, found[i])
		case !store.IsNotFound(errs[i]): // or it was removed meanwhile
			failed[n] = errs[i]
		}
	}
	return list, failed, nil
}

// Names lists the names of all sandboxes, sorted, those of damaged ones among them.
func (e *Engine) Names() ([]string, error) { return e.sandboxes.Names() }

// LogFiles returns the logs of a sandbox, which rotate (package rotate): what its guest
// printed on the console, which is hostile text, and its supervisor's own.
func (e *Engine) LogFiles(name string) (console, supervisor string, err error) {
	d, err := e.folder(name)
	if err != nil {
		return "", "", err
	}
	return d.File(store.ConsoleFile), d.File(store.SupervisorLogFile), nil
}
