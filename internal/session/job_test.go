package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"bawn.dev/bawn/internal/sandbox/store"
)

// clientMode is the name under which this program runs a command in a bench's guest, with
// its own streams, as bawn does. Its arguments are the sandbox's folder and a script.
const clientMode = "client"

func clientMain() int {
	c, err := Dial(context.Background(), store.Dir{Path: os.Args[1]}, "me")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	signals := make(chan os.Signal, 16)
	for _, sig := range Forwarded {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	cmd := Command{
		Argv: []string{"sh", "-c", os.Args[2]}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Signals: signals, JobControl: true,
	}
	if term.IsTerminal(0) && term.IsTerminal(1) {
		cmd.Terminal, cmd.Stderr = &Terminal{In: os.Stdin, Out: os.Stdout, Type: "vt100"}, nil
	}
	exit, err := c.Run(context.Background(), cmd)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 125
	}
	return exit.Status
}

// prompt is a person at bash, whose command "client SCRIPT" runs a script in the guest.
type prompt struct {
	t     *testing.T
	keys  *os.File
	bash  *exec.Cmd
	shown chan []byte
	seen  []byte // what was shown and not yet expected
}

func newPrompt(t *testing.T, b *bench) *prompt {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash")
	}
	self, err := os.Executable()
	must(t, err)
	bin := t.TempDir()
	must(t, os.Symlink(self, filepath.Join(bin, clientMode)))
	c := exec.Command("bash", "--norc", "--noprofile", "-i")
	c.Dir = b.home
	c.Env = append(os.Environ(), "PS1=", "PS2=", "INPUTRC=/dev/null", "HISTFILE=", "D="+b.dir.Path, "PATH="+bin+":"+os.Getenv("PATH"))
	blocking, err := pty.Start(c)
	must(t, err)
	fd, err := unix.FcntlInt(blocking.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	must(t, errors.Join(err, blocking.Close(), syscall.SetNonblock(fd, true)))
	master := os.NewFile(uintptr(fd), "terminal") // whose Close ends a read
	p := &prompt{t: t, keys: master, bash: c, shown: make(chan []byte, 1000)}
	go func() {
		defer close(p.shown)
		for {
			buf := make([]byte, 4096)
			n, err := master.Read(buf)
			if n > 0 {
				p.shown <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { p.close(); _ = c.Process.Kill(); _ = c.Wait() })
	p.typed("bind 'set enable-bracketed-paste off'; c() { client \"$D\" \"$@\"; }; echo up''-up")
	p.expect("up-up")
	return p
}

// close ends the terminal.
func (p *prompt) close() { p.keys.Close() }

func (p *prompt) press(keys string) {
	p.t.Helper()
	_, err := io.WriteString(p.keys, keys)
	must(p.t, err)
}

func (p *prompt) typed(line string) { p.t.Helper(); p.press(line + "\n") }

// expect waits until the terminal has shown a text, and returns what was shown before it.
func (p *prompt) expect(text string) string {
	p.t.Helper()
	limit := time.After(time.Minute)
	for {
		if before, after, ok := bytes.Cut(p.seen, []byte(text)); ok {
			p.seen = after
			return string(before)
		}
		select {
		case b, ok := <-p.shown:
			if !ok {
				p.t.Fatalf("the terminal ended without %q: %q", text, p.seen)
			}
			p.seen = append(p.seen, b...)
		case <-limit:
			p.t.Fatalf("no %q in a minute: %q", text, p.seen)
		}
	}
}

// waitRaw waits until the client has set its terminal to raw mode. Keys that come before are read in the
// mode of then: Ctrl-D in canonical mode is kept as a NUL byte, and read as one in raw mode (n_tty).
func (p *prompt) waitRaw() {
	p.t.Helper()
	for {
		mode, err := unix.IoctlGetTermios(int(p.keys.Fd()), unix.TCGETS)
		must(p.t, err)
		if mode.Lflag&unix.ICANON == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// state waits until a process is in a state (proc_pid_stat(5)), or gone where that is "".
func state(t *testing.T, pid int, want string) {
	t.Helper()
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, _ := strings.Cut(string(stat), ") ")
		switch {
		case err != nil || rest == "", rest[0] == 'Z':
			if want == "" {
				return
			}
			t.Fatalf("process %d is gone", pid)
		case want != "" && rest[0] == want[0]:
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// pidIn waits for a number in a file of the guest's home.
func pidIn(t *testing.T, b *bench, name string) int {
	t.Helper()
	for {
		s, _ := os.ReadFile(filepath.Join(b.home, name))
		if n, err := strconv.Atoi(strings.TrimSpace(string(s))); err == nil && bytes.HasSuffix(s, []byte("\n")) {
			return n
		}
		time.Sleep(time.Millisecond)
	}
}

// TestJobControl: to bash, a command in the guest is as one of its own.
func TestJobControl(t *testing.T) {
	b := newBench(t)
	for name, run := range map[string]func(t *testing.T, p *prompt){
		"in the background": func(t *testing.T, p *prompt) {
			p.typed("client $D 'echo ran''-in guest' & wait; echo wait''ed $?")
			if s := p.expect("waited 0"); !strings.Contains(s, "ran-in guest") || strings.Contains(s, "Stopped") {
				t.Errorf("%q", s)
			}
		},
		"timeout in a script": func(t *testing.T, p *prompt) {
			p.typed(`bash -c "timeout 30 client $D true; echo in'' \$?"`)
			p.expect("in 0")
		},
		"timeout ends it": func(t *testing.T, p *prompt) {
			p.typed(`bash -c "timeout 1 client $D 'kill -STOP \$\$'; echo in'' \$?"`)
			p.expect("in 124")
		},
		"nohup": func(t *testing.T, p *prompt) {
			p.typed("nohup client $D 'echo ran; cat' >out 2>&1 & wait; grep -c ran out; echo wait''ed")
			p.expect("1\r\nwaited")
		},
		"stops itself": func(t *testing.T, p *prompt) {
			p.typed("client $D 'kill -STOP $$; echo ba''ck; exit 3'")
			p.expect("Stopped")
			p.typed("stty -a | tr ' ' '\\n' | grep -x -e icanon -e -icanon; echo mo''des")
			p.expect("\r\nicanon\r\nmodes")
			p.typed("fg; echo sta''tus $?")
			p.expect("back")
			p.expect("status 3")
		},
		"stops its group from raw mode": func(t *testing.T, p *prompt) {
			p.typed("client $D 'stty raw -echo; kill -TSTP 0; stty sane; echo ba''ck'")
			p.expect("Stopped")
			p.typed("fg; echo sta''tus $?")
			p.expect("back")
			p.expect("status 0")
		},
		"Ctrl-Z": func(t *testing.T, p *prompt) {
			p.typed("client $D 'echo rea''dy; exec cat'")
			p.expect("ready")
			p.press("\x1a")
			p.expect("Stopped")
			p.typed("fg; echo sta''tus $?")
			p.expect("exec cat'\r\n")
			p.waitRaw()
			p.typed("so it is")
			p.expect("so it is") // as it is typed
			p.expect("so it is") // as cat writes it
			p.press("\x04")
			p.expect("status 0")
		},
		"continued in the background": func(t *testing.T, p *prompt) {
			p.typed("client $D 'kill -STOP $$; echo ba''ck'")
			p.expect("Stopped")
			p.typed("bg; wait; echo wait''ed")
			if s := p.expect("waited"); !strings.Contains(s, "back") {
				t.Errorf("%q", s)
			}
		},
		"brought to the foreground": func(t *testing.T, p *prompt) {
			p.typed("client $D 'echo $$ >pid; read x; echo got''-$x' &")
			pidIn(t, b, "pid")
			p.typed("fg")
			p.expect("client $D 'echo $$ >pid")
			p.expect("client $D 'echo $$ >pid")
			p.typed("line")
			p.expect("got-line")
		},
		"ended while it is stopped": func(t *testing.T, p *prompt) {
			p.typed(`client $D 'trap "echo by TERM; exit" TERM; echo $$ >stopped; kill -STOP $$; echo "not ended"'`)
			p.expect("Stopped")
			pid := pidIn(t, b, "stopped")
			state(t, pid, "T")
			p.typed("kill %1")
			p.expect("\nby TERM")
			state(t, pid, "")
		},
		"the terminal closes while it is stopped": func(t *testing.T, p *prompt) {
			p.typed("client $D 'echo $$ >closed; kill -STOP $$'")
			p.expect("Stopped")
			pid := pidIn(t, b, "closed")
			p.close()
			state(t, pid, "")
		},
		"with pipes": func(t *testing.T, p *prompt) {
			p.typed("client $D 'kill -STOP $$; echo ba''ck' </dev/null >out2")
			p.expect("Stopped")
			p.typed("fg; cat out2; echo e''nd")
			p.expect("back\r\nend")
		},
		"Ctrl-Z with pipes": func(t *testing.T, p *prompt) {
			p.typed("client $D 'echo $$ >piped; echo rea''dy; exec sleep 1000' </dev/null | cat")
			p.expect("ready")
			pid := pidIn(t, b, "piped")
			p.press("\x1a")
			p.expect("Stopped")
			state(t, pid, "T")
			p.typed("kill %1; wait; echo wait''ed")
			p.expect("waited")
			state(t, pid, "")
		},
	} {
		t.Run(name, func(t *testing.T) { run(t, newPrompt(t, b)) })
	}
}

// TestStopIsTold: without a terminal, too, the guest reports that a command has stopped.
func TestStopIsTold(t *testing.T) {
	b := newBench(t)
	s, err := b.dial().openRemote()
	must(t, err)
	defer s.Close()
	must(t, s.start(Command{Argv: []string{"sh", "-c", "kill -STOP $$; exit 4"}, JobControl: true}, ""))
	if name := <-s.stops; name != "STOP" {
		t.Errorf("stopped by %s", name)
	}
	s.signal(syscall.SIGCONT)
	exit, err := s.wait(func(<-chan struct{}) {})
	if err != nil || exit.Status != 4 {
		t.Errorf("got %+v, %v", exit, err)
	}
}
