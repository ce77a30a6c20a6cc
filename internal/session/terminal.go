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

// Terminal is the person's terminal.
type Terminal struct {
	In, Out *os.File
	Type    string // $TERM
}

// modes are those settings of the person's terminal that a program can be
// surprised by: which keys mean what, and that characters may have many bytes.
func modes(f *os.File) ssh.TerminalModes {
	m := ssh.TerminalModes{}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return m // the guest's own
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

// heed calls interrupted whenever the person presses the key that interrupts. The
// key goes to the guest as every other: what it means is decided there.
func (t *Terminal) heed(in io.Reader, interrupted func()) io.Reader {
	m, err := unix.IoctlGetTermios(int(t.In.Fd()), unix.TCGETS)
	if err != nil || m.Cc[unix.VINTR] == 0 { // 0 is off (termios(3), _POSIX_VDISABLE)
		return in
	}
	return keys{in, m.Cc[unix.VINTR], interrupted}
}

// keys is what a person types.
type keys struct {
	from    io.Reader
	key     byte
	pressed func()
}

func (k keys) Read(b []byte) (int, error) {
	n, err := k.from.Read(b)
	if bytes.IndexByte(b[:n], k.key) >= 0 {
		k.pressed()
	}
	return n, err
}

// attach asks for a terminal in the guest of the same size and type, sets the
// person's to raw mode and keeps the sizes equal. What it returns undoes that.
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
	go func() {
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
	}()
	return func() {
		signal.Stop(resized)
		close(done)
		_ = term.Restore(int(t.In.Fd()), was)
	}, nil
}
