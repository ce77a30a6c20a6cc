package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/supervisor/publish"
)

// reporter is a guest that reports what the test says.
type reporter struct {
	asked   chan []uint16
	reports chan []uint16
	done    chan struct{}
}

func (r *reporter) watch(ctx context.Context, ports []uint16, report func([]uint16)) error {
	select {
	case r.asked <- ports:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		select {
		case list := <-r.reports:
			report(list)
			r.done <- struct{}{}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say reports open ports, and returns when the host has taken that in.
func (r *reporter) say(open ...uint16) {
	r.reports <- open
	<-r.done
}

// echoOrBye is echo, and on port 8 a server that closes each connection first, which leaves
// the host's end in TIME_WAIT.
func echoOrBye(ctx context.Context, port uint16) (net.Conn, error) {
	if port != 8 {
		return echo(ctx, port)
	}
	host, guest := net.Pipe()
	guest.Close()
	return host, nil
}

// follow publishes a guest port of a reporter.
func follow(t *testing.T, guest uint16) (*publish.Ports, *reporter, sandbox.Port) {
	t.Helper()
	r := &reporter{asked: make(chan []uint16), reports: make(chan []uint16), done: make(chan struct{})}
	p := publish.New(sandbox.Localhost, echoOrBye, r.watch, slog.New(slog.DiscardHandler))
	got, err := open(p, sandbox.Port{Guest: guest})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Follow(ctx) }()
	t.Cleanup(func() { cancel(); <-ended; p.Close() })
	if asked := <-r.asked; !slices.Equal(asked, []uint16{guest}) {
		t.Errorf("asked for %v", asked)
	}
	return p, r, got
}

// addresses are those of a published port on a host, which may have no IPv6.
func addresses(t *testing.T, host uint16) []string {
	t.Helper()
	list := []string{fmt.Sprintf("127.0.0.1:%d", host)}
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Log("no IPv6 here")
		return list
	}
	l.Close()
	return append(list, fmt.Sprintf("[::1]:%d", host))
}

func refused(t *testing.T, address string) bool {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// TestAPortIsOpenWhileTheGuestListens, again and again, by each address of localhost, also
// while connections of before are in TIME_WAIT.
func TestAPortIsOpenWhileTheGuestListens(t *testing.T) {
	_, r, got := follow(t, 7)
	for range 3 {
		for _, a := range addresses(t, got.Host) {
			if !refused(t, a) {
				t.Errorf("%s does not refuse while nobody listens", a)
			}
		}
		r.say(7)
		for _, a := range addresses(t, got.Host) {
			if !echoes(a) {
				t.Errorf("%s does not answer", a)
			}
		}
		r.say()
	}
}

// TestAPortOpensAgainBesideItsConnections: those that are open, and those in TIME_WAIT.
func TestAPortOpensAgainBesideItsConnections(t *testing.T) {
	_, r, got := follow(t, 8)
	address := fmt.Sprintf("127.0.0.1:%d", got.Host)
	for range 3 {
		r.say(8)
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the server's end: %v", err)
		}
		c.Close()
		r.say()
	}
	p, r, got := follow(t, 7)
	r.say(7)
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", got.Host))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "before"); err != nil {
		t.Fatal(err)
	}
	for p.Conns() == 0 && t.Context().Err() == nil {
		runtime.Gosched() // it waits to be accepted, and would be reset
	}
	r.say()
	r.say(7)
	if !answers(t, got.Host) {
		t.Error("it does not open beside an open connection")
	}
	_, _ = io.WriteString(c, " and after")
	_ = c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "before and after" {
		t.Errorf("the connection: %q, %v", b, err)
	}
}

// TestAPortIsReservedWhileItRefuses: no other program or sandbox can take it, before the
// guest listens nor after.
func TestAPortIsReservedWhileItRefuses(t *testing.T) {
	_, r, got := follow(t, 7)
	reserved := func(when string) {
		t.Helper()
		for _, option := range []int{0, unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
			for _, a := range addresses(t, got.Host) {
				lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
					return c.Control(func(fd uintptr) {
						_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
						if option != 0 {
							_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1)
						}
					})
				}}
				if l, err := lc.Listen(t.Context(), "tcp", a); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%s: another program with socket option %d got %s: %v", when, option, a, err)
					if err == nil {
						l.Close()
					}
				}
			}
		}
		if err := publish.Check(sandbox.Localhost, sandbox.Port{Host: got.Host, Guest: 1}); control.ReasonOf(err) != control.ReasonPortInUse {
			t.Errorf("%s: for another sandbox: %v", when, err)
		}
	}
	reserved("before")
	r.say(7)
	reserved("while the guest listens")
	r.say()
	reserved("after")
}

// TestAGuestOpensNoOtherPort: what it reports beyond the published ports is without effect,
// also when such a port is published later.
func TestAGuestOpensNoOtherPort(t *testing.T) {
	p, r, got := follow(t, 7)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	r.say(other, 0, 65535, got.Host)
	if list := p.List(); len(list) != 1 || list[0] != got {
		t.Errorf("published: %v", list)
	}
	for _, host := range []uint16{other, got.Host} {
		if !refused(t, fmt.Sprintf("127.0.0.1:%d", host)) {
			t.Errorf("the host listens on %d", host)
		}
	}
	if _, err := p.Change([]sandbox.Port{{Host: other, Guest: other}}, nil); err != nil {
		t.Fatal(err)
	}
	if !refused(t, fmt.Sprintf("127.0.0.1:%d", other)) {
		t.Error("a report from before a port was published opens it")
	}
	if asked := <-r.asked; len(asked) != 2 {
		t.Errorf("asked for %v", asked)
	}
	awaited := make(chan struct{})
	go func() { defer close(awaited); p.Await(t.Context()) }()
	r.say(7, other)
	<-awaited
	if refused(t, fmt.Sprintf("127.0.0.1:%d", other)) {
		t.Error("a published port does not open")
	}
}

// TestAGuestThatCannotTell: ports are open, and connections to closed ones are reset.
func TestAGuestThatCannotTell(t *testing.T) {
	failed := make(chan struct{})
	p := publish.New(sandbox.Localhost, echo, func(context.Context, []uint16, func([]uint16)) error {
		defer close(failed)
		return errors.New("EOF")
	}, slog.New(slog.DiscardHandler))
	defer p.Close()
	got, err := open(p, sandbox.Port{Guest: 7})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); p.Follow(ctx) }()
	<-failed
	for !answers(t, got.Host) { // Follow opens it next
		if t.Context().Err() != nil {
			t.Fatal("it stays closed")
		}
	}
	cancel()
	<-ended
}
