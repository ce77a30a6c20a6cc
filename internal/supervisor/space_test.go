package supervisor

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
)

// TestReportSpace: one event when the disk is full, and one when it is not any more.
func TestReportSpace(t *testing.T) {
	s := &supervisor{life: newLifecycle(t.Context())}
	sub := s.life.events.Subscribe(func() control.Status { return control.Status{} })
	ctx, cancel := context.WithCancel(t.Context())
	ticks := make(chan time.Time)
	starved := make(chan bool)
	var task sync.WaitGroup
	task.Go(func() { s.reportSpace(ctx, func() bool { return <-starved }, ticks) })
	for _, now := range []bool{false, true, true, false, false, true} {
		ticks <- time.Time{}
		starved <- now
	}
	cancel()
	task.Wait()
	s.life.events.Close()
	var got []bool
	for e := range sub.Events() {
		if e.Kind == control.KindSpace {
			got = append(got, e.Starved)
		}
	}
	if !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("%v", got)
	}
}
