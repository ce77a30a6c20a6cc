package sshd

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// input is our end of the pipe that is a command's standard input.
//
// Theory of operation. A program that reads from a pipe or a file of the host takes no
// more than it reads; what is left belongs to the program that runs next, such as the shell
// whose script is on the same standard input. So the host shows the guest its input without
// taking it, the guest counts what its processes read, and the host then takes as much.
//
// The kernel tells what is left in a pipe (FIONREAD), but not when somebody has read. Up to
// wire.InputExact bytes, the pipe therefore has room for one page only: such a pipe is
// writable exactly when it is empty (pipe(7)), which poll reports. Each time that it has
// become empty, the host is told. A command that has read that many bytes reads all, in
// practice: the pipe gets its usual size, and what was read is told at the end.
type input struct {
	file    *os.File
	counted bool

	mu      sync.Mutex // held while bytes are written
	written int64      // to the pipe
	read    int64      // of them when the pipe was closed
	closed  bool
}

// Sizes of the pipe in bytes (F_SETPIPE_SZ).
const (
	exactSize = 4096
	usualSize = 64 << 10
)

// drainPoll is the time between two looks at a pipe of the usual size, whose end is to be
// passed on when all was read.
const drainPoll = 5 * time.Millisecond

// carry copies from the channel to the pipe until the channel's end, or until no process
// has the input open any more, and reports what was read where the host asked for that.
func (in *input) carry(channel io.Reader, report func(wire.Consumed)) {
	if !in.counted {
		_, _ = io.Copy(in.file, channel)
		in.file.Close()
		return
	}
	in.resize(exactSize)
	buf := make([]byte, 32<<10)
	for exact := true; ; {
		n, err := channel.Read(buf)
		if n > 0 && (!in.write(buf[:n]) || exact && !in.drained()) {
			report(wire.Consumed{Bytes: uint64(in.consumed()), Unread: true})
			_, _ = io.Copy(io.Discard, channel)
			return
		}
		if exact {
			report(wire.Consumed{Bytes: uint64(in.consumed())})
		}
		if err != nil {
			break
		}
		if exact && in.consumed() >= wire.InputExact {
			exact = false
			in.resize(usualSize)
		}
	}
	for unread(in.file) > 0 && !in.abandoned() {
		time.Sleep(drainPoll)
	}
	in.close()
}

func (in *input) resize(size int) {
	_ = withFD(in.file, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, size)
		return err
	})
}

// write writes b to the pipe. It reports false if no process has the input open any more.
func (in *input) write(b []byte) bool {
	raw, err := in.file.SyscallConn()
	if err != nil {
		return false
	}
	var werr error
	err = raw.Write(func(fd uintptr) bool {
		in.mu.Lock()
		defer in.mu.Unlock()
		for len(b) > 0 {
			n, err := unix.Write(int(fd), b)
			if n > 0 {
				in.written += int64(n)
				b = b[n:]
			}
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				werr = err
				return true
			}
		}
		return true
	})
	return err == nil && werr == nil
}

// drained waits until the pipe is empty. It reports false if no process has the input open
// any more.
func (in *input) drained() bool {
	raw, err := in.file.SyscallConn()
	if err != nil {
		return false
	}
	empty := false
	err = raw.Write(func(fd uintptr) bool {
		n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		empty = err == nil && n == 0
		return empty || err != nil || noReader(int(fd))
	})
	return err == nil && empty
}

// abandoned reports whether no process has the input open any more.
func (in *input) abandoned() bool {
	gone := true
	if err := withFD(in.file, func(fd int) error { gone = noReader(fd); return nil }); err != nil {
		return true
	}
	return gone
}

// noReader reports whether the read end of a pipe is closed: the write end then has an
// error (poll(2)).
func noReader(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	_, err := unix.Poll(p, 0)
	return err == nil && p[0].Revents&unix.POLLERR != 0
}

// consumed returns how many bytes were read from the pipe.
func (in *input) consumed() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return in.read
	}
	return in.written - int64(unread(in.file))
}

// close closes the pipe, of which nothing more is counted.
func (in *input) close() {
	in.mu.Lock()
	in.read, in.closed = in.written-int64(unread(in.file)), true
	in.mu.Unlock()
	in.file.Close()
}
