package publish_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/supervisor/publish"
)

// echo answers a guest's port 7 with what it reads, after it has all of it.
func echo(_ context.Context, port uint16) (net.Conn, error) {
	if port != 7 {
		return nil, errors.New("connection refused")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() {
		c, err := l.Accept()
		l.Close()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		_, _ = c.Write(b)
		c.Close()
	}()
	return net.Dial("tcp", l.Addr().String())
}

// open publishes one port.
func open(p *publish.Ports, port sandbox.Port) (sandbox.Port, error) {
	got, err := p.Change([]sandbox.Port{port}, nil)
	if err != nil {
		return sandbox.Port{}, err
	}
	return got[0], nil
}

// shut closes one port.
func shut(p *publish.Ports, host uint16) error {
	_, err := p.Change(nil, []uint16{host})
	return err
}

// answers reports whether the guest's echo is at a port of the host.
func answers(t *testing.T, host uint16) bool {
	t.Helper()
	return echoes(fmt.Sprintf("127.0.0.1:%d", host))
}

func echoes(address string) bool {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	_, _ = io.WriteString(c, "until the end")
	_ = c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	return err == nil && string(b) == "until the end"
}

func TestPublishRelaysHalfClosed(t *testing.T) {
	p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
	defer p.Close()
	got, err := open(p, sandbox.Port{Guest: 7})
	if err != nil || got.Host == 0 {
		t.Fatal(got, err)
	}
	if !answers(t, got.Host) {
		t.Error("the echo did not come")
	}
}

func TestPublishOnlyOnLoopback(t *testing.T) {
	p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
	defer p.Close()
	got, err := open(p, sandbox.Port{Guest: 7})
	if err != nil {
		t.Fatal(err)
	}
	if !answers(t, got.Host) {
		t.Error("not published")
	}
	// A listener on all addresses would be in the way of one on another address.
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.2:%d", got.Host))
	if err != nil {
		t.Fatalf("published on more than 127.0.0.1: %v", err)
	}
	l.Close()
}

// TestAttackLocalhostOfAnOwnAddress: ports on an address of a sandbox's own are on no other, so
// that a page there gets no cookies of localhost, and two sandboxes can have the same number.
func TestAttackLocalhostOfAnOwnAddress(t *testing.T) {
	specs := []*sandbox.Spec{{ID: "0123456789ab", OwnAddress: true}, {ID: "0123456789ac", OwnAddress: true}}
	var port uint16
	for _, s := range specs {
		p := publish.New(s.Loopbacks(), echo, nil, slog.New(slog.DiscardHandler))
		defer p.Close()
		got, err := open(p, sandbox.Port{Host: port, Guest: 7})
		if err != nil {
			t.Fatal(err)
		}
		port = got.Host
		if own := netip.AddrPortFrom(s.Loopbacks()[0], port).String(); !echoes(own) {
			t.Errorf("%s does not answer", own)
		}
	}
	for _, a := range []string{"127.0.0.1", "[::1]"} {
		if a = fmt.Sprintf("%s:%d", a, port); echoes(a) {
			t.Errorf("published on %s", a)
		}
	}
}

func TestClosedGuestPortIsReset(t *testing.T) {
	p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
	defer p.Close()
	got, err := open(p, sandbox.Port{Guest: 9})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", got.Host))
	if err == nil {
		_, err = c.Read(make([]byte, 1))
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestChangeErrorsHaveReasons(t *testing.T) {
	p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
	defer p.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := uint16(l.Addr().(*net.TCPAddr).Port)
	if _, err := open(p, sandbox.Port{Host: busy, Guest: 7}); control.ReasonOf(err) != control.ReasonPortInUse || !strings.Contains(err.Error(), "in use by another program") {
		t.Errorf("busy port: %v", err)
	}
	got, _ := open(p, sandbox.Port{Guest: 7})
	if _, err := open(p, sandbox.Port{Host: got.Host, Guest: 8}); control.ReasonOf(err) != control.ReasonPortPublished {
		t.Errorf("twice: %v", err)
	}
	if err := shut(p, got.Host); err != nil {
		t.Error(err)
	}
	if err := shut(p, got.Host); control.ReasonOf(err) != control.ReasonPortNotPublished {
		t.Error("closed twice")
	}
}

// TestPublishAnyOnce: a port that may be any of the host's stays the one that it
// became, however often it is asked for, and can be closed.
func TestPublishAnyOnce(t *testing.T) {
	p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
	defer p.Close()
	first, err := open(p, sandbox.Port{Guest: 7})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := open(p, sandbox.Port{Guest: 7}); again != first || err != nil {
		t.Errorf("%v, then %v, %v", first, again, err)
	}
	if err := shut(p, first.Host); err != nil {
		t.Error(err)
	}
	if l := p.List(); len(l) != 0 {
		t.Errorf("still open: %v", l)
	}
}

// TestChangeIsAllOrNone: a change with one part that fails leaves everything as it was.
func TestChangeIsAllOrNone(t *testing.T) {
	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	taken := sandbox.Port{Host: uint16(busy.Addr().(*net.TCPAddr).Port), Guest: 7}
	for name, change := range map[string]func(first sandbox.Port) (add []sandbox.Port, remove []uint16){
		"a port in use":        func(sandbox.Port) ([]sandbox.Port, []uint16) { return []sandbox.Port{{Guest: 8}, taken}, nil },
		"guest port 0":         func(sandbox.Port) ([]sandbox.Port, []uint16) { return []sandbox.Port{{Guest: 8}, {}}, nil },
		"a port not published": func(f sandbox.Port) ([]sandbox.Port, []uint16) { return nil, []uint16{f.Host, taken.Host} },
		"twice closed":         func(f sandbox.Port) ([]sandbox.Port, []uint16) { return nil, []uint16{f.Host, f.Host} },
		"closed and in use": func(f sandbox.Port) ([]sandbox.Port, []uint16) {
			return []sandbox.Port{{Host: f.Host, Guest: 9}, taken}, []uint16{f.Host}
		},
		"one port of the host twice": func(f sandbox.Port) ([]sandbox.Port, []uint16) {
			return []sandbox.Port{{Host: f.Host, Guest: 8}, {Host: f.Host, Guest: 9}}, []uint16{f.Host}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
			defer p.Close()
			first, err := open(p, sandbox.Port{Guest: 7})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := p.Change(change(first)); err == nil {
				t.Errorf("it succeeded: %v", got)
			}
			if l := p.List(); len(l) != 1 || l[0] != first {
				t.Errorf("published: %v, want %v alone", l, first)
			}
			if !answers(t, first.Host) {
				t.Error("the port that was published does not answer")
			}
		})
	}
}

// TestAPortMovesToAnotherGuestPort in one step, though the host's stays in use.
func TestAPortMovesToAnotherGuestPort(t *testing.T) {
	p := publish.New(sandbox.Localhost, echo, nil, slog.New(slog.DiscardHandler))
	defer p.Close()
	first, err := open(p, sandbox.Port{Guest: 9})
	if err != nil {
		t.Fatal(err)
	}
	if answers(t, first.Host) {
		t.Error("a closed guest port answers")
	}
	moved := sandbox.Port{Host: first.Host, Guest: 7}
	got, err := p.Change([]sandbox.Port{moved}, []uint16{first.Host})
	if err != nil || len(got) != 1 || got[0] != moved {
		t.Fatalf("%v, %v", got, err)
	}
	if l := p.List(); len(l) != 1 || l[0] != moved || !answers(t, first.Host) {
		t.Errorf("published: %v", l)
	}
}

// TestCloseEndsConnections: also one whose guest never answers the dial.
func TestCloseEndsConnections(t *testing.T) {
	dialling := make(chan struct{})
	p := publish.New(sandbox.Localhost, func(ctx context.Context, _ uint16) (net.Conn, error) {
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}, nil, slog.New(slog.DiscardHandler))
	got, err := open(p, sandbox.Port{Guest: 7})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", got.Host))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-dialling
	p.Close()
	if p.Conns() != 0 || len(p.List()) != 0 {
		t.Errorf("%d connections, %v", p.Conns(), p.List())
	}
}
