package guest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A guest's clock runs by itself once it is set. It stops while the host sleeps,
// and under software emulation it is as exact as the guest's first estimate of the
// processor's speed. So the host sends the time now and then (wire.OpTime).

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
	if _, err := unix.Adjtimex(&unix.Timex{Modes: singleShot, Offset: wrong.Microseconds()}); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	return nil, nil
}
