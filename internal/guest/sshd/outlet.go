package sshd

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// outlet is our end of a pipe that a command writes to. It counts bytes, so that the
// command's own output can be told from what others write after its end.
type outlet struct {
	file *os.File

	mu       sync.Mutex // held while bytes are taken from the pipe
	taken    int64      // bytes read from the pipe
	sent     int64      // bytes passed on
	target   int64      // of sent, when all that the command wrote was passed on
	detached bool       // the rest is dropped
}

// carry copies the pipe to w until all writers have closed it, and closes it. An error of
// w before the command's end (done) closes the pipe as well: a process that goes on
// writing gets SIGPIPE, as nobody reads any more.
func (o *outlet) carry(w io.Writer, done <-chan struct{}) {
	defer o.file.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := o.take(buf)
		if n == 0 || err != nil {
			return
		}
		if o.dropping() {
			continue
		}
		if _, err := w.Write(buf[:n]); err != nil {
			select {
			case <-done:
				o.detach()
			default:
				return
			}
		}
		o.mu.Lock()
		o.sent += int64(n)
		o.mu.Unlock()
	}
}

// take reads from the pipe and waits until there is something; 0 is its end.
func (o *outlet) take(buf []byte) (n int, err error) {
	raw, err := o.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		for {
			if n, err = unix.Read(int(fd), buf); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		o.taken += int64(max(n, 0))
		return !errors.Is(err, unix.EAGAIN)
	})
	return max(n, 0), errors.Join(rerr, err)
}

// mark notes that the command has ended: what is in the pipe now is still sent.
func (o *outlet) mark() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.target = o.taken + int64(unread(o.file))
}

// progress returns how many bytes were sent, and whether all that the command wrote were.
func (o *outlet) progress() (sent int64, all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent, o.sent >= o.target
}

func (o *outlet) detach() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.detached = true
}

func (o *outlet) dropping() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.detached
}

// unread returns the number of bytes in a pipe, whose end may be either; 0 for a file that
// is closed.
func unread(pipe *os.File) (n int) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}
