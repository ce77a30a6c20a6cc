package relay

import (
	"errors"
	"io"
	"net"
	"testing"
)

// pair returns the two ends of a TCP connection over the loopback.
func pair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func TestBothPassesOnEachEnd(t *testing.T) {
	client, in := pair(t)
	out, server := pair(t)
	done := make(chan struct{})
	go func() { Both(in, out); close(done) }()

	send(t, client, "request")
	if got := receive(t, server); got != "request" {
		t.Fatalf("the server got %q", got)
	}
	// The client ended; the way back must still be open.
	send(t, server, "answer")
	if got := receive(t, client); got != "answer" {
		t.Fatalf("the client got %q", got)
	}
	<-done
}

func TestBothEndsWithABrokenSide(t *testing.T) {
	client, in := pair(t)
	out, server := pair(t)
	done := make(chan struct{})
	go func() { Both(in, out); close(done) }()
	if err := client.SetLinger(0); err != nil { // Close sends a reset
		t.Fatal(err)
	}
	client.Close()
	<-done // although the server sent no end
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("the server's connection is still open")
	}
}

func TestBothEndsWhenClosed(t *testing.T) {
	_, in := pair(t)
	out, _ := pair(t)
	done := make(chan struct{})
	go func() { Both(in, out); close(done) }()
	in.Close()
	<-done
}

type closer struct{ err error }

func (c closer) Close() error { return c.err }

func TestCloseWriteCloses(t *testing.T) {
	if err := CloseWrite(closer{net.ErrClosed}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}

func send(t *testing.T, c *net.TCPConn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
	if err := CloseWrite(c); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
