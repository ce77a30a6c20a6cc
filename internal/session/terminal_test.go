package session

import (
	"bufio"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// person is someone at a terminal.
type person struct {
	keys *os.File // what is typed
	tty  *os.File // the program's end
}

func newPerson(t *testing.T) *person {
	t.Helper()
	master, tty, err := pty.Open()
	must(t, err)
	t.Cleanup(func() { master.Close(); tty.Close() })
	must(t, pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 80}))
	return &person{master, tty}
}

// command runs a script at the person's terminal.
func (p *person) command(script string) Command {
	cmd, _, _ := sh(script)
	cmd.Stdin, cmd.Terminal = p.tty, &Terminal{In: p.tty, Out: p.tty, Type: "vt100"}
	return cmd
}

// raw reports whether the terminal passes keys on without handling them.
func (p *person) raw(t *testing.T) bool {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	must(t, err)
	return m.Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) == 0
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	must(t, err)
	return strings.TrimRight(s, "\r\n")
}

func TestTerminal(t *testing.T) {
	b, p := newBench(t), newPerson(t)
	r := start(t, b.dial(), t.Context(), p.command(`stty -echo; trap 'stty size' WINCH; echo $TERM; stty size; until read x; do :; done; echo $x; exit 5`))
	if got := r.first + " " + line(t, r.out); got != "vt100 24 80" {
		t.Errorf("got %q", got)
	}
	if !p.raw(t) {
		t.Error("the person's terminal is not in raw mode")
	}
	must(t, pty.Setsize(p.tty, &pty.Winsize{Rows: 50, Cols: 132}))
	must(t, syscall.Kill(os.Getpid(), syscall.SIGWINCH)) // as the kernel sends it to programs of the terminal
	if got := line(t, r.out); got != "50 132" {
		t.Errorf("the size is %q", got)
	}
	_, err := io.WriteString(p.keys, "typed\r")
	must(t, err)
	if got := r.wait(t); got != "typed\r\n" {
		t.Errorf("typed %q", got)
	}
	if r.err != nil || r.exit.Status != 5 {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
	if p.raw(t) {
		t.Error("the person's terminal is still in raw mode")
	}
}

// TestInterruptKey: the key goes to the guest, whose terminal makes a signal of it.
func TestInterruptKey(t *testing.T) {
	b, p := newBench(t), newPerson(t)
	r := start(t, b.dial(), t.Context(), p.command("echo ready; exec sleep 1000"))
	_, err := p.keys.Write([]byte{3})
	must(t, err)
	r.wait(t)
	if r.err != nil || r.exit.Status != 128+2 {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
}

func TestWatchInterrupt(t *testing.T) {
	p := newPerson(t)
	pressed := 0
	term := &Terminal{In: p.tty}
	read := func(keys string) string {
		b, err := io.ReadAll(term.watchInterrupt(strings.NewReader(keys), func() { pressed++ }))
		must(t, err)
		return string(b)
	}
	if got := read("abc"); got != "abc" || pressed != 0 {
		t.Errorf("%q, %d times", got, pressed)
	}
	if got := read("a\x03c"); got != "a\x03c" || pressed != 1 {
		t.Errorf("%q, %d times", got, pressed)
	}
	m, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	must(t, err)
	m.Cc[unix.VINTR] = 0 // off
	must(t, unix.IoctlSetTermios(int(p.tty.Fd()), unix.TCSETS, m))
	if got := read("\x03\x00"); got != "\x03\x00" || pressed != 1 {
		t.Errorf("with the key off: %q, %d times", got, pressed)
	}
}

func TestModes(t *testing.T) {
	p := newPerson(t)
	tio, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	must(t, err)
	tio.Cc[unix.VERASE], tio.Cc[unix.VSUSP] = 8, 0
	tio.Iflag |= unix.IUTF8
	tio.Iflag &^= unix.IXON
	must(t, unix.IoctlSetTermios(int(p.tty.Fd()), unix.TCSETS, tio))
	m := modes(p.tty)
	for op, want := range map[uint8]uint32{ssh.VINTR: 3, ssh.VERASE: 8, ssh.VSUSP: 255, ssh.IUTF8: 1, ssh.IXON: 0} {
		if got, ok := m[op]; !ok || got != want {
			t.Errorf("opcode %d: %d, %v; want %d", op, got, ok, want)
		}
	}
	null, err := os.Open(os.DevNull)
	must(t, err)
	defer null.Close()
	if m := modes(null); len(m) != 0 {
		t.Errorf("of no terminal: %v", m)
	}
}

// TestNoTerminal: what is no terminal cannot be attached.
func TestNoTerminal(t *testing.T) {
	b := newBench(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	must(t, err)
	defer null.Close()
	cmd, _, _ := sh("true")
	cmd.Terminal = &Terminal{In: null, Out: null}
	if term.IsTerminal(int(null.Fd())) {
		t.Skip("it is one here")
	}
	if exit, err := b.dial().Run(t.Context(), cmd); err == nil {
		t.Errorf("got %+v", exit)
	}
}
