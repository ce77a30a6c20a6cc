package engine_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/guest/sshd"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
)

// guest is the guest of a sandbox that runs: its SSH server, in this process, with the
// users "me" and "root", who are this process's.
type guest struct {
	*machine
	mu    sync.Mutex
	conns []net.Conn
}

func startGuest(t *testing.T, d store.Dir) *guest {
	t.Helper()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT) // or its commands ignore them too
	g := &guest{machine: start(t, d)}
	if err := session.MakeKeys(d, "shop"); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	passwd := ""
	for _, name := range []string{"me", "root"} {
		passwd += fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", name, os.Getuid(), os.Getgid(), t.TempDir())
	}
	if err := errors.Join(os.Mkdir(root+"/etc", 0o755), os.WriteFile(root+"/etc/passwd", []byte(passwd), 0o644)); err != nil {
		t.Fatal(err)
	}
	host, err1 := os.ReadFile(d.File(store.HostKeyFile))
	key, err2 := session.Signer(d, store.ClientKeyFile)
	processes := process.NewTable(nil)
	processes.OwnOnly = true
	server := sshd.New(accounts.NewLogins(root), processes)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := server.Configure(host, []string{string(ssh.MarshalAuthorizedKey(key.PublicKey()))}); err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen(store.SSHSocket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.mu.Lock()
			g.conns = append(g.conns, c)
			g.mu.Unlock()
			serving.Go(func() { server.Serve(c, nil) })
		}
	})
	t.Cleanup(func() { l.Close(); g.cut(); serving.Wait() })
	return g
}

// cut ends all connections, as the end of the machine does.
func (g *guest) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		c.Close()
	}
}

// ended is what Run returned.
type ended struct {
	exit session.Exit
	err  error
}

// waiting runs a command in a session that ends when its input does. It returns when the
// command runs.
func waiting(t *testing.T, s *engine.Session) (input io.Closer, end <-chan ended) {
	t.Helper()
	in, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, outW := io.Pipe()
	t.Cleanup(func() { in.Close(); inW.Close(); out.Close() })
	c := make(chan ended, 1)
	go func() {
		exit, err := s.Run(t.Context(), session.Command{Argv: []string{"/bin/sh", "-c", "echo up; read x; exit 3"}, Stdin: in, Stdout: outW, Stderr: io.Discard})
		c <- ended{exit, err}
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("%q, %v", line, err)
	}
	return inW, c
}

func attach(t *testing.T, p *place) *engine.Session {
	t.Helper()
	s, err := p.Attach(t.Context(), "shop", "me")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestRunCommand(t *testing.T) {
	p := newPlace(t)
	startGuest(t, p.add(t, "shop", p.shop, nil))
	s := attach(t, p)
	if s.Spec.Name != "shop" {
		t.Errorf("%+v", s.Spec)
	}
	var out strings.Builder
	exit, err := s.Run(t.Context(), session.Command{Argv: []string{"/bin/sh", "-c", "echo $X; exit 3"}, Env: []string{"X=y"}, Stdout: &out, Stderr: io.Discard})
	if err != nil || exit.Status != 3 || out.String() != "y\n" {
		t.Errorf("%+v, %v, %q", exit, err, out.String())
	}
	none, err := p.Attach(t.Context(), "shop", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer none.Close()
	if err := none.Connect(t.Context()); engine.ReasonOf(err) != engine.NoGuestUser {
		t.Errorf("a user that the guest does not have: %v", err)
	}
}

// TestWhyGone: the error of a command whose sandbox went away has the reason.
func TestWhyGone(t *testing.T) {
	for _, c := range []struct {
		name, says string
		end        func(t *testing.T, p *place, d store.Dir) error
		gone       bool // the sandbox does not exist any more
	}{
		{"stopped", "it was stopped", func(_ *testing.T, _ *place, d store.Dir) error {
			return d.WriteState(sandbox.State{Phase: sandbox.Stopped})
		}, false},
		{"ended by itself", "the guest crashed", func(_ *testing.T, _ *place, d store.Dir) error {
			return d.WriteState(sandbox.State{Phase: sandbox.Stopped, Message: "the guest crashed"})
		}, false},
		{"killed", "its supervisor died", func(*testing.T, *place, store.Dir) error { return nil }, false},
		{"suspended", "it was suspended", func(t *testing.T, _ *place, d store.Dir) error {
			s := enginetest.Keep(t, d, "one", "disk")
			return errors.Join(s.Clone(d.File(store.SuspendedState)), d.WriteState(sandbox.State{Phase: sandbox.Stopped}))
		}, false},
		{"removed", "it was removed", func(_ *testing.T, _ *place, d store.Dir) error { return d.Remove() }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlace(t)
			d := p.add(t, "shop", p.shop, nil)
			g := startGuest(t, d)
			_, end := waiting(t, attach(t, p))
			if err := errors.Join(c.end(t, p, d), g.lock.Close()); err != nil {
				t.Fatal(err)
			}
			g.cut()
			got := <-end
			e := engine.As(got.err)
			if e == nil || e.Reason != engine.CommandFailed || (e.Sandbox == "") != c.gone || !strings.HasSuffix(e.Error(), ": "+c.says) {
				t.Errorf("%v, %+v; want %q", got.err, e, c.says)
			}
		})
	}
}

// TestHostDiskFull: while a command runs, a person learns why it does not go on.
func TestHostDiskFull(t *testing.T) {
	p := newPlace(t)
	g := startGuest(t, p.add(t, "shop", p.shop, nil))
	input, end := waiting(t, attach(t, p))
	for _, c := range []struct {
		starved bool
		want    engine.Reason
	}{{true, engine.HostDiskFull}, {false, engine.HostDiskFreed}} {
		g.machine.mu.Lock()
		g.starved = c.starved // what a stream that begins later starts with
		g.machine.mu.Unlock()
		g.events.Send(control.Event{Kind: control.KindSpace, Starved: c.starved})
		if n := <-p.noticeC; n.Reason != c.want || n.Sandbox != "shop" {
			t.Fatalf("%+v, want %s", n, c.want)
		}
	}
	input.Close()
	if got := <-end; got.err != nil || got.exit.Status != 3 {
		t.Errorf("%+v", got)
	}
}
