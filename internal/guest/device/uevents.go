// Package device waits for the devices that the host plugs (disks, shares, serial ports)
// and finds them by the names that the host gave them.
package device

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Events wakes who waits for a device, when the kernel announces one.
type Events struct {
	fd int
}

// Listen subscribes to the kernel's announcements.
func Listen() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevents: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("uevents: %w", err)
	}
	return &Events{fd}, nil
}

const (
	forever = time.Duration(1<<63 - 1)
	// recheck is how often to look even though nothing was announced: an
	// announcement is sent before some attributes can be read.
	recheck = 100 * time.Millisecond
)

var errNoDevice = errors.New("no such device")

// WaitFor returns when ready does, or errNoDevice after the limit. What was
// announced before the call does not get lost: ready is asked first.
func (u *Events) WaitFor(limit time.Duration, ready func() bool) error {
	start := time.Now()
	buf := make([]byte, 4096)
	for {
		// Forget what was announced so far, then look, then wait for more.
		for {
			if _, _, err := unix.Recvfrom(u.fd, buf, 0); errors.Is(err, unix.EAGAIN) {
				break
			}
		}
		if ready() {
			return nil
		}
		if time.Since(start) > limit {
			return errNoDevice
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(u.fd), Events: unix.POLLIN}}, int(recheck.Milliseconds()))
	}
}
