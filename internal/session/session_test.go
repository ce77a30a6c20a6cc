package session

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/guest/sshd"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/wire"
)

// TestMain lets the guest's SSH server execute this program for SFTP, as it executes the
// agent in a guest.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == clientMode {
		os.Exit(clientMain())
	}
	// A signal that is ignored here would be ignored by the commands too; one that has a
	// handler is not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT)
	if filepath.Base(os.Args[0]) == sshd.SFTPMode {
		os.Exit(sshd.ServeSFTP())
	}
	if filepath.Base(os.Args[0]) == sshd.JobMode {
		os.Exit(sshd.LeadJob(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sandboxDir is the folder of a sandbox with keys.
func sandboxDir(t *testing.T) store.Dir {
	t.Helper()
	d := store.Dir{Path: t.TempDir()}
	must(t, MakeKeys(d, "test"))
	return d
}

// serveChannels is a guest of the sandbox for listen: serve is called for each channel of a connection,
// one after another.
func serveChannels(t *testing.T, d store.Dir, serve func(ssh.NewChannel)) func(net.Conn) {
	t.Helper()
	host, err := Signer(d, store.HostKeyFile)
	must(t, err)
	cfg := &ssh.ServerConfig{NoClientAuth: true, ServerVersion: wire.SSHVersion}
	cfg.AddHostKey(host)
	return func(c net.Conn) {
		_, channels, globals, err := ssh.NewServerConn(c, cfg)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(globals) // which answers
		for channel := range channels {
			serve(channel)
		}
	}
}

// listen serves the sandbox's SSH socket until the test ends.
func listen(t *testing.T, d store.Dir, serve func(net.Conn)) {
	t.Helper()
	l, err := d.Listen(store.SSHSocket)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
}

// bench is a sandbox whose SSH socket ends in the guest's real server, in this process,
// with one user: this one.
type bench struct {
	t    *testing.T
	dir  store.Dir
	home string

	mu    sync.Mutex
	conns []net.Conn // the server's ends
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: sandboxDir(t), home: t.TempDir()}
	root := t.TempDir()
	must(t, os.Mkdir(root+"/etc", 0o755))
	passwd := fmt.Sprintf("me:x:%d:%d::%s:/bin/sh\n", os.Getuid(), os.Getgid(), b.home)
	must(t, os.WriteFile(root+"/etc/passwd", []byte(passwd), 0o644))
	processes := process.NewTable(nil)
	processes.OwnOnly = true
	server := sshd.New(accounts.NewLogins(root), processes)
	host, err := os.ReadFile(b.dir.File(store.HostKeyFile))
	must(t, err)
	client, err := Signer(b.dir, store.ClientKeyFile)
	must(t, err)
	must(t, server.Configure(host, []string{string(ssh.MarshalAuthorizedKey(client.PublicKey()))}))
	listen(t, b.dir, func(c net.Conn) {
		b.mu.Lock()
		b.conns = append(b.conns, c)
		b.mu.Unlock()
		server.Serve(c, nil)
	})
	return b
}

// cut ends all connections, as when the machine goes away.
func (b *bench) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
}

func (b *bench) dial() *Client {
	b.t.Helper()
	c, err := Dial(b.t.Context(), b.dir, "me")
	must(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

// sh is a script as a command, whose outputs are kept.
func sh(script string) (cmd Command, out, errOut *bytes.Buffer) {
	out, errOut = &bytes.Buffer{}, &bytes.Buffer{}
	return Command{Argv: []string{"sh", "-c", script}, Stdout: out, Stderr: errOut}, out, errOut
}

func TestExit(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		script string
		want   int
	}{
		{"true", 0},
		{"exit 3", 3},
		{"exit 255", 255},
		{"kill -TERM $$", 128 + 15},
		{"kill -SEGV $$", 128 + 11},
		{"kill -KILL $$", 128 + 9},
		{"kill -40 $$", 128 + 40}, // has no name in SSH
		{"exec /no/such/program", 127},
	} {
		t.Run(c.script, func(t *testing.T) {
			cmd, _, _ := sh(c.script)
			if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != c.want {
				t.Errorf("got %+v, %v; want %d", exit, err, c.want)
			}
		})
	}
}

func TestWhatCannotRun(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name string
		cmd  Command
		want int
		says string
	}{
		{"no such command", Command{Argv: []string{"no-such-command"}}, 127, "command not found in the guest"},
		{"no such directory", Command{Argv: []string{"true"}, Dir: "/no/such"}, 126, "/no/such"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var errOut bytes.Buffer
			c.cmd.Stdout, c.cmd.Stderr = io.Discard, &errOut
			exit, err := b.dial().Run(t.Context(), c.cmd)
			if err != nil || exit.Status != c.want || !strings.Contains(errOut.String(), c.says) {
				t.Errorf("got %+v, %v, %q; want %d and %q", exit, err, errOut.String(), c.want, c.says)
			}
		})
	}
}

// fileOf is a file to read the bytes from.
func fileOf(t *testing.T, b []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "in")
	must(t, os.WriteFile(path, b, 0o600))
	f, err := os.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestStreams(t *testing.T) {
	b := newBench(t)
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	cmd, out, errOut := sh("cat; echo apart >&2")
	cmd.Stdin = fileOf(t, data)
	exit, err := b.dial().Run(t.Context(), cmd)
	if err != nil || exit.Status != 0 || !bytes.Equal(out.Bytes(), data) || errOut.String() != "apart\n" {
		t.Errorf("%+v, %v: %d bytes of %d, and %q", exit, err, out.Len(), len(data), errOut.String())
	}
	cmd, out, _ = sh("cat; echo end")
	if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 0 || out.String() != "end\n" {
		t.Errorf("without input: %+v, %v, %q", exit, err, out)
	}
}

func TestCommandIsExact(t *testing.T) {
	b := newBench(t)
	var out bytes.Buffer
	dir := t.TempDir()
	cmd := Command{
		Argv: []string{"sh", "-c", `printf '%s|' "$PWD" "$A" "$USER" "$@"`, "x", "a b", "", "$HOME", "\xff"},
		Dir:  dir, Env: []string{"A=1 2", "USER=other"}, Stdout: &out, Stderr: io.Discard,
	}
	want := dir + "|1 2|other|a b||$HOME|\xff|"
	if _, err := b.dial().Run(t.Context(), cmd); err != nil || out.String() != want {
		t.Errorf("got %q, %v; want %q", out.String(), err, want)
	}
}

func TestLoginShell(t *testing.T) {
	b := newBench(t)
	var out bytes.Buffer
	in := fileOf(t, []byte("echo $0 in $PWD; exit 4\n"))
	exit, err := b.dial().Run(t.Context(), Command{Stdin: in, Stdout: &out, Stderr: io.Discard})
	if want := "-sh in " + b.home + "\n"; err != nil || exit.Status != 4 || out.String() != want {
		t.Errorf("got %+v, %v, %q; want %q", exit, err, out.String(), want)
	}
}

// running is a command that has printed its first line.
type running struct {
	first string
	out   *bufio.Reader
	done  chan struct{} // closed when Run has returned
	exit  Exit
	err   error
}

// start runs a script until it has printed a line.
func start(t *testing.T, c *Client, ctx context.Context, cmd Command) *running {
	t.Helper()
	pr, pw := io.Pipe()
	cmd.Stdout = pw
	r := &running{out: bufio.NewReader(pr), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.exit, r.err = c.Run(ctx, cmd)
		pw.Close()
	}()
	line, err := r.out.ReadString('\n')
	if err != nil {
		<-r.done
		t.Fatal(err, r.err)
	}
	r.first = strings.TrimRight(line, "\r\n")
	return r
}

// wait reads the rest of the output and waits until Run has returned.
func (r *running) wait(t *testing.T) (rest string) {
	t.Helper()
	b, err := io.ReadAll(r.out)
	must(t, err)
	<-r.done
	return string(b)
}

func TestSignals(t *testing.T) {
	b := newBench(t)
	for _, sig := range Forwarded {
		t.Run(sig.String(), func(t *testing.T) {
			signals := make(chan os.Signal, 1)
			defer close(signals)
			cmd, _, _ := sh("echo ready; exec sleep 1000")
			cmd.Signals = signals
			r := start(t, b.dial(), t.Context(), cmd)
			signals <- sig
			r.wait(t)
			if want := 128 + int(sig.(syscall.Signal)); r.err != nil || r.exit.Status != want {
				t.Errorf("got %+v, %v; want %d", r.exit, r.err, want)
			}
		})
	}
}

// TestSignalBeforeTheCommand: a signal that comes before the command is started reaches it.
func TestSignalBeforeTheCommand(t *testing.T) {
	b := newBench(t)
	signals := make(chan os.Signal, 1)
	defer close(signals)
	signals <- syscall.SIGTERM
	cmd, _, _ := sh("exec sleep 1000")
	cmd.Signals = signals
	if exit, err := b.dial().Run(t.Context(), cmd); err != nil || exit.Status != 128+15 {
		t.Errorf("got %+v, %v", exit, err)
	}
}

func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(stat), ") ") // behind the name (proc_pid_stat(5))
	return ok && rest[0] == 'Z'
}

// TestCancel: a context that ends takes the command along.
func TestCancel(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cmd, _, _ := sh("echo $$; exec sleep 1000")
	r := start(t, b.dial(), ctx, cmd)
	pid, err := strconv.Atoi(r.first)
	must(t, err)
	cancel()
	r.wait(t)
	if r.err == nil {
		t.Errorf("no error, but %+v", r.exit)
	}
	for !gone(pid) {
		time.Sleep(time.Millisecond)
	}
}

func TestSandboxGoesAway(t *testing.T) {
	b := newBench(t)
	cmd, _, _ := sh("echo ready; exec sleep 1000")
	r := start(t, b.dial(), t.Context(), cmd)
	b.cut()
	r.wait(t)
	if !errors.Is(r.err, ErrGone) {
		t.Errorf("got %+v, %v", r.exit, r.err)
	}
}

// broken is a writer as a pipe whose reader has ended.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestOutputIsLost(t *testing.T) {
	b := newBench(t)
	for name, cmd := range map[string]Command{
		"stdout": {Argv: []string{"yes"}, Stdout: broken{}, Stderr: io.Discard},
		"stderr": {Argv: []string{"sh", "-c", "yes >&2"}, Stdout: io.Discard, Stderr: broken{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.dial().Run(t.Context(), cmd)
			var lost OutputError
			if !errors.As(err, &lost) || !errors.Is(err, syscall.EPIPE) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSFTP(t *testing.T) {
	b := newBench(t)
	conn, err := b.dial().SFTP()
	must(t, err)
	c, err := sftp.NewClientPipe(conn, conn)
	must(t, err)
	defer c.Close()
	f, err := c.Create("made")
	must(t, err)
	_, err = f.Write([]byte("content"))
	must(t, errors.Join(err, f.Close()))
	if got, err := os.ReadFile(b.home + "/made"); err != nil || string(got) != "content" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestUnknownUser(t *testing.T) {
	b := newBench(t)
	if _, err := Dial(t.Context(), b.dir, "nobody-here"); !errors.Is(err, ErrUser) {
		t.Errorf("got %v", err)
	}
}

// TestOtherHostKey: a guest that answers with another key than the sandbox's is refused.
func TestOtherHostKey(t *testing.T) {
	b := newBench(t)
	must(t, os.Remove(b.dir.File(store.HostKeyFile)))
	must(t, MakeKeys(b.dir, "test"))
	if c, err := Dial(t.Context(), b.dir, "me"); err == nil || errors.Is(err, ErrUser) {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestNobodyListens(t *testing.T) {
	_, err := Dial(t.Context(), sandboxDir(t), "me")
	if err == nil || !strings.Contains(err.Error(), "sandbox does not answer") {
		t.Errorf("got %v", err)
	}
	if _, err := Dial(t.Context(), store.Dir{Path: t.TempDir()}, "me"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without keys: %v", err)
	}
}

// TestDialIsCancelled: a guest that does not say a word does not hold Dial up.
func TestDialIsCancelled(t *testing.T) {
	d := sandboxDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	listen(t, d, func(net.Conn) { cancel() })
	if _, err := Dial(ctx, d, "me"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// serveStill is a guest that starts a command and then stands still.
func serveStill(t *testing.T, d store.Dir, started chan<- struct{}) func(net.Conn) {
	host, err := Signer(d, store.HostKeyFile)
	must(t, err)
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(host)
	return func(c net.Conn) {
		_, channels, _, err := ssh.NewServerConn(c, cfg) // nobody answers the global requests
		if err != nil {
			return
		}
		for ch := range channels {
			_, requests, err := ch.Accept()
			if err != nil {
				return
			}
			r := <-requests
			_ = r.Reply(true, nil)
			close(started)
		}
	}
}

func TestGuestStandsStill(t *testing.T) {
	d := sandboxDir(t)
	started := make(chan struct{})
	listen(t, d, serveStill(t, d, started))
	c, err := Dial(t.Context(), d, "me")
	must(t, err)
	defer c.Close()
	c.answerLimit = 10 * time.Millisecond
	signals := make(chan os.Signal, 1)
	defer close(signals)
	go func() { <-started; signals <- syscall.SIGINT }()
	cmd, _, _ := sh("exec sleep 1000")
	cmd.Signals = signals
	_, err = c.Run(t.Context(), cmd)
	var still StillError
	if !errors.As(err, &still) || still.Signal != syscall.SIGINT {
		t.Errorf("got %v", err)
	}
}

func TestKeysStay(t *testing.T) {
	d := sandboxDir(t)
	var before [][]byte
	files := []string{store.ClientKeyFile, store.HostKeyFile, store.KnownHostsFile}
	for _, f := range files {
		b, err := os.ReadFile(d.File(f))
		must(t, err)
		before = append(before, b)
	}
	must(t, MakeKeys(d, "test"))
	for i, f := range files {
		if b, err := os.ReadFile(d.File(f)); err != nil || !bytes.Equal(b, before[i]) {
			t.Errorf("%s is another now: %v", f, err)
		}
	}
	if fi, err := os.Stat(d.File(store.ClientKeyFile)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	host, err := Signer(d, store.HostKeyFile)
	must(t, err)
	if want := "bawn-test " + string(ssh.MarshalAuthorizedKey(host.PublicKey())); string(before[2]) != want {
		t.Errorf("known_hosts is %q, want %q", before[2], want)
	}
	must(t, os.WriteFile(d.File(store.ClientKeyFile), []byte("damaged"), 0o600))
	if err := MakeKeys(d, "test"); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("of a damaged key: %v", err)
	}
}

func TestSignalNumber(t *testing.T) {
	for name, want := range map[string]int{"TERM": 15, "WINCH": 28, "made-up": 9} {
		if got := signalNumber(name); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	for _, sig := range Forwarded {
		if wire.SignalName(sig.(syscall.Signal)) == "" {
			t.Errorf("%v is forwarded and has no name", sig)
		}
	}
}
