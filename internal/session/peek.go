package session

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errNotShown means that the input has to be read, since it cannot be looked at.
var errNotShown = errors.New("the input cannot be shown")

// peeker looks at the bytes of a pipe or a socket without taking them.
type peeker struct {
	of   *source
	copy [2]*os.File // a pipe for copies, whose ends are for reading and writing
	buf  []byte
}

func newPeeker(of *source) (*peeker, error) {
	p := &peeker{of: of, buf: make([]byte, shown)}
	if of.read == readSocket {
		return p, nil
	}
	var err error
	p.copy[0], p.copy[1], err = os.Pipe()
	return p, err
}

func (p *peeker) close() {
	for _, f := range p.copy {
		if f != nil {
			f.Close()
		}
	}
}

// next waits for bytes and returns them; none at the input's end, or when the command has
// ended. They are valid until the next call.
func (p *peeker) next() ([]byte, error) {
	look := p.pipe
	if p.of.read == readSocket {
		look = p.socket
	}
	for p.of.wait() {
		n, err := 0, error(nil)
		_ = control(p.of.file, func(fd int) { n, err = look(fd) })
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR): // another process has taken them
		case err != nil:
			return nil, errNotShown
		default:
			return p.buf[:n], nil
		}
	}
	return nil, nil
}

func (p *peeker) socket(fd int) (int, error) {
	n, _, err := unix.Recvfrom(fd, p.buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n, err
}

func (p *peeker) pipe(fd int) (n int, err error) {
	_ = control(p.copy[1], func(to int) {
		var copied int64
		copied, err = unix.Tee(fd, to, len(p.buf), unix.SPLICE_F_NONBLOCK)
		n = int(copied)
	})
	if err != nil || n == 0 {
		return 0, err
	}
	read := 0
	for read < n {
		m, err := p.copy[0].Read(p.buf[read:n])
		if err != nil {
			return 0, err
		}
		read += m
	}
	return n, nil
}
