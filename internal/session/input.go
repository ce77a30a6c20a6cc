package session

import (
	"errors"
	"io"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// Theory of operation. A program takes from its standard input what it reads, and the rest
// belongs to the program that runs next: in "while read f; do bawn run …; done", in a script
// that a shell reads from a pipe. Whether the command in the guest will read cannot be
// known. So its input is shown to the guest before it is taken: bytes are read without
// removing them (pread(2) of a file, tee(2) of a pipe, MSG_PEEK of a socket), the guest
// reports how many of them its processes have read, and only those are removed (input.go of
// package sshd).
//
// A file of up to wire.MaxInputFile bytes is sent before the command starts, which gets a
// file too; the guest reports its position at the end (inputfile.go).
//
// Of a pipe or a socket the next bytes can be shown when the last are removed. From
// wire.InputExact bytes on, they are read ahead, as many as the connection holds.
//
// A terminal's keys cannot be shown before they are taken. They are read only while this
// process is in the terminal's foreground.

// source is a command's standard input. carry is one goroutine's; the others are for the
// one that runs the command.
type source struct {
	file  *os.File
	read  reader
	front *foreground
	f     *forwarder
	keys  bool        // the input is the command's terminal
	fail  func(error) // is called when the input cannot be read; not for terminals, which may go away

	over  chan struct{} // closed when the command has ended
	wake  [2]*os.File   // a pipe whose first end is readable then
	ended chan struct{} // closed when carry has returned
	start int64         // the file's position at first
	taken uint64        // bytes removed from the file
	given uint64        // bytes that the guest was given: it can have read no others
	sent  bool          // the command has its input as a file: there is nothing to carry
}

// reader is how a kind of file is read.
type reader int

const (
	readNothing reader = iota
	readPlain          // terminals, devices
	readFile           // positions can be set
	readPipe
	readSocket
	readDirectory // cannot be read
	readWriteOnly // the same
)

// shown is the number of bytes that are shown to the guest at a time.
const shown = 64 << 10

func newSource(cmd Command, front *foreground, f *forwarder) (*source, error) {
	s := &source{
		file: cmd.Stdin, front: front, f: f, keys: cmd.Terminal != nil,
		over: make(chan struct{}), ended: make(chan struct{}),
	}
	if cmd.Stdin == nil {
		return s, nil
	}
	s.read = readerOf(cmd.Stdin)
	if s.keys {
		s.read = readPlain
	}
	var err error
	if s.read == readFile {
		if s.start, err = cmd.Stdin.Seek(0, io.SeekCurrent); err != nil {
			return nil, err
		}
	}
	s.wake[0], s.wake[1], err = os.Pipe()
	return s, err
}

// readerOf returns how f is to be read. The null device is no input at all.
func readerOf(f *os.File) (r reader) {
	r = readPlain
	_ = control(f, func(fd int) {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) != nil {
			return
		}
		flags, ferr := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
		_, serr := unix.Seek(fd, 0, io.SeekCurrent)
		switch format := st.Mode & unix.S_IFMT; {
		case format == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3): // null(4)
			r = readNothing
		case ferr == nil && flags&unix.O_ACCMODE == unix.O_WRONLY:
			r = readWriteOnly
		case format == unix.S_IFDIR:
			r = readDirectory
		case format == unix.S_IFREG && serr == nil:
			r = readFile
		case format == unix.S_IFIFO:
			r = readPipe
		case format == unix.S_IFSOCK && kind == unix.SOCK_STREAM:
			r = readSocket
		}
	})
	return r
}

// control calls f with the file's descriptor, and does not change its blocking mode, which
// other processes may share.
func control(file *os.File, f func(fd int)) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { f(int(fd)) })
}

// kind returns what the guest is to give the command as standard input.
func (s *source) kind() wire.Input {
	switch s.read {
	case readNothing:
		return wire.InputNone
	case readPlain:
		return wire.InputPipe
	case readDirectory:
		return wire.InputDirectory
	case readWriteOnly:
		return wire.InputWriteOnly
	}
	if s.sent {
		return wire.InputFile
	}
	return wire.InputCounted
}

// carry passes the input on until it ends, or the command has.
func (s *source) carry(to *remote) {
	defer close(s.ended)
	defer func() { _ = to.CloseWrite() }() // fails only when the session is over
	if s.sent {
		return
	}
	switch s.read {
	case readNothing, readDirectory, readWriteOnly:
	case readFile:
		n, _ := io.Copy(to, checked{s, io.NewSectionReader(s.file, s.start, math.MaxInt64-s.start)})
		s.given = uint64(n)
	case readPipe, readSocket:
		if !to.current || s.show(to) {
			_, _ = io.Copy(to, checked{s, ahead{s}})
		}
	case readPlain:
		var keys io.Reader = checked{s, ahead{s}}
		if s.keys {
			keys = s.front.t.watchInterrupt(keys, func() { go s.f.expectAnswer(syscall.SIGINT) })
		}
		_, _ = io.Copy(to, keys)
	}
}

// checked is a reader of the source that has errors end the command.
type checked struct {
	*source
	from io.Reader
}

func (c checked) Read(b []byte) (int, error) {
	n, err := c.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && !c.front.isTerminal(c.file) {
		c.fail(err) // at most once: io.Copy ends here
	}
	return n, err
}

// finish ends carry after the command has ended, and removes what the guest's processes
// have read from the input.
func (s *source) finish(of *remote) {
	s.close()
	<-s.ended
	total := min(of.consumed(), s.given)
	switch {
	case !of.current:
	case s.read == readFile && total > 0:
		_, _ = s.file.Seek(s.start+int64(total), io.SeekStart) // worked for the present position
	case s.read == readPipe, s.read == readSocket:
		s.remove(total)
	}
}

// close tells carry that the command has ended. It may be called more than once.
func (s *source) close() {
	select {
	case <-s.over:
	default:
		close(s.over)
		if s.wake[1] != nil {
			s.wake[1].Close()
		}
	}
}

// show shows the guest the first wire.InputExact bytes of a pipe or a socket, and removes
// those that its processes have read. It reports whether there is more to pass on.
func (s *source) show(to *remote) (more bool) {
	peek, err := newPeeker(s)
	if err != nil {
		return true
	}
	defer peek.close()
	for s.taken < wire.InputExact {
		b, err := peek.next()
		if err != nil {
			return errors.Is(err, errNotShown)
		}
		if len(b) == 0 {
			return false
		}
		n, err := to.Write(b)
		s.given = s.taken + uint64(n)
		if err != nil {
			return false
		}
		for s.taken < s.given && s.taken < wire.InputExact {
			select {
			case c := <-to.reports:
				s.remove(min(c.Bytes, s.given))
				if c.Unread {
					return false
				}
			case <-s.over:
				return false
			}
		}
	}
	s.remove(s.given) // of the rest of these bytes the guest makes no more reports
	return true
}

// remove takes bytes from the input until total were taken. They are there, unless another
// process has taken them: then no others are waited for.
func (s *source) remove(total uint64) {
	buf := make([]byte, shown)
	for s.taken < total {
		n := 0
		_ = control(s.file, func(fd int) {
			there, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
			if err == nil && there > 0 {
				n, _ = unix.Read(fd, buf[:min(uint64(there), total-s.taken, shown)])
			}
		})
		if n <= 0 {
			return
		}
		s.taken += uint64(n)
	}
}

// backgroundPoll is the time between two looks at whether a process that is in its
// terminal's background has come to the foreground: the kernel does not tell.
const backgroundPoll = 250 * time.Millisecond

// wait waits until the input can be read without waiting, at its end too. It reports false
// when the command has ended. A terminal is never readable from its background, where a
// read would stop this process (SIGTTIN).
func (s *source) wait() bool {
	for {
		front := s.front.owns(s.file)
		polled := []unix.PollFd{{Fd: -1, Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
		timeout := -1
		if s.front.isTerminal(s.file) {
			timeout = int(backgroundPoll.Milliseconds())
		}
		_ = control(s.wake[0], func(fd int) { polled[0].Fd = int32(fd) })
		if front {
			_ = control(s.file, func(fd int) { polled[1].Fd = int32(fd) })
		}
		_, err := unix.Poll(polled, timeout)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR), polled[0].Revents != 0:
			return false
		case polled[1].Revents != 0 && s.front.owns(s.file):
			return true
		}
	}
}

// ahead reads from a source without regard to what the guest reads.
type ahead struct{ *source }

func (a ahead) Read(b []byte) (n int, err error) {
	for {
		if !a.wait() {
			return 0, io.EOF
		}
		_ = control(a.file, func(fd int) { n, err = unix.Read(fd, b) })
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case errors.Is(err, unix.EIO) && !a.front.owns(a.file):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			a.taken += uint64(n)
			a.given = a.taken
			return n, nil
		}
	}
}
