package supervisor

import (
	"context"
	"time"

	"bawn.dev/bawn/internal/wire"
)

const (
	// clockPoll is the interval of checks whether the host has slept or its clock was
	// set.
	clockPoll = 5 * time.Second
	// clockJump is the smallest change after which the guest's clock is set at once.
	clockJump = 500 * time.Millisecond
	// clockTell is how often a guest's clock is set in any case. Under software emulation
	// it was seen to be wrong by 400 parts in a million, a tenth of a second in this time.
	clockTell = 5 * time.Minute
)

// clocks is a reading of the host's two clocks: the time, and how long the host has run. The
// latter stops while the host sleeps (clock_gettime(2), CLOCK_MONOTONIC).
type clocks struct {
	wall time.Time // without a monotonic reading
	ran  time.Duration
}

// jumped reports whether the time changed by something else than its passing since an
// earlier reading.
func (c clocks) jumped(since clocks) bool {
	return (c.wall.Sub(since.wall) - (c.ran - since.ran)).Abs() >= clockJump
}

// watchClock keeps the guest's clock at the host's time until ctx ends.
func (s *supervisor) watchClock(ctx context.Context) {
	began := time.Now()
	look := func() clocks {
		now := time.Now()
		return clocks{now.Round(0), now.Sub(began)}
	}
	ticker := time.NewTicker(clockPoll)
	defer ticker.Stop()
	s.keepClock(ctx, look, ticker.C)
}

// keepClock sets the guest's clock when the host's clock has jumped since it was last set,
// and after each clockTell. It checks at each tick.
func (s *supervisor) keepClock(ctx context.Context, look func() clocks, ticks <-chan time.Time) {
	told := look()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		now := look()
		jumped := now.jumped(told)
		if !jumped && now.ran-told.ran < clockTell {
			continue
		}
		if jumped {
			s.log.Info("the host slept, or its clock was set: setting the guest's clock")
		}
		if err := s.setClock(ctx, look().wall); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot set the guest's clock", "error", err)
		}
		told = now
	}
}

// clockLimit is how long a guest may take to set its clock. One that is slower gets the
// time again later.
const clockLimit = time.Minute

func (s *supervisor) setClock(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	return s.machine.agent.Call(ctx, wire.OpTime, now, nil)
}
