package supervisor

import (
	"context"
	"math"
	"time"

	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/wire"
)

// The guest's clock must not be behind the host's: files that the host writes into a share
// would be of the future there, and make(1) says "Clock skew detected". So the guest's clock
// is set ahead, by as much as the answer to the question for its time took (alignClock), and
// by what it is expected to lose until it is set the next time (nextLead).

const (
	// clockPoll is the interval of checks whether the host has slept or its clock was
	// set.
	clockPoll = 5 * time.Second
	// clockJump is the smallest change after which the guest's clock is set at once.
	clockJump = 500 * time.Millisecond
	// clockTell is how often a guest's clock is set in any case. Under software emulation
	// it was seen to be wrong by 400 parts in a million, 24 ms in this time.
	clockTell = time.Minute
	// maxLead bounds how far ahead of the host a guest's clock is set.
	maxLead = 100 * time.Millisecond
	// firstLead is for a guest whose clock was not observed yet.
	firstLead = 25 * time.Millisecond
	// clockTries is how often the guest's time is asked for; the fastest answer counts.
	clockTries = 3
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

// keepClock sets the guest's clock at the first tick, when the host's clock has jumped or its time zone
// has changed since it was last set, and after each clockTell. It checks at each tick.
func (s *supervisor) keepClock(ctx context.Context, look func() clocks, ticks <-chan time.Time) {
	told, lead, zone := look(), firstLead, ""
	for first := true; ; first = false {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		nowZone, now := vm.HostTimezone(), look()
		jumped, passed := now.jumped(told), now.ran-told.ran
		if !first && !jumped && nowZone == zone && passed < clockTell {
			continue
		}
		zone = nowZone
		if jumped {
			s.log.Info("the host slept, or its clock was set: setting the guest's clock")
		}
		behind, err := s.alignClock(ctx, func() time.Time { return look().wall }, lead, zone)
		switch {
		case err != nil && ctx.Err() == nil:
			s.log.Warn("cannot set the guest's clock", "error", err)
		case err == nil && !jumped && passed >= clockTell:
			lead = nextLead(behind, lead, passed)
		}
		told = now
	}
}

// nextLead returns how far ahead to set a guest's clock that was lead ahead and is now behind,
// after that time has passed: as far as it loses in clockTell.
func nextLead(behind, lead, passed time.Duration) time.Duration {
	lost := float64(behind+lead) / float64(passed) * float64(clockTell)
	return min(max(time.Duration(lost), 0), maxLead)
}

// clockLimit is how long a guest may take to set its clock. One that is slower gets the
// time again later.
const clockLimit = time.Minute

// alignClock sets the guest's time zone, and its clock ahead of the host's by lead and by the time that its
// answer took, and returns how far it was behind. The answer is the guest's time somewhere
// between the question and the reply; the reply's time is assumed, at which the guest is the
// furthest behind.
func (s *supervisor) alignClock(ctx context.Context, now func() time.Time, lead time.Duration, zone string) (behind time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, clockLimit)
	defer cancel()
	fastest := time.Duration(math.MaxInt64)
	for range clockTries {
		var r wire.ClockReply
		asked := now()
		if err := s.machine.agent.Call(ctx, wire.OpClock, wire.ClockRequest{}, &r); err != nil {
			if ctx.Err() != nil {
				return 0, err
			}
			return 0, s.machine.agent.Call(ctx, wire.OpTime, now(), nil) // an agent of an earlier build
		}
		answered := now()
		if took := answered.Sub(asked); took < fastest {
			fastest, behind = took, answered.Sub(time.Unix(0, r.Now))
		}
	}
	return behind, s.machine.agent.Call(ctx, wire.OpClock, wire.ClockRequest{Forward: int64(behind + lead), Timezone: zone}, nil)
}

// startClockLimit is how long a guest may take to set its clock while a person waits for it.
// It is a variable for tests.
var startClockLimit = 5 * time.Second

// startClock sets the clock of a guest that has just started or was resumed, before the
// first command runs. A failure is logged: watchClock tries again.
func (s *supervisor) startClock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, startClockLimit)
	defer cancel()
	now := func() time.Time { return time.Now().Round(0) }
	if _, err := s.alignClock(ctx, now, firstLead, vm.HostTimezone()); err != nil && !s.life.ended() {
		s.log.Warn("cannot set the guest's clock", "error", err)
	}
}
