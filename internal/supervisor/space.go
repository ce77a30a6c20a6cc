package supervisor

import (
	"context"
	"time"

	"bawn.dev/bawn/internal/control"
)

// spaceTick is how often it is looked at whether the machine stands still for want of disk
// space. QEMU tells when it stops the guest, and the guest is let go on now and then; that
// it was not stopped again for a while is the sign that there is room.
const spaceTick = time.Second

// watchSpace sends an event when the machine begins to stand still because the host's disk
// is full, and when it goes on, until ctx ends.
func (s *supervisor) watchSpace(ctx context.Context) {
	ticker := time.NewTicker(spaceTick)
	defer ticker.Stop()
	s.reportSpace(ctx, s.machine.Starved, ticker.C)
}

// reportSpace is watchSpace, which looks at each tick.
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
