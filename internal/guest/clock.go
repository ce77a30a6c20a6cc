package guest

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A guest's clock runs by itself from when it was set: it stands still while the
// host sleeps, and under software emulation it is as exact as its first guess of
// the processor's speed. So the host tells the time now and then.

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

// slewLimit is the largest error that is mended without a step, by a clock that
// runs 0.5 ms in a second faster or slower (adjtime(3)).
const slewLimit = 250 * time.Millisecond

// singleShot makes adjtimex(2) what adjtime(3) is (ADJ_OFFSET_SINGLESHOT).
const singleShot = 0x8001

// keepTime mends the clock, which was t when the host looked.
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
