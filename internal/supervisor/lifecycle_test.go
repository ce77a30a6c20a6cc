package supervisor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
)

// TestBeginSuspend: only a running sandbox can be suspended, and one that somebody works in
// only by force; nothing changes when it cannot.
func TestBeginSuspend(t *testing.T) {
	for name, c := range map[string]struct {
		phase    sandbox.Phase
		attached int
		force    bool
		reason   control.Reason
		text     string
	}{
		"running":              {sandbox.Running, 0, false, "", ""},
		"running, by force":    {sandbox.Running, 0, true, "", ""},
		"one attached":         {sandbox.Running, 1, false, control.ReasonAttached, "a command or shell is attached to the sandbox and would be ended"},
		"three attached":       {sandbox.Running, 3, false, control.ReasonAttached, "3 commands or shells are attached to the sandbox and would be ended"},
		"attached, by force":   {sandbox.Running, 3, true, "", ""},
		"starting":             {sandbox.Starting, 0, false, control.ReasonPhase, "the sandbox is starting"},
		"starting, by force":   {sandbox.Starting, 0, true, control.ReasonPhase, "the sandbox is starting"},
		"stopping":             {sandbox.Stopping, 0, true, control.ReasonPhase, "the sandbox is stopping"},
		"stopped":              {sandbox.Stopped, 0, true, control.ReasonPhase, "the sandbox is stopped"},
		"stopping, and in use": {sandbox.Stopping, 1, false, control.ReasonPhase, "the sandbox is stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLifecycle(t.Context())
			l.setPhase(c.phase, "")
			for range c.attached {
				l.attach()
			}
			err := l.beginSuspend(c.force)
			if control.ReasonOf(err) != c.reason || (err == nil) != (c.text == "") || err != nil && err.Error() != c.text {
				t.Errorf("%v, want %q", err, c.text)
			}
			want := c.phase
			if err == nil {
				want = sandbox.Stopping
			}
			if got := l.status().phase; got != want {
				t.Errorf("the phase is %s, want %s", got, want)
			}
		})
	}
}

// TestUndoSuspend: the sandbox runs again, since when it did, unless it is to end.
func TestUndoSuspend(t *testing.T) {
	l := newLifecycle(t.Context())
	l.setPhase(sandbox.Running, "")
	since := l.status().since
	if since.IsZero() {
		t.Error("since when it runs is not known")
	}
	if err := l.beginSuspend(false); err != nil {
		t.Fatal(err)
	}
	if !l.undoSuspend() || l.status().phase != sandbox.Running || !l.status().since.Equal(since) {
		t.Errorf("%+v, since %v before", l.status(), since)
	}
	if err := l.beginSuspend(false); err != nil {
		t.Fatal(err)
	}
	l.end(errors.New("a share died"))
	if l.undoSuspend() || l.status().phase != sandbox.Stopping {
		t.Errorf("it goes on although it is to end: %+v", l.status())
	}
}

// TestBeginStop: the first one stops the sandbox, whoever comes later waits.
func TestBeginStop(t *testing.T) {
	l := newLifecycle(t.Context())
	l.setPhase(sandbox.Running, "")
	var first sync.Map
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if l.beginStop() {
				first.Store(i, true)
			}
		})
	}
	all.Wait()
	n := 0
	first.Range(func(any, any) bool { n++; return true })
	if n != 1 || l.status().phase != sandbox.Stopping {
		t.Errorf("%d were the first; the phase is %s", n, l.status().phase)
	}
}

// TestTheFirstCauseCounts: of several that end a sandbox, and a signal is one.
func TestTheFirstCauseCounts(t *testing.T) {
	ctx, signal := context.WithCancelCause(t.Context())
	l := newLifecycle(ctx)
	if l.ended() {
		t.Error("it ends at once")
	}
	first := errors.New("the first")
	l.end(first)
	l.end(errors.New("the second"))
	signal(errors.New("a signal"))
	if !l.ended() || !errors.Is(context.Cause(l.ctx), first) {
		t.Errorf("it ends because of %v", context.Cause(l.ctx))
	}
	l = newLifecycle(ctx)
	if !l.ended() {
		t.Error("a signal does not end it")
	}
}

// TestLifecycleEvents: each change is one event, in order; none is one without a change.
func TestLifecycleEvents(t *testing.T) {
	l := newLifecycle(t.Context())
	sub := l.events.Subscribe(func() control.Status { return control.Status{Phase: l.status().phase} })
	l.setPhase(sandbox.Running, "")
	l.setPhase(sandbox.Running, "")
	left := l.attach()
	other := l.attach()
	left()
	left() // counts once
	if err := l.beginSuspend(true); err != nil {
		t.Fatal(err)
	}
	l.undoSuspend()
	l.beginStop()
	l.beginStop()
	l.setPhase(sandbox.Stopping, "the guest powered off")
	other()
	l.events.Close()
	type brief struct {
		kind     control.Kind
		phase    sandbox.Phase
		attached int
		message  string
	}
	var got []brief
	for e := range sub.Events() {
		if e.Time.IsZero() {
			t.Errorf("%s has no time", e.Kind)
		}
		b := brief{e.Kind, e.Phase, e.Attached, e.Message}
		if e.Status != nil {
			b.phase = e.Status.Phase
		}
		got = append(got, b)
	}
	want := []brief{
		{control.KindStatus, sandbox.Starting, 0, ""},
		{control.KindPhase, sandbox.Running, 0, ""},
		{control.KindAttached, "", 1, ""},
		{control.KindAttached, "", 2, ""},
		{control.KindDetached, "", 1, ""},
		{control.KindPhase, sandbox.Stopping, 0, ""},
		{control.KindPhase, sandbox.Running, 0, ""},
		{control.KindPhase, sandbox.Stopping, 0, ""},
		{control.KindPhase, sandbox.Stopping, 0, "the guest powered off"},
		{control.KindDetached, "", 0, ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestStatusWhileThePhaseChanges: a status taken at any moment is whole: a running sandbox
// has the time since when it runs. Under -race, all of it is seen to be under the lock.
func TestStatusWhileThePhaseChanges(t *testing.T) {
	l := newLifecycle(t.Context())
	var changes sync.WaitGroup
	changes.Go(func() {
		for range 200 {
			l.setPhase(sandbox.Running, "")
			left := l.attach()
			l.beginStop()
			left()
			l.setPhase(sandbox.Starting, "")
		}
	})
	done := make(chan struct{})
	go func() { changes.Wait(); close(done) }()
	for {
		if s := l.status(); s.phase == sandbox.Running && s.since.IsZero() || s.sessions < 0 || s.sessions > 1 {
			t.Fatalf("%+v", s)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
