package session

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
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

// ptyRequest is the payload of pty-req (RFC 4254, section 6.2). Sizes are in characters and
// in pixels.
type ptyRequest struct {
	Type                         string
	Columns, Rows, Width, Height uint32
	Modes                        string
}

// request returns the request for a terminal of the same size, type and modes.
func (t *Terminal) request() ptyRequest {
	size, err := t.size()
	if err != nil {
		size = windowSize{Columns: 80, Rows: 24} // a terminal that has no size: VT100's
	}
	var encoded []byte
	for op, value := range modes(t.In) {
		encoded = binary.BigEndian.AppendUint32(append(encoded, op), value)
	}
	return ptyRequest{t.Type, size.Columns, size.Rows, size.Width, size.Height, string(append(encoded, 0))}
}

// windowSize is the payload of window-change (RFC 4254, section 6.7): the size of a terminal in characters
// and in pixels, which programs that draw images need. A terminal that does not tell its pixels has 0.
type windowSize struct{ Columns, Rows, Width, Height uint32 }

// size returns the size that the terminal has now.
func (t *Terminal) size() (windowSize, error) {
	ws, err := unix.IoctlGetWinsize(int(t.Out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return windowSize{}, err
	}
	return windowSize{uint32(ws.Col), uint32(ws.Row), uint32(ws.Xpixel), uint32(ws.Ypixel)}, nil
}
