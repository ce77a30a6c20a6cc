package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/workcopy"
)

// A fork is a sandbox that is resumed from a snapshot of another one, with an identity of its
// own. The snapshot is a named one, or one that is created for the fork; this file calls the
// latter the source, and removes it when all forks are made.

// The reasons about forks.
const (
	// ProjectCopyExists is the reason when a file is where a copy of the project would be (Path).
	ProjectCopyExists Reason = "project-copy-exists"
)

// ForkRequest says which forks are to be made.
type ForkRequest struct {
	Sandbox string   // to fork
	Names   []string // of the forks; none is one fork with a free name
	From    string   // name of a snapshot; empty is the sandbox as it is now

	// CopyProject gives each fork a copy of the project's files, in a directory beside the
	// project that is named after the fork. Otherwise forks share the project.
	CopyProject bool
}

// Fork makes forks of a sandbox and starts them. A sandbox that does not run is started
// for the snapshot, and is afterwards what it was (CreateSnapshot). All names are checked
// before that. Published ports get other numbers on the host.
//
// If one fork cannot be made or started, the others are kept, and the error names them. Fork
// returns the names of the forks that were made, also with an error.
func (e *Engine) Fork(ctx context.Context, r ForkRequest) (made []string, err error) {
	d, err := e.dirOf(r.Sandbox)
	if err != nil {
		return nil, err
	}
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	if err := checkVolumesForFork(spec); err != nil {
		return nil, err
	}
	names, err := e.forkNames(&r, spec)
	if err != nil {
		return nil, err
	}
	source, done, err := e.forkSource(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer done()
	return e.forkAll(ctx, &r, source, names, func(name string) error { return e.EnsureRunning(ctx, name) })
}

// forkNames returns the forks' names, all free. Every mistake is reported before the
// sandbox is paused.
func (e *Engine) forkNames(r *ForkRequest, spec *sandbox.Spec) ([]string, error) {
	names := r.Names
	if len(names) == 0 {
		n, err := e.sandboxes.FreeName(defaultForkName(spec.Name))
		if err != nil {
			return nil, err
		}
		names = []string{n}
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return nil, fmt.Errorf("two forks cannot both be named %s", n)
		}
		if err := e.checkForkName(r, spec, n); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// defaultForkName returns the name of a sandbox's fork, with room for a number.
func defaultForkName(of string) string {
	const suffix, number = "-fork", "-9999" // Store.FreeName
	return strings.TrimRight(of[:min(len(of), sandbox.MaxName-len(suffix+number))], "-") + suffix
}

// checkForkName returns an error unless a fork can have the name.
func (e *Engine) checkForkName(r *ForkRequest, spec *sandbox.Spec, name string) error {
	if err := sandbox.CheckName(name); err != nil {
		return err
	}
	if _, err := e.sandboxes.Dir(name).Spec(); err == nil {
		return failf(Exists, name, "a sandbox named %s exists already", name)
	} else if !store.IsNotFound(err) {
		return err
	}
	if !r.CopyProject {
		return nil
	}
	place := r.projectOf(spec, name)
	_, err := os.Lstat(place)
	if err == nil {
		return &Error{Reason: ProjectCopyExists, Path: place, Err: fmt.Errorf("cannot copy the project to %s: it exists already", place)}
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// projectOf returns the project directory of a fork.
func (r *ForkRequest) projectOf(spec *sandbox.Spec, name string) string {
	if !r.CopyProject {
		return spec.Dir
	}
	return filepath.Join(filepath.Dir(spec.Dir), filepath.Base(spec.Dir)+"-"+name)
}

// forkAll makes all forks before it starts one: the copies of the project shall be of the
// moment of the snapshot. After a failure the others stay.
func (e *Engine) forkAll(ctx context.Context, r *ForkRequest, source *snapshot.Snapshot, names []string, start func(name string) error) (made []string, err error) {
	for _, name := range names {
		if err = ctx.Err(); err == nil {
			err = e.makeFork(ctx, r, source, name)
		}
		if err != nil {
			err = fmt.Errorf("fork %s: %w", name, err)
			break
		}
		made = append(made, name)
	}
	for _, name := range made {
		if e := start(name); e != nil {
			err = errors.Join(err, fmt.Errorf("fork %s was made, but did not start: %w", name, e))
		}
	}
	if err != nil && len(names) > 1 {
		err = fmt.Errorf("%w (forks made: %s)", err, cmp.Or(strings.Join(made, ", "), "none"))
	}
	return made, err
}

// forkSource returns the snapshot to fork from: a named one, or one made now. done removes the
// latter.
func (e *Engine) forkSource(ctx context.Context, r *ForkRequest) (s *snapshot.Snapshot, done func(), err error) {
	d := e.sandboxes.Dir(r.Sandbox)
	if r.From != "" {
		s, err = e.verifiedSnapshot(ctx, d, r.From)
		return s, func() {}, err
	}
	removeForkSources(d)
	name := forkSourcePrefix + sandbox.NewID()
	lock, err := lockfile.Acquire(ctx, d.File(name))
	if err != nil {
		return nil, nil, err
	}
	done = func() { removeForkSource(d, name, lock) }
	if err = e.capture(ctx, r.Sandbox, snapshotPath(d, name)); err == nil {
		s, err = snapshot.Open(snapshotPath(d, name))
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// forkSourcePrefix begins the names of snapshots that are made for a fork; names that
// people give cannot begin like that (sandbox.CheckName). While the fork is being made, it
// holds a lock of the same name in the sandbox's folder.
const forkSourcePrefix = "fork."

// removeForkSources removes the sources of forks that were killed.
func removeForkSources(d store.Dir) {
	left, _ := filepath.Glob(snapshotPath(d, forkSourcePrefix+"*"))
	for _, path := range left {
		name := filepath.Base(path)
		if l, err := lockfile.TryAcquire(d.File(name)); err == nil {
			removeForkSource(d, name, l)
		}
	}
}

// removeForkSource removes a source and its lock. What cannot be removed is left to the
// next fork.
func removeForkSource(d store.Dir, name string, l *lockfile.Lock) {
	_ = os.RemoveAll(snapshotPath(d, name))
	_ = os.Remove(d.File(name))
	l.Close()
}

// makeFork makes a sandbox that is suspended where the source was made. If that fails,
// nothing of it is left.
func (e *Engine) makeFork(ctx context.Context, r *ForkRequest, source *snapshot.Snapshot, name string) (err error) {
	was := source.Meta.Spec
	spec := r.specOf(was, name)
	if r.CopyProject {
		if err := workcopy.Copy(ctx, was.Project.Host, spec.Project.Host); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, workcopy.Remove(spec.Project.Host))
			}
		}()
	}
	l, err := e.lockNames(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	d, err := e.sandboxes.Reserve(name)
	if err != nil {
		return err // another sandbox has the name by now
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove())
		}
	}()
	if err := fillFork(ctx, d, e.sandboxes.Dir(was.Name), source); err != nil {
		return err
	}
	return d.WriteSpec(spec) // from here on the sandbox exists
}

// specOf returns the spec of a fork.
func (r *ForkRequest) specOf(was *sandbox.Spec, name string) *sandbox.Spec {
	spec := *was
	spec.ID, spec.Name, spec.Created, spec.Throwaway = sandbox.NewID(), name, time.Now().UTC(), false
	spec.Sign = false // the user gave leave to the original
	spec.Ports = nil
	for _, p := range was.Ports {
		if !was.OwnAddress {
			p.Host = 0 // its number is taken
		}
		spec.Ports = append(spec.Ports, p)
	}
	if r.CopyProject {
		spec.Dir = r.projectOf(was, name)
		spec.Project.Host = spec.Dir // at the original's place in the guest
	}
	return &spec
}

// fillFork puts the rules, disk and memory of a sandbox's snapshot into a fork's folder.
func fillFork(ctx context.Context, d, of store.Dir, source *snapshot.Snapshot) error {
	for _, file := range []string{store.PolicyFile, store.ProjectPolicyFile} {
		if err := copyRules(d.File(file), of.File(file)); err != nil {
			return err
		}
	}
	if err := copyPrivate(ctx, d.File(store.PrivateFolder), of.File(store.PrivateFolder)); err != nil {
		return err
	}
	if err := snapshot.CopyDisk(ctx, d.File(store.DiskFile), source.Disk()); err != nil {
		return err
	}
	return source.Clone(d.File(store.SuspendedState))
}

// copyPrivate copies a guest's private versions of guarded paths, if it has any.
func copyPrivate(ctx context.Context, to, from string) error {
	if _, err := os.Lstat(from); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return workcopy.Copy(ctx, from, to)
}

// copyRules copies a file of rules, if it exists. The copy is no symbolic link.
func copyRules(to, from string) error {
	b, err := store.ReadRules(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
