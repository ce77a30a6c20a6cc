package supervisor

import (
	"context"
	"time"

	"bawn.dev/bawn/internal/control"
)

// spaceTick is how often the machine is checked for want of disk space. QEMU reports when it
// pauses the guest for that, and the guest is resumed now and then to try again; there is
// room again when it was not paused for a while.
const spaceTick = time.Second

// watchSpace sends an event when the machine is paused because the host's disk is full, and
// when it runs again, until ctx ends.
func (s *supervisor) watchSpace(ctx context.Context) {
	ticker := time.NewTicker(spaceTick)
	defer ticker.Stop()
	s.reportSpace(ctx, s.machine.Starved, ticker.C)
}

// reportSpace is watchSpace with a check at each tick.
func (s *supervisor) reportSpace(ctx context.Context, starved func() bool, ticks <-chan time.Time) {
	last := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		if now := starved(); now != last {
			last = now
			s.life.events.Send(control.Event{Kind: control.KindSpace, Starved: now})
		}
	}
}
