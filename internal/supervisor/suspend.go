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

// Suspending, resuming, and snapshots.
//
// Theory of operation. The words:
//
//   - freeze: the agent stops all processes in the guest and flushes its disk
//     (wire.OpSuspend); thaw is the opposite (wire.OpResume), and gives the guest the time
//     and a fresh seed.
//   - pause: QEMU stops the guest's processors.
//   - detach, attach: the shares' devices leave and enter a paused machine, because QEMU
//     cannot save a machine with vhost-user devices.
//   - capture: freeze, pause, detach, and save the state of the devices. release is the
//     opposite: attach, unpause, thaw.
//   - draft: what is being saved (package snapshot). It counts only once it is committed.
//
// A sandbox is suspended in this order: the flows to the world are cut; it is captured, and
// its memory is written; the draft is committed; the machine is killed. Up to the commit
// everything can be undone, and is if anything fails.
//
// It resumes in the reverse order. The saved state is removed before the machine runs
// again: from then on the disk is newer. A sandbox that cannot be resumed
// (another QEMU, another processor, a damaged file) boots from its disk instead, which the
// agent has flushed, as after a power failure; the user is notified.
//
// A snapshot is captured as well, but disk and memory were copied before, while the
// machine ran. Only what changed since is copied while it is paused.
//
// Every request to the guest, to QEMU and to a share's server in this file has a limit, so
// that a part that hangs cannot hold the guest paused for ever; and all of it ends with
// the machine.

// pauseLimit bounds each step during which the guest is paused.
const pauseLimit = 2 * time.Minute

// errSaving returns the error of a request while the sandbox is already being saved.
func errSaving() error {
	return control.Errorf(control.ReasonSaving, "the sandbox is being suspended, or a snapshot of it is being created; try again in a moment")
}

// canSave returns an error where machines cannot be saved. It is asked before anything is done
// for it: a suspension begins by cutting the flows to the world.
func canSave() error {
	if qemu.CanDetachShares() {
		return nil
	}
	return control.Errorf(control.ReasonCannotSave, "%w", qemu.ErrCannotDetach)
}

// Suspend implements control.Service.
func (s *supervisor) Suspend(ctx context.Context, force bool) error {
	if err := canSave(); err != nil {
		return err
	}
	if !s.saving.TryLock() {
		return errSaving()
	}
	defer s.saving.Unlock()
	if !force {
		s.awaitDetached(ctx)
	}
	if err := s.life.beginSuspend(force); err != nil {
		return err
	}
	alive, cancel := s.machine.whileAlive(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.suspend(alive); err != nil {
		s.undoSuspend()
		return fmt.Errorf("suspend: %w", err)
	}
	<-s.machine.Done()
	return nil
}

// leaveLimit is how long a client that has gone may still be counted as attached.
const leaveLimit = time.Second

// awaitDetached waits a moment for clients that have just gone: "bawn run" that ended right
// before.
func (s *supervisor) awaitDetached(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	changes := s.life.events.Subscribe(s.Status)
	defer changes.Close()
	for s.life.status().sessions > 0 {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-changes.Events():
			if !ok {
				return
			}
		}
	}
}

// undoSuspend resumes a sandbox that could not be suspended.
func (s *supervisor) undoSuspend() {
	if s.life.undoSuspend() {
		_ = s.saveState("") // for bawn ls; the lock is what counts
		s.reloadRules()
	}
}

// suspend saves the machine and kills it.
func (s *supervisor) suspend(ctx context.Context) error {
	_ = s.saveState("")
	draft, err := snapshot.Begin(s.dir.File(store.SuspendedFolder))
	if err != nil {
		return err
	}
	defer draft.Discard()
	s.network.gate.CutAll("the sandbox is suspended")
	meta, err := s.capture(ctx, draft, func(context.Context) error { return nil }, func() error { return draft.RAM(s.machine.ram) })
	if err != nil {
		return err
	}
	if err = s.syncDisk(); err == nil {
		err = draft.Commit(ctx, s.dir.File(store.SuspendedState), *meta)
	}
	if err != nil {
		return errors.Join(err, s.release(ctx, meta.Shares))
	}
	s.log.Info("suspended")
	s.machine.Kill()
	return nil
}

// capture pauses the machine and writes its devices to the draft. After an error the
// machine runs again; without one it is paused and has no shares (release). disk and memory
// are called while it is paused, to save what must be of that moment.
func (s *supervisor) capture(ctx context.Context, draft *snapshot.Draft, disk func(context.Context) error, memory func() error) (*snapshot.Meta, error) {
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	m := s.machine
	if err := m.agent.Call(ctx, wire.OpSuspend, struct{}{}, nil); err != nil {
		return nil, errors.Join(err, s.unpause(ctx))
	}
	if err := m.Pause(ctx); err != nil { // QEMU may still carry it out
		return nil, errors.Join(err, s.unpause(ctx))
	}
	paused := time.Now().UTC()
	shares, err := shareserver.Detach(ctx, m, s.shares)
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
		err = draft.State(func(w io.Writer) error { return m.SaveState(ctx, w) })
	}
	if err == nil {
		err = memory()
	}
	if err != nil {
		return nil, errors.Join(err, s.release(ctx, shares))
	}
	return &snapshot.Meta{Made: paused, Kind: s.platform.kind, Spec: s.spec, Shares: shares, Network: names}, nil
}

// release resumes a captured machine.
func (s *supervisor) release(ctx context.Context, shares []snapshot.Share) error {
	ctx, cancel := s.afterCapture(ctx)
	defer cancel()
	if err := shareserver.Attach(ctx, s.machine, s.shares, shares); err != nil {
		s.endIncomplete(err)
		return err
	}
	return s.unpause(ctx)
}

// endIncomplete ends a machine without all its shares: its guest must not run again.
func (s *supervisor) endIncomplete(err error) {
	s.life.end(fmt.Errorf("the machine cannot continue: %w", err))
	s.machine.Kill()
}

// unpause resumes a machine that has all its shares, and thaws its guest. It has no effect
// on a machine that runs.
func (s *supervisor) unpause(ctx context.Context) error {
	ctx, cancel := s.afterCapture(ctx)
	defer cancel()
	return errors.Join(s.machine.Resume(ctx), s.thaw(ctx))
}

// afterCapture returns a context for steps that end a capture. They get a time of
// their own, because the capture may have failed by using up the whole of its own, and
// the guest must be resumed in any case.
func (s *supervisor) afterCapture(ctx context.Context) (context.Context, context.CancelFunc) {
	alive, cancelAlive := s.machine.whileAlive(context.WithoutCancel(ctx))
	limited, cancel := context.WithTimeout(alive, pauseLimit)
	return limited, func() { cancel(); cancelAlive() }
}

// thaw resumes all processes in the guest.
func (s *supervisor) thaw(ctx context.Context) error {
	id, err := s.identity()
	if err != nil {
		return err
	}
	if err := s.machine.agent.Call(ctx, wire.OpResume, id, nil); err != nil {
		return err
	}
	s.startClock(ctx)
	return nil
}

// syncDisk makes sure that the disk is on the host's before a memory that
// believes so.
func (s *supervisor) syncDisk() error { return syncFile(s.dir.File(store.DiskFile)) }

// errNotWithoutKVM refuses to resume a machine that was saved under KVM while it is not known
// whether KVM works: that is known within minutes, and booting instead would lose the memory.
var errNotWithoutKVM = errors.New("it was suspended under KVM, and the test whether KVM works now got too little time; it stays suspended: " +
	"when this host is less busy, run bawn doctor, which tests KVM anew, and start it again")

// resume resumes a suspended sandbox. It reports false if the sandbox is not suspended or
// cannot be resumed; in the second case it notifies the user, and the caller boots it. After
// an error it is still suspended.
func (s *supervisor) resume(ctx context.Context, plan *qemu.Machine) (resumed bool, err error) {
	snap, err := snapshot.Open(s.dir.File(store.SuspendedState))
	if errors.Is(err, snapshot.ErrNone) {
		return false, nil
	}
	if err == nil {
		s.report(handoff.StartEvent{Stage: "resuming"})
		if err = s.resumeFrom(ctx, plan, snap); err == nil {
			return true, nil
		}
	}
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if errors.Is(err, errNotWithoutKVM) {
		return false, err
	}
	s.log.Warn("cannot resume: booting instead", "error", err)
	s.report(handoff.StartEvent{Note: fmt.Sprintf("cannot resume %s from its suspended state, so it boots from its disk: %v", s.spec.Name, err)})
	return false, s.removeSuspended()
}

// removeSuspended removes the saved machine, whose disk is about to change.
func (s *supervisor) removeSuspended() error {
	return (&snapshot.Snapshot{Path: s.dir.File(store.SuspendedState)}).Remove()
}

// resumeFrom starts the machine that was saved. After an error nothing of it is left.
func (s *supervisor) resumeFrom(ctx context.Context, plan *qemu.Machine, snap *snapshot.Snapshot) error {
	plans, err := s.resumePlans(snap)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(snap.Meta.Network, &s.names); err != nil {
		return fmt.Errorf("its network: %w", err)
	}
	if err := s.takeOverShares(ctx, plans, snap.Meta.Shares, s.forkOf(snap)); err != nil {
		s.killShares()
		return err
	}
	from := &vm.Origin{What: "suspended machine", Source: snap, Before: func(ctx context.Context, p *qemu.Process) error {
		if err := shareserver.Attach(ctx, p, s.shares, snap.Meta.Shares); err != nil {
			return err
		}
		return s.removeSuspended() // from here on the disk changes
	}}
	if err := s.runMachine(ctx, plan, from, s.thaw); err != nil {
		s.killShares()
		return err
	}
	s.source.localDirs = snap.Meta.Spec.LocalDirs
	if !s.forkOf(snap) { // all files of a copy are new
		s.told = snap.Meta.Made
	}
	return nil
}

// forkOf reports whether the snapshot is another sandbox's.
func (s *supervisor) forkOf(snap *snapshot.Snapshot) bool { return snap.Meta.Spec.ID != s.spec.ID }

// resumePlans returns the shares with which this sandbox's machine can be resumed from the
// snapshot, or an error that says why it cannot.
func (s *supervisor) resumePlans(snap *snapshot.Snapshot) ([]shareserver.Plan, error) {
	switch snap.Meta.Kind {
	case s.platform.kind:
	case s.platform.kvmKind:
		return nil, errNotWithoutKVM
	default:
		return nil, errors.New("QEMU, the guest's kernel, the host's processor or the sandbox's settings have changed since it was suspended")
	}
	plans, err := shareserver.Plans(s.spec, s.dir)
	if err != nil {
		return nil, err
	}
	if len(plans) != len(snap.Meta.Shares) {
		return nil, errors.New("its mounts have changed since it was suspended")
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
			return nil, fmt.Errorf("the mount %s has changed since it was suspended", p.Mount.Path)
		}
	}
	return plans, nil
}

// syncFile returns when what was written to a file is on the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Snapshot implements control.Service.
func (s *supervisor) Snapshot(ctx context.Context, path string) error {
	if err := canSave(); err != nil {
		return err
	}
	if !s.saving.TryLock() {
		return errSaving()
	}
	defer s.saving.Unlock()
	if phase := s.life.status().phase; phase != sandbox.Running {
		return control.Errorf(control.ReasonPhase, "the sandbox is %s", phase)
	}
	// Copying takes long, and is given up when the caller is. What pauses the machine is not.
	asked, cancelAsked := s.machine.whileAlive(ctx)
	defer cancelAsked()
	ctx, cancel := s.machine.whileAlive(context.WithoutCancel(ctx))
	defer cancel()
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
			return draft.RAM(s.machine.ram)
		}
		_, err := memory.Update(mirror, s.machine.ram)
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

// copyDisk starts copying the disk of the running machine into the draft (where reflink is
// instant it does nothing). complete completes the copy and must be called with the guest
// paused; forget ends the tracking of changes and must be called afterwards.
func (s *supervisor) copyDisk(asked context.Context, draft *snapshot.Draft) (complete func(context.Context) error, forget func(), err error) {
	path := s.dir.File(store.DiskFile)
	if draft.CanClone(path) {
		return func(ctx context.Context) error { return draft.Disk(ctx, path) }, func() {}, nil
	}
	limited, cancel := s.afterCapture(asked) // QEMU may do it although the caller has gone
	defer cancel()
	tracked, err := s.machine.TrackDisk(limited, vm.SerialDisk)
	if err != nil {
		return nil, nil, err
	}
	forget = func() {
		ctx, cancel := s.afterCapture(asked)
		defer cancel()
		if err := tracked.Forget(ctx); err != nil {
			s.log.Warn("cannot stop tracking the disk's changes", "error", err)
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

// mirror copies the memory of the running machine. Bringing the copy up to date takes but a
// moment once the machine is paused. It returns nil where the host has no room for a copy.
func (s *supervisor) mirror(ctx context.Context) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(s.machine.ram.Fd()), &st); err != nil {
		return nil, err
	}
	const block = 512 // of st_blocks (stat(2))
	if free := meminfo.Available(); free < st.Blocks*block+mirrorSpare {
		s.log.Info("the guest stays paused while its memory is written: there is no space for a copy", "free", free)
		return nil, nil //nolint:nilnil // no copy is no error
	}
	mirror, err := memory.New(st.Size)
	if err != nil {
		return nil, err
	}
	if _, err := sparse.CopyData(ctx, mirror, s.machine.ram); err != nil {
		mirror.Close()
		return nil, err
	}
	return mirror, nil
}
