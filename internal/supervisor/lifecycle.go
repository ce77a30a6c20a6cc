package supervisor

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
)

// lifecycle is the phase of a sandbox, the number of clients in it, and why it ends. Its methods may be
// called by several goroutines at once.
//
// The phases of one supervisor are Starting, Running, Stopping and Stopped, in this order;
// a suspension that fails goes back from Stopping to Running.
type lifecycle struct {
	ctx    context.Context // ends when the sandbox is to end; its cause is why
	cancel context.CancelCauseFunc
	events control.Broadcaster // for the clients of the control socket

	mu       sync.Mutex
	phase    sandbox.Phase
	since    time.Time // of the phase Running
	sessions int       // SSH connections
}

// newLifecycle returns the lifecycle of a sandbox that starts. The end of ctx, which a
// signal brings about, ends the sandbox.
func newLifecycle(ctx context.Context) *lifecycle {
	l := &lifecycle{phase: sandbox.Starting}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

// end ends the sandbox. The first cause counts.
func (l *lifecycle) end(why error) { l.cancel(why) }

// ended reports whether the sandbox is to end.
func (l *lifecycle) ended() bool { return l.ctx.Err() != nil }

// lifeStatus is a lifecycle at one moment.
type lifeStatus struct {
	phase    sandbox.Phase
	since    time.Time
	sessions int
}

// status returns how far the sandbox is.
func (l *lifecycle) status() lifeStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lifeStatus{l.phase, l.since, l.sessions}
}

// setPhase makes p the phase. why is for the subscribers of events, and may be empty.
func (l *lifecycle) setPhase(p sandbox.Phase, why string) {
	l.mu.Lock()
	was := l.phase
	l.phase = p
	if p == sandbox.Running && was != sandbox.Stopping { // else a suspension failed
		l.since = time.Now().UTC()
	}
	l.mu.Unlock()
	if p != was || why != "" {
		l.events.Send(control.Event{Kind: control.KindPhase, Phase: p, Message: why})
	}
}

// beginStop makes the phase Stopping. It reports false if it was that already: then
// somebody else stops or suspends the sandbox.
func (l *lifecycle) beginStop() (first bool) {
	l.mu.Lock()
	first = l.phase != sandbox.Stopping
	l.phase = sandbox.Stopping
	l.mu.Unlock()
	if first {
		l.events.Send(control.Event{Kind: control.KindPhase, Phase: sandbox.Stopping})
	}
	return first
}

// beginSuspend makes the phase of a running sandbox Stopping. Without force it fails while
// somebody is attached.
func (l *lifecycle) beginSuspend(force bool) error {
	l.mu.Lock()
	err := l.checkSuspend(force)
	if err == nil {
		l.phase = sandbox.Stopping
	}
	l.mu.Unlock()
	if err == nil {
		l.events.Send(control.Event{Kind: control.KindPhase, Phase: sandbox.Stopping})
	}
	return err
}

// checkSuspend returns why the sandbox cannot be suspended now; l.mu is held.
func (l *lifecycle) checkSuspend(force bool) error {
	switch {
	case l.phase != sandbox.Running:
		return control.Errorf(control.ReasonPhase, "the sandbox is %s", l.phase)
	case l.sessions == 0 || force:
		return nil
	}
	attached := "a command or shell is"
	if l.sessions > 1 {
		attached = fmt.Sprintf("%d commands or shells are", l.sessions)
	}
	return control.Errorf(control.ReasonAttached, "%s attached to the sandbox and would be ended", attached)
}

// undoSuspend makes a sandbox that could not be suspended Running again. It reports false,
// and does nothing, if the sandbox is to end.
func (l *lifecycle) undoSuspend() bool {
	if l.ended() {
		return false
	}
	l.setPhase(sandbox.Running, "")
	return true
}

// attach counts a client that came to work in the sandbox. The caller calls left once,
// when it has gone.
func (l *lifecycle) attach() (left func()) {
	l.count(1, control.KindAttached)
	return sync.OnceFunc(func() { l.count(-1, control.KindDetached) })
}

func (l *lifecycle) count(n int, kind control.Kind) {
	l.mu.Lock()
	l.sessions += n
	now := l.sessions
	l.mu.Unlock()
	l.events.Send(control.Event{Kind: kind, Attached: now})
}
