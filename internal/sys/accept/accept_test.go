package accept_test

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"bawn.dev/bawn/internal/sys/accept"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func connect(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestCloseEndsAll: connections that are served, one that waits for its turn, and the
// listener.
func TestCloseEndsAll(t *testing.T) {
	g, l := accept.NewGroup(), listen(t)
	var running atomic.Int64
	began := make(chan struct{}, 2)
	g.Serve(l, 2, func(ctx context.Context, c net.Conn) {
		running.Add(1)
		defer running.Add(-1)
		began <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
		<-ctx.Done()
	})
	var clients []net.Conn
	for range 3 {
		clients = append(clients, connect(t, l))
	}
	<-began
	<-began
	if n := running.Load(); n != 2 {
		t.Errorf("%d are served at once, want 2", n)
	}
	g.Close()
	if n := running.Load(); n != 0 {
		t.Errorf("%d are still served", n)
	}
	for _, c := range clients {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection is open")
		}
	}
	if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Error("the listener is open")
	}
	g.Serve(listen(t), 1, func(context.Context, net.Conn) { t.Error("served after Close") })
	g.Close()
}

// TestAClosedListenerEndsNoConnection: those that it accepted go on.
func TestAClosedListenerEndsNoConnection(t *testing.T) {
	g, l := accept.NewGroup(), listen(t)
	defer g.Close()
	g.Serve(l, 2, func(_ context.Context, c net.Conn) { _, _ = io.Copy(c, c) })
	c := connect(t, l)
	echo := func() {
		t.Helper()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	echo()
	l.Close()
	echo()
}
