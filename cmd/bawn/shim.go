package main

// What the verbs that do not use the engine yet use of it.

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/text"
)

func engineOf(sandboxes *store.Store) *engine.Engine {
	return engine.New(sandboxes, engine.Options{Version: version(), Events: newBars(os.Stderr).show})
}

func lookup(sandboxes *store.Store, name string) (*sandbox.Spec, error) {
	return find(engineOf(sandboxes), name)
}

func named(args []string) (*store.Store, *sandbox.Spec, error) {
	e, spec, err := namedSandbox(args)
	if err != nil {
		return nil, nil, err
	}
	return e.Sandboxes(), spec, nil
}

func ensureRunning(ctx context.Context, sandboxes *store.Store, name string) error {
	return engineOf(sandboxes).EnsureRunning(ctx, name)
}

func bringUp(ctx context.Context, sandboxes *store.Store, name string, _ *specFlags, reachable func()) error {
	if st, err := sandboxes.Dir(name).State(); err == nil && st.Phase != sandbox.Running {
		reachable()
	}
	return engineOf(sandboxes).EnsureRunning(ctx, name)
}

func dial(ctx context.Context, sandboxes *store.Store, name, user string) (*session.Client, error) {
	return engineOf(sandboxes).Dial(ctx, name, user)
}

func startedAgain(ctx context.Context, sandboxes *store.Store, name string) bool {
	return launch.AwaitExit(ctx, sandboxes.Dir(name)) == nil && ensureRunning(ctx, sandboxes, name) == nil
}

func stop(ctx context.Context, d store.Dir, force bool) error {
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	return engineOf(sandboxes).Stop(ctx, nameOf(d), force)
}

func halt(ctx context.Context, d store.Dir, force bool) error { return stop(ctx, d, force) }

func suspend(ctx context.Context, d store.Dir, force bool) error {
	sandboxes, err := store.Open()
	if err != nil {
		return err
	}
	return engineOf(sandboxes).Suspend(ctx, nameOf(d), force)
}

func suspended(d store.Dir) bool { return snapshot.Exists(d.File(store.SuspendedState)) }

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

func showing(label string, f func() error) error {
	task := newBars(os.Stderr).Start(label, 0, progress.Steps)
	err := f()
	task.Done(err)
	return err
}

func (b *bars) Start(label string, total int64, unit progress.Unit) progress.Task {
	return engine.Reporter(b.show).Start(label, total, unit)
}

func (b *bars) close() {}

func printable(s string) string { return text.Block(s) }

func visibleText(s string) string { return text.Line(s) }

func nameOf(d store.Dir) string { return filepath.Base(d.Path) }

func guestUser() user { return user{engine.GuestUser().Name} }

type user struct{ Name string }
