package relay

import (
	"io"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A connection counts as broken when brokenLooks looks in a row find its peer gone and the same
// number of bytes unread. While that number changes, the relay still passes on what the peer sent.
const brokenLooks = 12

// brokenPoll is the time between two looks.
var brokenPoll = 5 * time.Second

// watchBroken returns a channel that is closed when the peer of a connection has gone, in both
// directions: it was closed or reset. A relay that waits for its other side does not read the
// connection, and would not learn of it. The end of what the peer sends alone is not meant
// (poll(2), POLLRDHUP). If c is not a socket, the channel is never closed. The caller calls stop.
func watchBroken(c io.Closer) (broken <-chan struct{}, stop func()) {
	never := make(chan struct{})
	sc, ok := c.(syscall.Conn)
	if !ok {
		return never, func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return never, func() {}
	}
	found, done := make(chan struct{}), make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		ticker := time.NewTicker(brokenPoll)
		defer ticker.Stop()
		for looks, was := 0, -1; looks < brokenLooks; looks++ {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			gone, unread, open := look(raw)
			if !open {
				return
			}
			if !gone || unread != was {
				looks, was = 0, unread
			}
		}
		close(found)
	})
	return found, sync.OnceFunc(func() { close(done); watch.Wait() })
}

// look reports whether the peer of a socket has gone, and how many bytes of it are unread; open
// is false if the socket was closed here.
func look(raw syscall.RawConn) (gone bool, unread int, open bool) {
	err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always reported
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		unread, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	})
	return gone, unread, err == nil
}
