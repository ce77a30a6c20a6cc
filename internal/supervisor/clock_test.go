package supervisor

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"bawn.dev/bawn/internal/supervisor/agent/agenttest"
	"bawn.dev/bawn/internal/wire"
)

// TestKeepClock: the guest is told the time after the host slept or its clock was
// set, and now and then, and is left alone otherwise.
func TestKeepClock(t *testing.T) {
	a, g := agenttest.New(t)
	s := &supervisor{machine: &machine{agent: a}, log: slog.New(slog.DiscardHandler)}
	now := clocks{wall: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	ticks := make(chan time.Time)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	at := make(chan clocks) // each look takes one
	go func() {
		defer close(done)
		s.keepClock(ctx, func() clocks { return <-at }, ticks)
	}()
	at <- now
	for _, c := range []struct {
		passed, ran time.Duration
		told        bool
	}{
		{5 * time.Second, 5 * time.Second, false},
		{8*time.Hour + 5*time.Second, 5 * time.Second, true}, // it slept
		{5 * time.Second, 5 * time.Second, false},
		{-time.Hour, 5 * time.Second, true}, // it was set
		{5*time.Second + 10*time.Millisecond, 5 * time.Second, false},
		{clockTell, clockTell, true},
	} {
		now.wall, now.ran = now.wall.Add(c.passed), now.ran+c.ran
		ticks <- time.Time{}
		at <- now
		if !c.told {
			continue
		}
		at <- now
		r := g.Request(t)
		var told time.Time
		if err := json.Unmarshal(r.Body, &told); err != nil || r.Op != wire.OpTime || !told.Equal(now.wall) {
			t.Errorf("after %v: %s %s, %v", c.passed, r.Op, r.Body, err)
		}
		g.Done(r)
	}
	cancel()
	<-done
}
