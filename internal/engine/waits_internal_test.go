package engine

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
)

// TestWaitsAreReported holds each lock that another command may hold for long, and lets a method wait
// for it: a front end is told why.
func TestWaitsAreReported(t *testing.T) {
	proc.Distrust(nil) // whose engine another test made is gone
	const start, names = "Waiting for another bawn command that starts or changes the sandbox", "Waiting for another bawn command that creates or starts a sandbox"
	const fetch = "Waiting for another bawn command that fetches packages"
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	packages, err := packageStore()
	if err != nil {
		t.Fatal(err)
	}
	e, events := newEngine(t)
	d, err := e.sandboxes.Create(&sandbox.Spec{Name: "shop", ID: sandbox.NewID()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := e.warmPool()
	if err != nil {
		t.Fatal(err)
	}
	errEnough := errors.New("the test has seen enough")
	for _, c := range []struct {
		what, label string
		lock        func(ctx context.Context) (*lockfile.Lock, error)
		wait        func(ctx context.Context) error
	}{
		{"suspend", start, d.LockStart, func(ctx context.Context) error { return e.Suspend(ctx, "shop", false) }},
		{"remove", start, d.LockStart, func(ctx context.Context) error { return e.Remove(ctx, "shop", false) }},
		{"ports", start, d.LockStart, func(ctx context.Context) error { _, err := e.ChangePorts(ctx, "shop", nil, nil); return err }},
		{"restore", start, d.LockStart, func(ctx context.Context) error { return e.restore(ctx, d, "none", false) }},
		{"snapshots", start, d.LockStart, func(ctx context.Context) error { _, err := e.RemoveSnapshots(ctx, "shop", nil); return err }},
		{"start", start, d.LockStart, func(ctx context.Context) error { return e.EnsureRunning(ctx, "shop") }},
		{"resolve", names, e.sandboxes.LockNames, func(ctx context.Context) error { _, err := e.resolve(ctx, &Request{Name: "shop"}); return err }},
		{"admit", names, e.sandboxes.LockNames, func(ctx context.Context) error { _, err := e.admit(ctx, &sandbox.Spec{Name: "shop"}); return err }},
		{"pool", "Waiting for another bawn command that fills or empties the pool", p.Members.LockNames, func(ctx context.Context) error { return e.ResizePool(ctx, 1) }},
		{"fill", fetch, packages.Lock, func(ctx context.Context) error { _, err := e.FillCaches(ctx, &sandbox.Spec{Name: "shop"}); return err }},
		{"fill in turn", fetch, packages.Lock, func(ctx context.Context) error { _, err := e.FillCachesInTurn(ctx, "shop"); return err }},
		{"prune", fetch, packages.Lock, func(ctx context.Context) error { _, err := e.PruneCaches(ctx, 0); return err }},
	} {
		t.Run(c.what, func(t *testing.T) {
			held, err := c.lock(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			before := len(events())
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			ended := make(chan error, 1)
			go func() { ended <- c.wait(ctx) }()
			told := func() bool {
				return slices.ContainsFunc(events()[before:], func(ev Event) bool {
					s, ok := ev.(TaskStarted)
					return ok && s.Label == c.label
				})
			}
			for !told() {
				select {
				case err := <-ended:
					t.Fatalf("it did not wait: %v", err)
				case <-time.After(time.Millisecond):
				}
			}
			cancel(errEnough)
			if err := <-ended; !errors.Is(err, errEnough) {
				t.Errorf("%v", err)
			}
		})
	}
}
