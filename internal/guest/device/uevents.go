// Package device waits for the devices that the host plugs (disks, shares, serial ports)
// and finds them by the names that the host gave them.
package device

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Events receives the kernel's announcements of devices (netlink(7), NETLINK_KOBJECT_UEVENT).
// One WaitFor at a time sees all of them; others look again every recheck.
type Events struct {
	fd int
}

// Listen subscribes to announcements.
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
	// recheck is how often to look without an announcement: some attributes can be read
	// only a little later.
	recheck = 100 * time.Millisecond
)

var errNoDevice = errors.New("no such device")

// WaitFor calls ready, again after each announcement, until it returns true. After the
// limit it returns an error. A device that appeared before the call is not missed.
func (u *Events) WaitFor(limit time.Duration, ready func() bool) error {
	start := time.Now()
	buf := make([]byte, 4096)
	for {
		// Discard the announcements so far, then look, then wait for more.
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
