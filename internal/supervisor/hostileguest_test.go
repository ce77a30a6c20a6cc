package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/wire"
)

// soon sets a limit to almost nothing until the test has ended. It is called before begin.
func soon(t *testing.T, limit *time.Duration) {
	t.Helper()
	was := *limit
	*limit = 20 * time.Millisecond
	t.Cleanup(func() { *limit = was })
}

// TestAGuestThatIsNeverReadyEndsItsStart: one that is resumed is hostile from its first moment. It
// greets, and answers to nothing else.
func TestAGuestThatIsNeverReadyEndsItsStart(t *testing.T) {
	soon(t, &adoptLimit)
	l := begin(t, func(l *life) {
		l.s.source.resumed = true
		l.hangs[wire.OpMux] = true
	})
	<-l.ended
	if l.why == nil || !strings.Contains(l.why.Error(), errAdopt.Error()) {
		t.Errorf("%v", l.why)
	}
	if st := l.state(t); st.Phase != sandbox.Stopped || !strings.Contains(st.Message, errAdopt.Error()) {
		t.Errorf("%+v", st)
	}
}

// TestAGuestThatSetsNoClockDelaysNoStart, nor a snapshot, nor the way back from a suspension
// that failed.
func TestAGuestThatSetsNoClockDelaysNoStart(t *testing.T) {
	soon(t, &startClockLimit)
	l := begin(t, func(l *life) { l.hangs[wire.OpClock], l.hangs[wire.OpTime] = true, true })
	select {
	case <-l.ready:
	case <-time.After(clockLimit / 2):
		t.Error("it is not ready yet")
	}
	if err := l.s.thaw(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAnAgentThatIsAddedWaitsForNoGuest: a suspension hangs, and the person gives up.
func TestAnAgentThatIsAddedWaitsForNoGuest(t *testing.T) {
	l := begin(t)
	<-l.ready
	suspended := l.suspendAndHang()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.s.AddAgent(ctx, sandbox.Agent{Name: "one"}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := l.client.Stop(t.Context(), true); err != nil {
		t.Error(err)
	}
	if err := <-suspended; err == nil {
		t.Error("it was suspended")
	}
}
