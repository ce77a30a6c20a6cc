package relay

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// stuck is a connection whose writes wait for its owner's end, whatever is closed, as those of
// a yamux stream whose other side does not read.
type stuck struct {
	net.Conn // reads wait for the deadline
	tasks    sync.WaitGroup
	writing  chan struct{}
	ended    chan struct{}
}

func (s *stuck) Write([]byte) (int, error) {
	close(s.writing)
	<-s.ended
	return 0, net.ErrClosed
}

func (s *stuck) Close() error { return nil }

func (s *stuck) Go(f func()) bool { s.tasks.Go(f); return true }

// newStuck returns one, whose owner ends with the test.
func newStuck(t *testing.T) *stuck {
	t.Helper()
	conn, other := net.Pipe()
	s := &stuck{Conn: conn, writing: make(chan struct{}), ended: make(chan struct{})}
	t.Cleanup(func() {
		close(s.ended)
		s.tasks.Wait()
		conn.Close()
		other.Close()
	})
	return s
}

// unixPair returns the two ends of a connection over a Unix socket.
func unixPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// TestUntilEndsWithItsContext: also while the other side takes nothing and ends no call.
func TestUntilEndsWithItsContext(t *testing.T) {
	client, in := pair(t)
	s := newStuck(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); Until(ctx, in, s) }()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	<-s.writing
	cancel()
	<-done
	if _, err := io.ReadAll(client); err != nil {
		t.Errorf("the connection is not closed in order: %v", err)
	}
}

// TestUntilEndsWithAClientThatHasGone: it was killed while the other side took nothing, so that
// nobody reads its end.
func TestUntilEndsWithAClientThatHasGone(t *testing.T) {
	was := brokenPoll
	brokenPoll = time.Millisecond
	t.Cleanup(func() { brokenPoll = was })
	for name, pair := range map[string]func(*testing.T) (client, in net.Conn){
		"unix": unixPair,
		"a TCP connection that is reset": func(t *testing.T) (net.Conn, net.Conn) {
			client, in := pair(t)
			if err := client.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			return client, in
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, in := pair(t)
			s := newStuck(t)
			done := make(chan struct{})
			go func() { defer close(done); Until(context.Background(), in, s) }()
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			<-s.writing
			client.Close()
			<-done
		})
	}
}

// TestUntilPassesOnEachEnd: a client that ended only what it sends gets the answer.
func TestUntilPassesOnEachEnd(t *testing.T) {
	was := brokenPoll
	brokenPoll = time.Millisecond
	t.Cleanup(func() { brokenPoll = was })
	client, in := pair(t)
	out, server := pair(t)
	done := make(chan struct{})
	go func() { defer close(done); Until(context.Background(), in, out) }()
	send(t, client, "request")
	if got := receive(t, server); got != "request" {
		t.Fatalf("the server got %q", got)
	}
	for range 4 * brokenLooks { // of the watch: it looks while the client waits
		time.Sleep(brokenPoll)
	}
	send(t, server, "answer")
	if got := receive(t, client); got != "answer" {
		t.Fatalf("the client got %q", got)
	}
	<-done
}
