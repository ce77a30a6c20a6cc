package guest

import (
	"errors"
	"fmt"
	"log"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// A guest's clock runs by itself once it is set. It stops while the host sleeps,
// and under software emulation it is as exact as the guest's first estimate of the
// processor's speed. So the host measures now and then how wrong it is (wire.OpClock), or
// an earlier build's sends the time (wire.OpTime).

// setClock sets the clock in one step.
func setClock(t time.Time) error {
	if t.IsZero() {
		return errors.New("clock: no time given")
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	return nil
}

// slewLimit is the largest error that is corrected without a step: the clock then runs
// 0.5 ms in a second faster or slower until it is right (adjtime(3)).
const slewLimit = 250 * time.Millisecond

// singleShot makes adjtimex(2) work like adjtime(3) (ADJ_OFFSET_SINGLESHOT).
const singleShot = 0x8001

// keepTime corrects the clock; t was the time when the host sent it.
func keepTime(t time.Time) (any, error) {
	wrong := time.Until(t)
	if wrong.Abs() > slewLimit {
		return nil, setClock(t)
	}
	return nil, slewClock(wrong)
}

// correctClock corrects the clock by the difference that the host has measured, and returns
// the time. It goes forward in one step: a clock that is behind shows files of the host that
// will be written in the future, which make(1) takes for a mistake. The time zone follows the host's.
func correctClock(r wire.ClockRequest) (any, error) {
	forward := time.Duration(r.Forward)
	switch {
	case forward > 0, forward < -slewLimit:
		if err := moveClock(forward); err != nil {
			return nil, err
		}
	case forward < 0:
		if err := slewClock(forward); err != nil {
			return nil, err
		}
	}
	if err := setTimezone("", r.Timezone); err != nil {
		log.Print(err) // such as on a full disk; the clock is right all the same
	}
	return wire.ClockReply{Now: time.Now().UnixNano()}, nil
}

// moveClock adds to the clock in one step, and ends a correction that is under way.
func moveClock(by time.Duration) error {
	if err := slewClock(0); err != nil {
		return err
	}
	t := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO}
	// Microseconds are nanoseconds here, and never negative (adjtimex(2), ADJ_SETOFFSET).
	t.Time = unix.Timeval{Sec: int64(by / time.Second), Usec: int64(by % time.Second)}
	if t.Time.Usec < 0 {
		t.Time.Sec, t.Time.Usec = t.Time.Sec-1, t.Time.Usec+int64(time.Second)
	}
	if _, err := unix.Adjtimex(&t); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	return nil
}

// slewClock makes the clock run 0.5 ms in a second faster or slower until the difference is
// made up for.
func slewClock(by time.Duration) error {
	if _, err := unix.Adjtimex(&unix.Timex{Modes: singleShot, Offset: by.Microseconds()}); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	return nil
}
