package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"bawn.dev/bawn/internal/supervisor/agent/agenttest"
	"bawn.dev/bawn/internal/wire"
)

// TestKeepClock: the guest's clock is set at the first tick, after the host slept or its
// clock was set, when its time zone has changed, and now and then, and is left alone otherwise.
func TestKeepClock(t *testing.T) {
	zone := "Europe/Berlin"
	t.Setenv("TZ", zone)
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
		behind      time.Duration // the guest, when it is asked
		lead        time.Duration // that it gets
		zone        string        // where the person has travelled to before
	}{
		{5 * time.Second, 5 * time.Second, true, 3 * time.Millisecond, firstLead, ""},
		{5 * time.Second, 5 * time.Second, false, 0, 0, ""},
		{8*time.Hour + 5*time.Second, 5 * time.Second, true, 8 * time.Hour, firstLead, ""}, // it slept
		{5 * time.Second, 5 * time.Second, false, 0, 0, ""},
		{5 * time.Second, 5 * time.Second, true, time.Millisecond, firstLead, "Asia/Tokyo"},
		{5 * time.Second, 5 * time.Second, false, 0, 0, ""},
		{-time.Hour, 5 * time.Second, true, -time.Hour, firstLead, ""}, // it was set
		{5*time.Second + 10*time.Millisecond, 5 * time.Second, false, 0, 0, ""},
		{clockTell, clockTell, true, 15 * time.Millisecond, firstLead, ""},
		// It lost 40 ms in about a minute: it gets that much more the next time.
		{clockTell, clockTell, true, -10 * time.Millisecond, 36923076, ""},
	} {
		if c.zone != "" {
			zone = c.zone
			t.Setenv("TZ", zone)
		}
		now.wall, now.ran = now.wall.Add(c.passed), now.ran+c.ran
		ticks <- time.Time{}
		at <- now
		if !c.told {
			continue
		}
		// The second answer is the fastest.
		for _, took := range []time.Duration{9 * time.Millisecond, 2 * time.Millisecond, 30 * time.Millisecond} {
			at <- now
			r := g.Request(t)
			if r.Op != wire.OpClock || string(r.Body) != "{}" {
				t.Fatalf("asked for the time by %s %s", r.Op, r.Body)
			}
			g.Say(fmt.Sprintf(`{"id":%d,"body":{"now":%d}}`, r.ID, now.wall.Add(took-c.behind).UnixNano()))
			at <- clocks{wall: now.wall.Add(took)}
		}
		r := g.Request(t)
		var set wire.ClockRequest
		err := json.Unmarshal(r.Body, &set)
		if err != nil || r.Op != wire.OpClock || time.Duration(set.Forward) != c.behind+c.lead || set.Timezone != zone {
			t.Errorf("after %v: %s %s, %v; want %d and %s", c.passed, r.Op, r.Body, err, c.behind+c.lead, zone)
		}
		g.Done(r)
	}
	cancel()
	<-done
}

// TestClockOfAnEarlierBuild: an agent that does not know the request gets the time.
func TestClockOfAnEarlierBuild(t *testing.T) {
	a, g := agenttest.New(t)
	s := &supervisor{machine: &machine{agent: a}, log: slog.New(slog.DiscardHandler)}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	done := make(chan error, 1)
	go func() {
		_, err := s.alignClock(t.Context(), func() time.Time { return now }, firstLead, "")
		done <- err
	}()
	r := g.Request(t)
	g.Say(fmt.Sprintf(`{"id":%d,"error":"unknown request"}`, r.ID))
	r = g.Request(t)
	var told time.Time
	if err := json.Unmarshal(r.Body, &told); err != nil || r.Op != wire.OpTime || !told.Equal(now) {
		t.Errorf("%s %s, %v", r.Op, r.Body, err)
	}
	g.Done(r)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
