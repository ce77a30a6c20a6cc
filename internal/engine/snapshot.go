package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
)

// A snapshot is a sandbox's memory, disk and spec at one moment, in a folder of the
// sandbox's. It is made by the supervisor while the sandbox runs, and opened here while
// it is restored, forked or listed. A sandbox that is suspended has one more, its
// SuspendedState: the next start resumes it.

// The reasons about snapshots and forks.
const (
	// SnapshotExists: a snapshot of that name exists already (Sandbox, Snapshot).
	SnapshotExists Reason = "snapshot-exists"
	// SnapshotNotFound: there is no such snapshot, or its description cannot be read
	// (Sandbox, Snapshot).
	SnapshotNotFound Reason = "snapshot-not-found"
	// SnapshotDamaged: the snapshot's checksum is wrong, or it cannot be read (Sandbox,
	// Snapshot).
	SnapshotDamaged Reason = "snapshot-damaged"
	// SnapshotFailed: the supervisor did not make the snapshot (Sandbox).
	SnapshotFailed Reason = "snapshot-failed"
	// StateWouldBeLost: the sandbox is in use, and a restore would discard its present
	// state (Sandbox).
	StateWouldBeLost Reason = "state-would-be-lost"
	// KeptRunning is a notice: a sandbox that was started for a snapshot keeps running
	// (Sandbox, Err).
	KeptRunning Reason = "sandbox-kept-running"
)

// Snapshot describes a snapshot of a sandbox.
type Snapshot struct {
	Sandbox string
	Name    string
	Made    time.Time
	Size    int64 // bytes on the host
	Err     error // why it cannot be used; the other fields may be zero then
}

func snapshotPath(d store.Dir, name string) string {
	return filepath.Join(d.File(store.SnapshotsFolder), name)
}

// checkSnapshotName returns an error unless a snapshot can have the name.
func checkSnapshotName(name string) error {
	if err := sandbox.CheckName(name); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// CreateSnapshot saves the present state of a sandbox; an empty name is replaced by the time.
// A sandbox that does not run is started, and afterwards suspended or stopped as it was; it
// keeps running if somebody uses it by then (KeptRunning).
func (e *Engine) CreateSnapshot(ctx context.Context, sandboxName, name string) (string, error) {
	if name == "" {
		name = time.Now().Format("20060102-150405")
	}
	if err := checkSnapshotName(name); err != nil {
		return "", err
	}
	d, err := e.dirOf(sandboxName)
	if err != nil {
		return "", err
	}
	path := snapshotPath(d, name)
	if snapshot.Exists(path) {
		return "", &Error{Reason: SnapshotExists, Sandbox: sandboxName, Snapshot: name, Err: fmt.Errorf("sandbox %s already has a snapshot named %s", sandboxName, name)}
	}
	return name, e.capture(ctx, sandboxName, path)
}

// capture saves a sandbox at path. One that does not run is started for that.
func (e *Engine) capture(ctx context.Context, name, path string) error {
	started := false
	if err := e.ensureRunning(ctx, name, startup{reachable: func() { started = true }}); err != nil {
		return err
	}
	err := e.save(ctx, name, path)
	if started {
		e.returnToPhase(ctx, name)
	}
	return err
}

// returnToPhase suspends or stops a sandbox that was started for a snapshot, as it was before. A
// sandbox that somebody uses by then keeps running.
func (e *Engine) returnToPhase(ctx context.Context, name string) {
	st, err := control.NewClient(e.sandboxes.Dir(name).DialControl).Status(ctx)
	switch {
	case err != nil:
	case st.Attached > 0:
		err = errors.New("a command or a shell is attached")
	case st.Resumed:
		err = e.Suspend(ctx, name, false)
	default:
		err = e.Stop(ctx, name, false)
	}
	if err != nil {
		e.notify(Notice{Reason: KeptRunning, Sandbox: name, Err: err, Text: fmt.Sprintf("sandbox %s, which was started for the snapshot, keeps running: %v", name, err)})
	}
}

// save has the supervisor write a snapshot. A sandbox that went away since it was seen to
// run is started again.
func (e *Engine) save(ctx context.Context, name, path string) error {
	return e.during("Saving "+name, func() error {
		client := control.NewClient(e.sandboxes.Dir(name).DialControl)
		err := client.Snapshot(ctx, path)
		if control.NotListening(err) && e.startedAgain(ctx, name) { // nothing was begun
			err = client.Snapshot(ctx, path)
		}
		return because(whyNotSaved(err, SnapshotFailed), name, err)
	})
}

// Snapshots lists a sandbox's snapshots, or those of all sandboxes if name is empty. It
// looks at the sizes of their files, not at the contents (RestoreSnapshot verifies them).
func (e *Engine) Snapshots(name string) ([]Snapshot, error) {
	names := []string{name}
	var err error
	if name != "" {
		if _, err = e.dirOf(name); ReasonOf(err) == Damaged { // its snapshots may be whole
			err = nil
		}
	} else {
		names, err = e.sandboxes.Names()
	}
	if err != nil {
		return nil, err
	}
	var all []Snapshot
	for _, n := range names {
		list, err := e.snapshotsOf(n)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func (e *Engine) snapshotsOf(name string) (list []Snapshot, err error) {
	d := e.sandboxes.Dir(name)
	removeForkSources(d)
	entries, err := os.ReadDir(d.File(store.SnapshotsFolder))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, entry := range entries {
		if n := entry.Name(); !snapshot.IsDraft(n) && !strings.HasPrefix(n, forkSourcePrefix) {
			list = append(list, describeSnapshot(d, name, n))
		}
	}
	return list, err
}

func describeSnapshot(d store.Dir, sandboxName, name string) Snapshot {
	i := Snapshot{Sandbox: sandboxName, Name: name}
	s, err := snapshot.Open(snapshotPath(d, name))
	if err == nil {
		i.Made, i.Size = s.Meta.Made, s.Size()
		err = s.Probe()
	}
	i.Err = err
	return i
}

// RestoreSnapshot makes a sandbox what it was when the snapshot was made, and starts it.
// The project directory stays as it is. A sandbox that is in use is StateWouldBeLost, or
// with force is ended first. The snapshot is verified before anything is changed.
func (e *Engine) RestoreSnapshot(ctx context.Context, sandboxName, name string, force bool) error {
	d, err := e.dirOf(sandboxName)
	if err != nil {
		return err
	}
	if err := e.restore(ctx, d, name, force); err != nil {
		return err
	}
	return e.EnsureRunning(ctx, sandboxName)
}

// restore replaces the state of a sandbox by a snapshot. It removes nothing before it has
// verified the snapshot and copied its disk. A failure after any step leaves a sandbox that
// can be started: first without a saved memory, then with the other disk, then with the
// memory of that disk.
func (e *Engine) restore(ctx context.Context, d store.Dir, name string, force bool) error {
	l, err := e.lockStart(ctx, d)
	if err != nil {
		return err
	}
	defer l.Close()
	s, err := openSnapshot(d, name) // before a user is told to end the sandbox for it
	if err != nil {
		return err
	}
	if err := checkOff(d); err != nil && !force {
		return err
	}
	if err := e.verify(ctx, d, s, name); err != nil {
		return err
	}
	fresh := d.File(store.DiskFile) + ".restored"
	_ = os.Remove(fresh) // of a restore that was killed
	defer os.Remove(fresh)
	if err := e.during("Copying the disk", func() error { return snapshot.CopyDisk(ctx, fresh, s.Disk()) }); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.turnOff(ctx, d, force); err != nil {
		return err
	}
	return replaceState(d, s, fresh)
}

// turnOff ends a sandbox that is in use, with force.
func (e *Engine) turnOff(ctx context.Context, d store.Dir, force bool) error {
	err := checkOff(d)
	if err == nil || !force {
		return err
	}
	return e.halt(ctx, d, true)
}

// replaceState gives a sandbox that is off the state of a snapshot. disk is a copy of the
// snapshot's disk, which is moved.
func replaceState(d store.Dir, s *snapshot.Snapshot, disk string) error {
	if err := forgetSuspended(d); err != nil {
		return err
	}
	if err := os.Rename(disk, d.File(store.DiskFile)); err != nil {
		return err
	}
	if err := d.WriteSpec(restoredSpec(d, s)); err != nil {
		return err
	}
	return s.Clone(d.File(store.SuspendedState))
}

// restoredSpec returns the spec of a snapshot. What the user has taken back since stays so.
func restoredSpec(d store.Dir, s *snapshot.Snapshot) *sandbox.Spec {
	spec := *s.Meta.Spec
	if now, err := d.Spec(); err != nil || !now.Sign {
		spec.Sign = false
	}
	return &spec
}

// checkOff returns an error while a sandbox is in use.
func checkOff(d store.Dir) error {
	st, err := d.State()
	if err != nil || st.Phase == sandbox.Stopped || st.Phase == sandbox.Dead {
		return err
	}
	name := nameOf(d)
	return failf(StateWouldBeLost, name, "sandbox %s is %s, and its present state would be lost", name, st.Phase)
}

// verifiedSnapshot opens a snapshot of a sandbox after it has been read as a whole: its
// memory and disk are what was written.
func (e *Engine) verifiedSnapshot(ctx context.Context, d store.Dir, name string) (*snapshot.Snapshot, error) {
	s, err := openSnapshot(d, name)
	if err != nil {
		return nil, err
	}
	return s, e.verify(ctx, d, s, name)
}

// openSnapshot opens the snapshot of that name of a sandbox.
func openSnapshot(d store.Dir, name string) (*snapshot.Snapshot, error) {
	if err := checkSnapshotName(name); err != nil {
		return nil, err
	}
	s, err := snapshot.Open(snapshotPath(d, name))
	if err != nil {
		return nil, &Error{Reason: SnapshotNotFound, Sandbox: nameOf(d), Snapshot: name, Err: err}
	}
	return s, nil
}

// verify checks the memory and the disk of a snapshot against their checksums.
func (e *Engine) verify(ctx context.Context, d store.Dir, s *snapshot.Snapshot, name string) error {
	err := e.during("Checking snapshot "+name, func() error { return s.Verify(ctx) })
	if err != nil && ctx.Err() == nil {
		err = &Error{Reason: SnapshotDamaged, Sandbox: nameOf(d), Snapshot: name, Err: err}
	}
	return err
}

// RemoveSnapshots removes snapshots of a sandbox, also damaged ones, in the order given. It
// returns the names of those that it removed, also with an error.
func (e *Engine) RemoveSnapshots(ctx context.Context, sandboxName string, names []string) (removed []string, err error) {
	d, err := e.dirOf(sandboxName)
	if err != nil {
		return nil, err
	}
	l, err := e.lockStart(ctx, d)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	for _, name := range names {
		if err := checkSnapshotName(name); err != nil {
			return removed, err
		}
		path := snapshotPath(d, name)
		if _, err := os.Lstat(path); err != nil {
			return removed, &Error{Reason: SnapshotNotFound, Sandbox: sandboxName, Snapshot: name, Err: fmt.Errorf("%w: %s", snapshot.ErrNone, name)}
		}
		if err := (&snapshot.Snapshot{Path: path}).Remove(); err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, nil
}
