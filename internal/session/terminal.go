package session

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Terminal is the user's terminal. In and Out may be the same file; both stay open.
type Terminal struct {
	In, Out *os.File
	Type    string // $TERM
}

// modes returns the settings of a terminal that the guest's terminal must have too: which
// keys mean what, and whether characters may have several bytes (UTF-8). Of a file that
// is no terminal it returns none.
func modes(f *os.File) ssh.TerminalModes {
	m := ssh.TerminalModes{}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return m
	}
	for op, i := range map[uint8]int{
		ssh.VINTR: unix.VINTR, ssh.VQUIT: unix.VQUIT, ssh.VERASE: unix.VERASE, ssh.VKILL: unix.VKILL, ssh.VEOF: unix.VEOF,
		ssh.VEOL: unix.VEOL, ssh.VEOL2: unix.VEOL2, ssh.VSTART: unix.VSTART, ssh.VSTOP: unix.VSTOP, ssh.VSUSP: unix.VSUSP,
		ssh.VREPRINT: unix.VREPRINT, ssh.VWERASE: unix.VWERASE, ssh.VLNEXT: unix.VLNEXT,
	} {
		m[op] = uint32(t.Cc[i])
		if t.Cc[i] == 0 {
			m[op] = 255 // off (RFC 4254 section 8)
		}
	}
	for op, bit := range map[uint8]uint32{ssh.IXON: unix.IXON, ssh.IXANY: unix.IXANY, ssh.IUTF8: unix.IUTF8} {
		m[op] = 0
		if t.Iflag&bit != 0 {
			m[op] = 1
		}
	}
	return m
}

// watchInterrupt returns in, and calls interrupted whenever the user presses the
// terminal's interrupt key. The key goes to the guest like every other, whose terminal
// decides what it means.
func (t *Terminal) watchInterrupt(in io.Reader, interrupted func()) io.Reader {
	m, err := unix.IoctlGetTermios(int(t.In.Fd()), unix.TCGETS)
	if err != nil || m.Cc[unix.VINTR] == 0 { // 0 is off (termios(3), _POSIX_VDISABLE)
		return in
	}
	return interruptReader{in, m.Cc[unix.VINTR], interrupted}
}

// interruptReader calls pressed for each read that contains the key.
type interruptReader struct {
	from    io.Reader
	key     byte
	pressed func()
}

func (k interruptReader) Read(b []byte) (int, error) {
	n, err := k.from.Read(b)
	if bytes.IndexByte(b[:n], k.key) >= 0 {
		k.pressed()
	}
	return n, err
}

// attach gives the session a terminal of the same size and type in the guest, sets the
// person's terminal to raw mode, and passes changes of its size on until restore is
// called or ctx ends. restore also gives the user's terminal its mode back.
func (t *Terminal) attach(ctx context.Context, s *ssh.Session) (restore func(), err error) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH) // before the size is read: no change is missed
	w, h, err := term.GetSize(int(t.Out.Fd()))
	if err != nil {
		w, h = 80, 24 // a terminal that has no size: VT100's
	}
	if err := s.RequestPty(t.Type, h, w, modes(t.In)); err != nil {
		signal.Stop(resized)
		return nil, fmt.Errorf("guest: terminal: %w", err)
	}
	was, err := term.MakeRaw(int(t.In.Fd()))
	if err != nil {
		signal.Stop(resized)
		return nil, fmt.Errorf("terminal: %w", err)
	}
	done := make(chan struct{})
	go t.passSize(ctx, s, resized, done)
	return func() {
		signal.Stop(resized)
		close(done)
		_ = term.Restore(int(t.In.Fd()), was)
	}, nil
}

// passSize passes the terminal's size on to the session at each signal, until done is
// closed or ctx ends.
func (t *Terminal) passSize(ctx context.Context, s *ssh.Session, resized <-chan os.Signal, done <-chan struct{}) {
	for {
		select {
		case <-resized:
			if w, h, err := term.GetSize(int(t.Out.Fd())); err == nil {
				_ = s.WindowChange(h, w)
			}
		case <-done:
			return
		case <-ctx.Done():
			return
		}
	}
}
