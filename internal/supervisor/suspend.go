package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/meminfo"
	"bawn.dev/bawn/internal/sys/sparse"
	"bawn.dev/bawn/internal/wire"
)

// Suspending and going on.
//
// A sandbox is suspended in this order: the flows to the world are cut; what runs
// in the guest is frozen by the agent (wire.OpSuspend); the machine is paused and
// its shares are taken out; memory and devices are written to a snapshot; the
// machine is killed. Up to the moment at which the snapshot is whole everything
// can be undone, and is if anything fails.
//
// It goes on in the reverse order. The snapshot is gone before the machine runs
// again: from then on the disk is newer. What cannot go on (another QEMU, another
// processor, a damaged file) boots from its disk instead, which the agent has
// flushed: as after a power failure, and the person is told.

// pauseLimit bounds each step in which the machine stands still for a person.
const pauseLimit = 2 * time.Minute

// Suspend implements control.Service.
func (s *supervisor) Suspend(ctx context.Context, force bool) error {
	if !s.saving.TryLock() {
		return control.Errorf(control.ReasonSaving, "the sandbox is being saved already")
	}
	defer s.saving.Unlock()
	if !force {
		s.awaitLeave(ctx)
	}
	if err := s.claim(force); err != nil {
		return err
	}
	err := s.suspend(context.WithoutCancel(ctx))
	if err != nil {
		s.unclaim()
		return fmt.Errorf("suspend: %w", err)
	}
	<-s.stopped
	return nil
}

// leaveLimit is how long somebody who has gone may still be counted as attached.
const leaveLimit = time.Second

// awaitLeave waits a moment for those who have just gone: "bawn run" that ended
// right before.
func (s *supervisor) awaitLeave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	for s.isAttached() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *supervisor) isAttached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions > 0
}

// claim takes a running sandbox for a suspension.
func (s *supervisor) claim(force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != sandbox.Running {
		return control.Errorf(control.ReasonPhase, "the sandbox is %s", s.phase)
	}
	if s.sessions > 0 && !force {
		who := "a command or shell is"
		if s.sessions > 1 {
			who = fmt.Sprintf("%d commands or shells are", s.sessions)
		}
		return control.Errorf(control.ReasonAttached, "%s attached, and would be ended", who)
	}
	s.phase = sandbox.Stopping
	return nil
}

func (s *supervisor) unclaim() {
	s.setPhase(sandbox.Running)
	_ = s.note("") // for who lists; the lock is what counts
	s.catchUp()
}

// suspend saves the machine and ends it.
func (s *supervisor) suspend(ctx context.Context) error {
	_ = s.note("")
	folder := s.dir.File(store.SuspendedFolder)
	draft, err := snapshot.Begin(folder)
	if err != nil {
		return err
	}
	defer draft.Discard()
	s.network.gate.CutAll("the sandbox is suspended")
	meta, err := s.capture(ctx, draft, func(context.Context) error { return nil }, func() error { return draft.RAM(s.ram) })
	if err == nil {
		if err = s.syncDisk(); err == nil {
			err = draft.Commit(ctx, s.dir.File(store.SuspendedState), *meta)
		}
		if err == nil {
			s.log.Info("suspended")
			s.machine.Kill()
			return nil
		}
		err = errors.Join(err, s.release(ctx, meta.Shares))
	}
	return err
}

// capture stops the machine and writes its devices to the draft. After an error it
// runs again; without, it stands still and has no shares (release). disk and memory are
// called while it does, to keep what must be of that moment.
func (s *supervisor) capture(ctx context.Context, draft *snapshot.Draft, disk func(context.Context) error, memory func() error) (*snapshot.Meta, error) {
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	if err := s.agent.Call(ctx, wire.OpSuspend, struct{}{}, nil); err != nil {
		return nil, errors.Join(err, s.unpause(ctx))
	}
	if err := s.machine.Pause(ctx); err != nil { // QEMU may still carry it out
		return nil, errors.Join(err, s.unpause(ctx))
	}
	shares, err := shareserver.Detach(ctx, s.machine, s.shares)
	if errors.Is(err, shareserver.ErrDetached) {
		s.endIncomplete(err)
		return nil, err
	}
	if err != nil {
		return nil, errors.Join(err, s.unpause(ctx))
	}
	names, err := json.Marshal(s.network.gate.Names())
	if err == nil {
		err = disk(ctx) // before the state: QEMU lets go of disks with that
	}
	if err == nil {
		err = draft.State(func(w io.Writer) error { return s.machine.SaveState(ctx, w) })
	}
	if err == nil {
		err = memory()
	}
	if err != nil {
		return nil, errors.Join(err, s.release(ctx, shares))
	}
	return &snapshot.Meta{Kind: s.kind, Spec: s.spec, Shares: shares, Network: names}, nil
}

// release lets a captured machine go on.
func (s *supervisor) release(ctx context.Context, shares []snapshot.Share) error {
	ctx, cancel := afterCapture(ctx)
	defer cancel()
	if err := shareserver.Attach(ctx, s.machine, s.shares, shares); err != nil {
		s.endIncomplete(err)
		return err
	}
	return s.unpause(ctx)
}

// endIncomplete ends a machine without all its shares: its guest must not run again.
func (s *supervisor) endIncomplete(err error) {
	s.end <- fmt.Sprintf("the machine cannot go on: %v", err)
	s.machine.Kill()
}

// unpause lets a machine that has all its shares, and what runs in its guest, go on. It
// does no harm where they do already.
func (s *supervisor) unpause(ctx context.Context) error {
	ctx, cancel := afterCapture(ctx)
	defer cancel()
	return errors.Join(s.machine.Resume(ctx), s.wake(ctx))
}

// afterCapture returns a context for steps that end a capture. They get a time of
// their own, because the capture may have failed by using up the whole of its own, and
// the guest must go on all the same.
func afterCapture(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), pauseLimit)
}

// wake lets what runs in the guest go on.
func (s *supervisor) wake(ctx context.Context) error {
	id, err := s.identity()
	if err != nil {
		return err
	}
	return s.agent.Call(ctx, wire.OpResume, id, nil)
}

// syncDisk makes sure that the disk is on the host's before a memory that
// believes so.
func (s *supervisor) syncDisk() error { return syncFile(s.dir.File(store.DiskFile)) }

// goOn lets a suspended sandbox go on, if it is suspended. When it cannot, the
// person is told, and it shall boot.
func (s *supervisor) goOn(ctx context.Context, m qemu.Machine) (resumed bool, err error) {
	snap, err := snapshot.Open(s.dir.File(store.SuspendedState))
	if errors.Is(err, snapshot.ErrNone) {
		return false, nil
	}
	if err == nil {
		s.tell(handoff.StartEvent{Stage: "resuming"})
		if err = s.resume(ctx, m, snap); err == nil {
			return true, nil
		}
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	s.log.Warn("cannot resume: cold start", "error", err)
	s.tell(handoff.StartEvent{Note: fmt.Sprintf("%s cannot go on where it was suspended, and boots from its disk: %v", s.spec.Name, err)})
	return false, s.forget()
}

// forget removes the suspended machine, whose disk is about to change.
func (s *supervisor) forget() error {
	return (&snapshot.Snapshot{Path: s.dir.File(store.SuspendedState)}).Remove()
}

func (s *supervisor) resume(ctx context.Context, m qemu.Machine, snap *snapshot.Snapshot) error {
	plans, err := s.fitting(snap)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(snap.Meta.Network, &s.names); err != nil {
		return fmt.Errorf("its network: %w", err)
	}
	if err := s.succeed(ctx, plans, snap.Meta.Shares, s.forkOf(snap)); err != nil {
		s.killShares()
		return err
	}
	from := &vm.Origin{What: "suspended machine", Source: snap, Before: func(ctx context.Context, p *qemu.Process) error {
		if err := shareserver.Attach(ctx, p, s.shares, snap.Meta.Shares); err != nil {
			return err
		}
		return s.forget() // from here on the disk changes
	}}
	err = s.bringUp(ctx, m, from, func(ctx context.Context) error {
		if err := s.greet(ctx); err != nil {
			return err
		}
		return s.wake(ctx)
	})
	if err != nil {
		s.killShares()
	}
	return err
}

// forkOf says whether the snapshot is another sandbox's.
func (s *supervisor) forkOf(snap *snapshot.Snapshot) bool { return snap.Meta.Spec.ID != s.spec.ID }

// fitting says whether this sandbox's machine can go on from the snapshot, and
// with which shares.
func (s *supervisor) fitting(snap *snapshot.Snapshot) ([]shareserver.Plan, error) {
	if snap.Meta.Kind != s.kind {
		return nil, errors.New("QEMU, the kernel, the host's processor or the sandbox's settings have changed since")
	}
	plans, err := shareserver.Plans(s.spec)
	if err != nil {
		return nil, err
	}
	if len(plans) != len(snap.Meta.Shares) {
		return nil, errors.New("it has other mounts now")
	}
	for i, p := range plans {
		var was shareserver.Plan
		if err := json.Unmarshal(snap.Meta.Shares[i].Plan, &was); err != nil {
			return nil, fmt.Errorf("%w: %w", snapshot.ErrDamaged, err)
		}
		if s.forkOf(snap) && i == 0 {
			was.Options.Root = p.Options.Root // a fork may have a copy of the project
		}
		if !p.Equal(was) {
			return nil, fmt.Errorf("the mount %s has changed", p.Mount.Path)
		}
	}
	return plans, nil
}

// syncFile waits until what was written to a file is on the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Snapshot implements control.Service. Disk and memory are copied while the machine
// runs; it stands still while what they have become since is copied once more.
func (s *supervisor) Snapshot(ctx context.Context, path string) error {
	if !s.saving.TryLock() {
		return control.Errorf(control.ReasonSaving, "the sandbox is being saved already")
	}
	defer s.saving.Unlock()
	if st := s.Status(); st.Phase != sandbox.Running {
		return control.Errorf(control.ReasonPhase, "the sandbox is %s", st.Phase)
	}
	// What takes long is given up when who asked for it is gone; what stops the machine
	// is not.
	asked, ctx := ctx, context.WithoutCancel(ctx)
	draft, err := snapshot.Begin(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer draft.Discard()
	disk, forget, err := s.copyDisk(asked, draft)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer forget()
	mirror, err := s.mirror(asked)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer mirror.Close()
	began := time.Now()
	meta, err := s.capture(ctx, draft, disk, func() error {
		if mirror == nil {
			return draft.RAM(s.ram)
		}
		_, err := memory.Update(mirror, s.ram)
		return err
	})
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := s.release(ctx, meta.Shares); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s.log.Info("snapshot", "path", path, "still", time.Since(began).Round(time.Millisecond))
	if mirror != nil {
		if err := draft.RAM(mirror); err != nil {
			return err
		}
	}
	return draft.Commit(asked, path, *meta)
}

// copyDisk copies the disk of the running machine to the draft, where that takes time,
// and returns what makes the copy right, or makes it, when the machine stands still.
func (s *supervisor) copyDisk(asked context.Context, draft *snapshot.Draft) (still func(context.Context) error, forget func(), err error) {
	ctx := context.WithoutCancel(asked)
	path := s.dir.File(store.DiskFile)
	if draft.CanClone(path) {
		return func(ctx context.Context) error { return draft.Disk(ctx, path) }, func() {}, nil
	}
	tracked, err := s.machine.TrackDisk(ctx, vm.SerialDisk)
	if err != nil {
		return nil, nil, err
	}
	forget = func() {
		if err := tracked.Forget(ctx); err != nil {
			s.log.Warn("the disk's changes are marked for ever", "error", err)
		}
	}
	if err := draft.Disk(asked, path); err != nil {
		forget()
		return nil, nil, err
	}
	return func(ctx context.Context) error {
		return draft.Update(func(f *os.File) error { return tracked.Update(ctx, f) })
	}, forget, nil
}

// mirrorSpare is how much of the host's memory a mirror leaves free, in bytes.
const mirrorSpare = 512 << 20

// mirror is a copy of the memory of a machine that runs, from which it can be made
// right in a moment; nil where the host has no room for a copy.
func (s *supervisor) mirror(ctx context.Context) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.ram.Fd()), &st); err != nil {
		return nil, err
	}
	const block = 512 // of st_blocks (stat(2))
	if free := meminfo.Available(); free < st.Blocks*block+mirrorSpare {
		s.log.Info("the machine stands still while its memory is written: no room for a copy", "free", free)
		return nil, nil //nolint:nilnil // no copy is no error
	}
	mirror, err := memory.New(st.Size)
	if err != nil {
		return nil, err
	}
	if _, err := sparse.CopyData(ctx, mirror, s.ram); err != nil {
		mirror.Close()
		return nil, err
	}
	return mirror, nil
}
