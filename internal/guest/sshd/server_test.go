package sshd

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/wire"
)

// TestMain lets the server under test execute this program as it executes
// itself in the guest.
func TestMain(m *testing.M) {
	// Signals that are ignored here (nohup, a shell's background) would be in
	// the commands too; those with a handler are not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	if filepath.Base(os.Args[0]) == SFTPMode {
		os.Exit(ServeSFTP())
	}
	if filepath.Base(os.Args[0]) == JobMode {
		os.Exit(LeadJob(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// bench is a server as an ordinary process, with one user: this one.
type bench struct {
	t      *testing.T
	server *Server
	user   string
	home   string
	key    ssh.Signer
	host   ssh.PublicKey
}

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	root, home := t.TempDir(), t.TempDir()
	passwd := fmt.Sprintf("me:x:%d:%d::%s:/bin/sh\n", os.Getuid(), os.Getgid(), home)
	must(t, os.Mkdir(root+"/etc", 0o755))
	must(t, os.WriteFile(root+"/etc/passwd", []byte(passwd), 0o644))
	client, _ := newKey(t)
	host, hostPEM := newKey(t)
	ps := process.NewTable(nil)
	ps.OwnOnly = true
	s := New(accounts.NewLogins(root), ps)
	must(t, s.Configure(hostPEM, []string{string(ssh.MarshalAuthorizedKey(client.PublicKey()))}))
	s.logins.Configure(wire.User{Name: "me", Home: home}, []string{"IMAGE=yes"})
	return &bench{t: t, server: s, user: "me", home: home, key: client, host: host.PublicKey()}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a connected pair of sockets.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	conns := make([]net.Conn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conns[i], err = net.FileConn(f)
		f.Close()
		must(t, err)
	}
	t.Cleanup(func() { conns[0].Close(); conns[1].Close() })
	return conns[0], conns[1]
}

func (b *bench) dial(user string, key ssh.Signer) (*ssh.Client, error) {
	return b.dialWith(user, key, nil)
}

// dialWith connects with a file mode creation mask.
func (b *bench) dialWith(user string, key ssh.Signer, umask *uint32) (*ssh.Client, error) {
	ours, theirs := pair(b.t)
	go b.server.Serve(theirs, umask)
	conn, channels, requests, err := ssh.NewClientConn(ours, "", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(b.host),
	})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}

func (b *bench) client() *ssh.Client {
	b.t.Helper()
	c, err := b.dial(b.user, b.key)
	must(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) session() *ssh.Session {
	b.t.Helper()
	s, err := b.client().NewSession()
	must(b.t, err)
	return s
}

// run runs argv exactly and returns what it wrote and how it ended.
func (b *bench) run(r wire.ExecRequest, stdin io.Reader) (stdout, stderr string, err error) {
	b.t.Helper()
	s := b.session()
	var out, errOut bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = stdin, &out, &errOut
	err = s.Run(wire.ExecCommand(r))
	return out.String(), errOut.String(), err
}

func sh(script string) wire.ExecRequest { return wire.ExecRequest{Argv: []string{"sh", "-c", script}} }

func wantStatus(t *testing.T, err error, want int) {
	t.Helper()
	var e *ssh.ExitError
	if !errors.As(err, &e) || e.Signal() != "" || e.ExitStatus() != want {
		t.Errorf("got %v, want status %d", err, want)
	}
}

func wantSignal(t *testing.T, err error, want string) {
	t.Helper()
	var e *ssh.ExitError
	if !errors.As(err, &e) || e.Signal() != want {
		t.Errorf("got %v, want signal %s", err, want)
	}
}

func TestCommandIsExact(t *testing.T) {
	b := newBench(t)
	argv := []string{"printf", "[%s]", "a b", "", "$HOME", "\xff", "'\"\n"}
	out, _, err := b.run(wire.ExecRequest{Argv: argv}, nil)
	if err != nil || out != "[a b][][$HOME][\xff]['\"\n]" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestOutputsAreApartAndStatusIsTold(t *testing.T) {
	b := newBench(t)
	out, errOut, err := b.run(sh("echo out; echo err >&2; exit 42"), nil)
	if out != "out\n" || errOut != "err\n" {
		t.Errorf("got %q and %q", out, errOut)
	}
	wantStatus(t, err, 42)
	_, _, err = b.run(sh("kill -SEGV $$"), nil)
	wantSignal(t, err, "SEGV")
}

func TestLineOfAnotherClientGoesThroughTheShell(t *testing.T) {
	s := newBench(t).session()
	out, err := s.Output("cd /; echo $PWD $((1+1))")
	if err != nil || string(out) != "/ 2\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestEnvironmentAndPlace(t *testing.T) {
	b := newBench(t)
	dir := t.TempDir()
	out, _, err := b.run(wire.ExecRequest{
		Argv: []string{"sh", "-c", `echo "$PWD|$HOME|$USER|$IMAGE|$EXTRA"`}, Dir: dir, Env: []string{"EXTRA=1 2"},
	}, nil)
	if want := dir + "|" + b.home + "|me|yes|1 2\n"; err != nil || out != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
	out, _, err = b.run(sh("pwd"), nil)
	if err != nil || out != b.home+"\n" {
		t.Errorf("without a place: %q, %v", out, err)
	}
}

func TestWhatCannotRun(t *testing.T) {
	b := newBench(t)
	plain := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(plain, []byte("x"), 0o644))
	lost := filepath.Join(t.TempDir(), "lost")
	must(t, os.WriteFile(lost, []byte("#!/no/such/interpreter\n"), 0o755))
	for _, c := range []struct {
		name   string
		r      wire.ExecRequest
		status int
		says   string
	}{
		{"unknown name", wire.ExecRequest{Argv: []string{"no-such-command"}}, 127, "command not found in the guest"},
		{"unknown path", wire.ExecRequest{Argv: []string{"/no/such/file"}}, 127, "no such file in the guest"},
		{"not executable", wire.ExecRequest{Argv: []string{plain}}, 126, "permission denied"},
		{"a directory", wire.ExecRequest{Argv: []string{"/"}}, 126, "permission denied"},
		{"interpreter missing", wire.ExecRequest{Argv: []string{lost}}, 127, "interpreter"},
		{"place missing", wire.ExecRequest{Argv: []string{"true"}, Dir: "/no/such/dir"}, 126, "/no/such/dir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errOut, err := b.run(c.r, nil)
			wantStatus(t, err, c.status)
			if !strings.Contains(errOut, c.says) {
				t.Errorf("said %q, without %q", errOut, c.says)
			}
		})
	}
}

func TestScriptWithoutInterpreterRuns(t *testing.T) {
	b := newBench(t)
	script := filepath.Join(t.TempDir(), "script")
	must(t, os.WriteFile(script, []byte("echo ran $1\n"), 0o755))
	out, _, err := b.run(wire.ExecRequest{Argv: []string{script, "x"}}, nil)
	if err != nil || out != "ran x\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestInputIsBinaryCleanAndEnds(t *testing.T) {
	b := newBench(t)
	data := make([]byte, 3<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	out, _, err := b.run(wire.ExecRequest{Argv: []string{"cat"}}, bytes.NewReader(data))
	if err != nil || out != string(data) {
		t.Errorf("%d bytes came back of %d, %v", len(out), len(data), err)
	}
}

// TestOutputGoesOnAfterInputEnded: half-close, as `printf x | sort` needs.
func TestOutputGoesOnAfterInputEnded(t *testing.T) {
	b := newBench(t)
	out, _, err := b.run(sh("cat >/dev/null; echo after"), strings.NewReader("x"))
	if err != nil || out != "after\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// started is a command that has printed its first line.
type started struct {
	*ssh.Session
	client *ssh.Client
	in     io.WriteCloser
	out    *bufio.Reader
	first  string
}

func (b *bench) start(pty bool, script string) *started {
	b.t.Helper()
	c := b.client()
	s, err := c.NewSession()
	must(b.t, err)
	if pty {
		must(b.t, s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}))
	}
	in, err := s.StdinPipe()
	must(b.t, err)
	out, err := s.StdoutPipe()
	must(b.t, err)
	must(b.t, s.Start(wire.ExecCommand(sh(script))))
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n')
	must(b.t, err)
	return &started{s, c, in, r, strings.TrimSpace(line)}
}

func TestSignals(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"TERM", "INT", "KILL", "USR1"} {
		s := b.start(false, "echo ready; exec sleep 1000")
		must(t, s.Signal(ssh.Signal(name)))
		wantSignal(t, s.Wait(), name)
	}
	s := b.start(false, "trap 'echo got; exit 3' HUP; echo ready; while :; do sleep 0.01; done")
	must(t, s.Signal(ssh.SIGHUP))
	rest, err := io.ReadAll(s.out)
	if string(rest) != "got\n" || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
	wantStatus(t, s.Wait(), 3)
}

func TestTerminal(t *testing.T) {
	b := newBench(t)
	s := b.start(true, "tty; echo $TERM; stty size; read x; until stty size | grep -q '50 132'; do sleep 0.01; done; stty size; exit 5")
	if !strings.HasPrefix(s.first, "/dev/pts/") {
		t.Errorf("terminal is %q", s.first)
	}
	read := func() string {
		line, err := s.out.ReadString('\n')
		must(t, err)
		return strings.TrimRight(line, "\r\n")
	}
	if got := read() + " " + read(); got != "xterm 24 80" {
		t.Errorf("got %q", got)
	}
	must(t, s.WindowChange(50, 132))
	_, err := io.WriteString(s.in, "\n")
	must(t, err)
	if got := read(); got != "50 132" {
		t.Errorf("after the change: %q", got)
	}
	wantStatus(t, s.Wait(), 5)
}

func TestCtrlC(t *testing.T) {
	s := newBench(t).start(true, "echo ready; exec sleep 1000")
	_, err := io.WriteString(s.in, "\x03")
	must(t, err)
	wantSignal(t, s.Wait(), "INT")
}

// TestAllOfTheTerminalIsRead: the end of a command that wrote much is not cut.
func TestAllOfTheTerminalIsRead(t *testing.T) {
	s := newBench(t).start(true, "echo ready; seq 20000")
	rest, err := io.ReadAll(s.out)
	must(t, err)
	if n := bytes.Count(rest, []byte("\n")); n != 20000 {
		t.Errorf("%d lines of 20000", n)
	}
}

func TestBackgroundDoesNotHoldTheTerminal(t *testing.T) {
	s := newBench(t).start(true, "(trap '' HUP; exec sleep 1000) & echo $!")
	pid, err := strconv.Atoi(s.first)
	must(t, err)
	defer syscall.Kill(pid, syscall.SIGKILL)
	must(t, s.Wait())
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestLosingTheClientEndsTheCommand(t *testing.T) {
	b := newBench(t)
	for _, pty := range []bool{false, true} {
		s := b.start(pty, "sh -c 'echo $$; exec sleep 1000'; :")
		pid, err := strconv.Atoi(s.first)
		must(t, err)
		if !alive(pid) {
			t.Fatal("not started")
		}
		s.client.Close()
		for alive(pid) && !orphanZombie(pid) {
			time.Sleep(time.Millisecond)
		}
	}
}

// orphanZombie reports whether a process has ended and nobody but the process 1
// of this host can reap it.
func orphanZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := bytes.Cut(b, []byte(") ")) // behind the name (proc_pid_stat(5))
	return err == nil && ok && rest[0] == 'Z'
}

func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	c := b.client()
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			s, err := c.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			out, err := s.Output(wire.ExecCommand(wire.ExecRequest{Argv: []string{"echo", strconv.Itoa(i)}}))
			if err != nil || string(out) != strconv.Itoa(i)+"\n" {
				t.Errorf("%d: %q, %v", i, out, err)
			}
		})
	}
	wg.Wait()
}

// TestRefusedRequests: the channel stays usable after each of them.
func TestRefusedRequests(t *testing.T) {
	s := newBench(t).session()
	name := func(n string) []byte { return ssh.Marshal(struct{ Name string }{n}) }
	pty := ssh.Marshal(struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{"xterm", 80, 24, 0, 0, ""})
	for _, c := range []struct {
		kind    string
		payload []byte
		want    bool
	}{
		{"env", ssh.Marshal(struct{ Name, Value string }{"A", "1"}), true},
		{"env", ssh.Marshal(struct{ Name, Value string }{"A=B", "1"}), false},
		{"env", []byte{0, 0}, false},
		{"window-change", ssh.Marshal(window{80, 24, 0, 0}), false}, // no terminal
		{"signal", name("TERM"), false},                             // no command
		{"subsystem", name("netconf"), false},
		{"auth-agent-req@openssh.com", nil, false},
		{"x11-req", nil, false},
		{"pty-req", pty[:6], false},
		{"pty-req", pty, true},
		{"pty-req", pty, false}, // a second one
		{"window-change", []byte{0}, false},
		{"window-change", ssh.Marshal(window{1 << 20, 24, 0, 0}), true},
	} {
		if ok, err := s.SendRequest(c.kind, true, c.payload); ok != c.want || err != nil {
			t.Errorf("%s %q: %v, %v; want %v", c.kind, c.payload, ok, err, c.want)
		}
	}
	out, err := s.Output("echo $A; stty size")
	if err != nil || string(out) != "1\r\n24 65535\r\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestCandidates(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/bin/tool", 0o755)) // a folder is no program
	must(t, os.WriteFile(dir+"/tool", nil, 0o644))
	for _, c := range []struct {
		name, path string
		want       []string
	}{
		{"tool", dir + "/bin:" + dir, []string{dir + "/tool"}},
		{"tool", "", nil},
		{"tool", dir + "/bin:", []string{"./tool"}},
		{"tool", "bin/..", []string{"bin/../tool"}},
		{"other", dir, nil},
		{"", dir, nil},
		{"./no/such", dir, []string{"./no/such"}},
	} {
		if got := candidates(c.name, dir, c.path); !slices.Equal(got, c.want) {
			t.Errorf("%q in %q: %q, want %q", c.name, c.path, got, c.want)
		}
	}
}

func TestSFTP(t *testing.T) {
	b := newBench(t)
	c, err := sftp.NewClient(b.client())
	must(t, err)
	defer c.Close()
	f, err := c.Create("made")
	must(t, err)
	_, err = f.Write([]byte("content"))
	must(t, errors.Join(err, f.Close(), c.Chmod("made", 0o600)))
	got, err := os.ReadFile(b.home + "/made")
	if err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := c.Stat("missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestForwards(t *testing.T) {
	b := newBench(t)
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer echo.Close()
	go serveEcho(echo)
	unixPath := filepath.Join(t.TempDir(), "s")
	echoUnix, err := net.Listen("unix", unixPath)
	must(t, err)
	defer echoUnix.Close()
	go serveEcho(echoUnix)

	client := b.client()
	direct, err := client.Dial("tcp", echo.Addr().String())
	must(t, err)
	checkEcho(t, direct)
	socket, err := client.Dial("unix", unixPath)
	must(t, err)
	checkEcho(t, socket)

	remote, err := client.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go serveEcho(remote)
	c, err := net.Dial("tcp", remote.Addr().String())
	must(t, err)
	checkEcho(t, c)
	must(t, remote.Close())
	if c, err := net.Dial("tcp", remote.Addr().String()); err == nil {
		c.Close()
		t.Error("still listens after the forward was cancelled")
	}
}

func serveEcho(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			c.Close()
		}()
	}
}

// checkEcho also ends its half, and then still reads.
func checkEcho(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	_, err := io.WriteString(c, "hello")
	must(t, err)
	w, ok := c.(interface{ CloseWrite() error })
	if !ok {
		t.Fatalf("%T has no half", c)
	}
	must(t, w.CloseWrite())
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	b := newBench(t)
	other, _ := newKey(t)
	if c, err := b.dial("me", other); err == nil {
		c.Close()
		t.Error("another key was let in")
	}
	if c, err := b.dial("nobody-here", b.key); err == nil {
		c.Close()
		t.Error("an unknown user was let in")
	}
	fresh := New(b.server.logins, b.server.processes)
	must(t, fresh.Configure(nil, nil)) // a template's
	ours, theirs := pair(t)
	go fresh.Serve(theirs, nil)
	must(t, ours.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	if n, err := ours.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a server that is not set up said something: %d, %v", n, err)
	}
}

// TestRetiredServerAnswersNobody: its clients wait until the connection ends.
func TestRetiredServerAnswersNobody(t *testing.T) {
	b := newBench(t)
	b.server.Retire()
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		b.server.Serve(theirs, nil)
	}()
	answer := make(chan []byte)
	go func() {
		got, _ := io.ReadAll(ours) // ends when the connection does
		answer <- got
	}()
	_, err := io.WriteString(ours, "SSH-2.0-client\r\n") // a pipe has no buffer: the server has read it
	must(t, err)
	must(t, ours.Close())
	<-served
	if got := <-answer; len(got) > 0 {
		t.Errorf("it said %q", got)
	}
}
