package engine

import (
	"context"
	"errors"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/launch"
)

// Suspend saves the machine of a sandbox to disk and ends it; the next start resumes
// it. One that does not run stays as it is. The supervisor refuses while commands
// or shells are attached, except with force, which ends them.
func (e *Engine) Suspend(ctx context.Context, name string, force bool) error {
	d, err := e.folder(name)
	if err != nil {
		return err
	}
	l, err := e.lockStart(ctx, d)
	if err != nil {
		return err
	}
	defer l.Close()
	st, err := d.State()
	if err != nil {
		return err
	}
	switch st.Phase {
	case sandbox.Running:
	case sandbox.Stopped:
		return nil // suspended or off, it takes no memory
	default:
		return failf(WrongPhase, name, "sandbox %s is %s", name, st.Phase)
	}
	return e.during("Suspending "+name, func() error {
		err := control.NewClient(d.DialControl).Suspend(ctx, force)
		if err != nil {
			return because(whyNotSaved(err, SuspendFailed), name, err)
		}
		return launch.AwaitExit(ctx, d)
	})
}

// whyNotSaved returns the reason why a sandbox was not saved, where its supervisor names one that a
// caller can do something about, or else.
func whyNotSaved(err error, otherwise Reason) Reason {
	switch r := control.ReasonOf(err); r {
	case control.ReasonAttached, control.ReasonCannotSave:
		return Reason(r)
	default:
		return otherwise
	}
}

// Resume resumes a suspended sandbox. It has no effect on one that runs.
func (e *Engine) Resume(ctx context.Context, name string) error {
	d, err := e.folder(name)
	if err != nil {
		return err
	}
	if st, err := d.State(); err != nil || st.Phase == sandbox.Running {
		return err
	}
	if !suspended(d) {
		return failf(NotSuspended, name, "sandbox %s is not suspended", name)
	}
	return e.EnsureRunning(ctx, name)
}

// suspended reports whether the next start of a stopped sandbox resumes a saved machine.
func suspended(d store.Dir) bool { return snapshot.Exists(d.File(store.SuspendedState)) }

// forgetSuspended removes the saved machine of a suspended sandbox: its next start boots.
func forgetSuspended(d store.Dir) error {
	s, err := snapshot.Open(d.File(store.SuspendedState))
	if errors.Is(err, snapshot.ErrNone) {
		return nil
	}
	if err != nil {
		s = &snapshot.Snapshot{Path: d.File(store.SuspendedState)}
	}
	return s.Remove()
}
