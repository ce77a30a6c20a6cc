package guest

import (
	"context"
	"encoding/json"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// portOf returns the number of a listener's port.
func portOf(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

func listenTCP(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Skipf("cannot listen on %s: %v", address, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestPortWatchReportsRealListeners, on a stream, when they come and go.
func TestPortWatchReportsRealListeners(t *testing.T) {
	l := listenTCP(t, "tcp4", "127.0.0.1:0")
	other := listenTCP(t, "tcp", ":0")
	ports := []uint16{portOf(l), portOf(other)}
	host, guest := net.Pipe()
	ended := make(chan struct{})
	go func() { defer close(ended); portWatch{proc: "/proc", dial: probeLoopback}.serve(guest, ports) }()
	reports := json.NewDecoder(host)
	want := func(open ...uint16) {
		t.Helper()
		var r wire.PortsReply
		if err := reports.Decode(&r); err != nil || !slices.Equal(r.Open, open) {
			t.Fatalf("%v, %v; want %v", r.Open, err, open)
		}
	}
	want(ports...)
	l.Close()
	want(ports[1])
	other.Close()
	want()
	again, err := net.Listen("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	want(ports[0])
	host.Close()
	<-ended
}

// TestPortWatchFindsListeners that dialLoopback reaches, and no others.
func TestPortWatchFindsListeners(t *testing.T) {
	for _, c := range []struct {
		network, address string
		want             bool
	}{
		{"tcp4", "127.0.0.1:0", true},
		{"tcp4", "0.0.0.0:0", true},
		{"tcp6", "[::1]:0", true},
		{"tcp", ":0", true},
		{"tcp4", "127.0.0.2:0", false},
	} {
		l := listenTCP(t, c.network, c.address)
		if got := (portWatch{proc: "/proc"}).listening()[portOf(l)]; got != c.want {
			t.Errorf("%s %s: %v", c.network, c.address, got)
		}
	}
}

// TestPortWatchSeesForwardedPorts: those that no socket listens on and that are connected
// all the same count as open, and are not dialled at each look.
func TestPortWatchSeesForwardedPorts(t *testing.T) {
	dials := 0
	w := portWatch{proc: t.TempDir(), dial: func(port uint16) (net.Conn, error) {
		dials++
		if port == 1 {
			return nil, syscall.ECONNREFUSED
		}
		c, _ := net.Pipe()
		return c, nil
	}}
	forwarded := map[uint16]time.Time{}
	for range 3 {
		if got := w.open([]uint16{1, 2}, forwarded); !slices.Equal(got, []uint16{2}) {
			t.Errorf("open: %v", got)
		}
	}
	if dials != 4 {
		t.Errorf("%d connections, want one to port 2 and three tries of port 1", dials)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.watch(ctx, []uint16{2}, func(open []uint16) error { cancel(); return nil })
}

// TestPortWatchIsSeldomInACalmGuest, and often as soon as a process is born there.
func TestPortWatchIsSeldomInACalmGuest(t *testing.T) {
	var p pace
	now := time.Unix(1000, 0)
	looks := func(d time.Duration, born string) (n int) {
		for end := now.Add(d); now.Before(end); now = now.Add(p.pause(now)) {
			if p.due(now, born) {
				n++
			}
		}
		return n
	}
	if n := looks(portsCalm, "7"); n != int(portsCalm/portsOften) {
		t.Errorf("%d looks after the start", n)
	}
	if n := looks(time.Minute, "7"); n > int(time.Minute/portsSeldom)+1 || n < 25 {
		t.Errorf("%d looks in a minute without a birth", n)
	}
	if n := looks(portsCalm, "8"); n != int(portsCalm/portsOften) {
		t.Errorf("%d looks after a birth", n)
	}
}
