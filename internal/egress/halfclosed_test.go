package egress

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/sys/relay"
)

// deafServer takes what comes, ignores the end, and writes what it is told to.
type deafServer struct {
	net.Listener
	ended chan struct{} // a client's end arrived
	say   chan string
	over  chan struct{} // the connection is closed
}

func newDeafServer(t *testing.T) *deafServer {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &deafServer{Listener: ln, ended: make(chan struct{}), say: make(chan string), over: make(chan struct{})}
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer close(s.over)
		defer c.Close()
		_, err = io.Copy(io.Discard, c)
		close(s.ended)
		if err != nil {
			return
		}
		for text := range s.say {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}()
	return s
}

// open returns how many flows count.
func (l *lab) open() int {
	l.Gateway.mu.Lock()
	defer l.Gateway.mu.Unlock()
	return len(l.flows)
}

// TestAClientThatIsGoneHoldsNoFlow: it ended its half, and its side was reset when it
// was probed; the server ignores the end. On each kind of port.
func TestAClientThatIsGoneHoldsNoFlow(t *testing.T) {
	for name, c := range map[string]struct {
		rule, first string
		port        uint16
	}{
		"raw":      {"slow.test:7000 raw", "x", 7000},
		"text":     {"slow.test:7000", "x\n", 7000},
		"http":     {"slow.test:80", "GET / HTTP/1.1\r\nHost: slow.test\r\n\r\n", 80},
		"httptext": {"slow.test:7000", "GET / HTTP/1.1\r\nHost: slow.test:7000\r\n\r\n", 7000},
	} {
		t.Run(name, func(t *testing.T) {
			s := newDeafServer(t)
			l := newLab(t, testRules{c.rule})
			l.serve("slow.test", fmt.Sprintf("203.0.113.7:%d", c.port), s.Addr().String())
			addr, _ := netip.AddrFromSlice(l.ask("slow.test.", dns.TypeA).Answer[0].(*dns.A).A.To4())
			dst := netip.AddrPortFrom(addr, c.port)
			r := &lossyRequest{guestRequest: guestRequest{accepted: make(chan net.Conn, 1), rejected: make(chan struct{})}}
			served := make(chan struct{})
			go func() {
				defer close(served)
				l.TCP(testGuest, dst, r)
			}()
			guest := <-r.accepted
			defer guest.Close()
			if _, err := io.WriteString(guest, c.first); err != nil {
				t.Fatal(err)
			}
			if err := relay.CloseWrite(guest); err != nil {
				t.Fatal(err)
			}
			<-s.ended
			if l.open() != 1 {
				t.Errorf("%d flows of a client that ended its half", l.open())
			}
			r.conn.reset()
			<-served
			if l.open() != 0 {
				t.Error("the flow still counts")
			}
		})
	}
}

// TestAnIdleHalfClosedFlowIsCut, and not before it is idle.
func TestAnIdleHalfClosedFlowIsCut(t *testing.T) {
	s := newDeafServer(t)
	l := newLab(t, testRules{"slow.test:7000 raw"})
	l.serve("slow.test", "203.0.113.7:7000", s.Addr().String())
	guest := l.mustDial("slow.test", 7000)
	if err := relay.CloseWrite(guest); err != nil {
		t.Fatal(err)
	}
	<-s.ended
	f := l.only(t)
	for f.halfClosedSeen() == nil {
		time.Sleep(time.Millisecond)
	}
	seen := f.moved()
	s.say <- "late"
	if _, err := io.ReadFull(guest, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	f.checkIdle(seen) // half an hour later
	s.say <- "later"
	if _, err := io.ReadFull(guest, make([]byte, 5)); err != nil {
		t.Fatalf("a client that reads was cut: %v", err)
	}
	f.checkIdle(f.moved())
	if _, err := guest.Read(make([]byte, 1)); err == nil {
		t.Error("an idle flow goes on")
	}
	close(s.say)
	<-s.over
}

func (f *flow) halfClosedSeen() *time.Timer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.idle
}

// only returns the one flow.
func (l *lab) only(t *testing.T) *flow {
	t.Helper()
	l.Gateway.mu.Lock()
	defer l.Gateway.mu.Unlock()
	for f := range l.flows {
		return f
	}
	t.Fatal("no flow")
	return nil
}

// lossyRequest is a guestRequest whose connection can be reset, as the network stack
// finds it when the guest is gone.
type lossyRequest struct {
	guestRequest
	conn *lossyConn
}

func (r *lossyRequest) Accept() (net.Conn, error) {
	c, outer, err := socketPair()
	if err != nil {
		return nil, err
	}
	r.conn = &lossyConn{TCPConn: c.(*net.TCPConn)}
	r.accepted <- outer
	return r.conn, nil
}

type lossyConn struct {
	*net.TCPConn
	mu sync.Mutex
	f  func()
}

func (c *lossyConn) OnReset(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.f = f
}

func (c *lossyConn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	go c.f()
}
