package share

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/socketpair"
)

// newControlTest makes a Control and the connection of a stand-in for its server.
func newControlTest(t *testing.T) (*Control, *net.UnixConn) {
	t.Helper()
	c, file, err := NewControl()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	server, err := socketpair.Conn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return c, server
}

// tooLong ends a test whose order was not given up.
const tooLong = time.Minute

// inTime returns what f returns, which must be soon.
func inTime(t *testing.T, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(tooLong):
		t.Fatal("the order was not given up")
		return nil
	}
}

// TestOrdersToASilentServerAreGivenUp: a server that reads nothing and answers nothing
// holds nobody up, whatever the order, and also when the order does not fit into the
// socket's buffer.
func TestOrdersToASilentServerAreGivenUp(t *testing.T) {
	large, err := json.Marshal(strings.Repeat("x", 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	orders := map[string]func(context.Context, *Control) error{
		"save": func(ctx context.Context, c *Control) error { _, err := c.Save(ctx); return err },
		"load": func(ctx context.Context, c *Control) error { return c.Load(ctx, large, false) },
		"serve": func(ctx context.Context, c *Control) error {
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer w.Close()
			return c.Serve(ctx, r)
		},
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			c, _ := newControlTest(t)
			cause := errors.New("the person has gone")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
			defer cancel()
			if err := inTime(t, func() error { return order(ctx, c) }); !errors.Is(err, cause) {
				t.Errorf("the order ended with %v, want %v", err, cause)
			}
			if err := inTime(t, func() error { return order(t.Context(), c) }); !errors.Is(err, ErrNoAnswer) {
				t.Errorf("the next order ended with %v, want %v", err, ErrNoAnswer)
			}
		})
	}
}

// TestOrderHasALimit: also a caller without a deadline gets an answer or an error.
func TestOrderHasALimit(t *testing.T) {
	c, _ := newControlTest(t)
	err := inTime(t, func() error {
		_, err := c.ask(t.Context(), 50*time.Millisecond, order{Verb: verbSave}, nil)
		return err
	})
	if !errors.Is(err, ErrNoAnswer) {
		t.Errorf("the order ended with %v, want %v", err, ErrNoAnswer)
	}
}

// TestEndedContextSendsNothing: an order whose context has ended already leaves the
// connection as it was.
func TestEndedContextSendsNothing(t *testing.T) {
	c, server := newControlTest(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Save(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("the order ended with %v, want %v", err, context.Canceled)
	}
	go func() {
		var o order
		if _, err := receive(server, &o); err != nil || o.Verb != verbSave {
			return
		}
		_ = send(server, answer{State: json.RawMessage(`{"next":7}`)}, nil)
	}()
	var state json.RawMessage
	err := inTime(t, func() (err error) { state, err = c.Save(t.Context()); return err })
	if err != nil || string(state) != `{"next":7}` {
		t.Errorf("got %s, %v", state, err)
	}
}

// TestErrorTextIsClean: a server's error is one line without control characters, and the
// connection stays usable.
func TestErrorTextIsClean(t *testing.T) {
	c, server := newControlTest(t)
	go func() {
		for _, a := range []answer{{Error: "bad\x1b[2J\nnews"}, {State: json.RawMessage(`{}`)}} {
			var o order
			if _, err := receive(server, &o); err != nil {
				return
			}
			_ = send(server, a, nil)
		}
	}()
	if _, err := c.Save(t.Context()); err == nil || strings.ContainsAny(err.Error(), "\x1b\n") || !strings.HasPrefix(err.Error(), "bad") {
		t.Errorf("got %q", err)
	}
	if state, err := c.Save(t.Context()); err != nil || string(state) != "{}" {
		t.Errorf("the next order: %s, %v", state, err)
	}
}

// TestOrders: what a server is asked it does, and what it refuses the caller learns,
// after which the next order works.
func TestOrders(t *testing.T) {
	c, server := newControlTest(t)
	p := newPrepared(newTest(t, Options{}))
	next := make(chan *os.File, 1)
	go p.serveOrders(server, next)
	if err := c.Load(t.Context(), json.RawMessage(`{"nodes":[]}`), false); err == nil {
		t.Error("a state without a root was loaded")
	}
	state, err := c.Save(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(t.Context(), state, false); err != nil {
		t.Error(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var want unix.Stat_t
	if err := unix.Fstat(int(r.Fd()), &want); err != nil {
		t.Fatal(err)
	}
	if err := c.Serve(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	f := <-next
	defer f.Close()
	var got unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &got); err != nil || got.Ino != want.Ino {
		t.Errorf("the server got inode %d, %v; want %d", got.Ino, err, want.Ino)
	}
	c.Close()
	if f, ok := <-next; ok {
		t.Errorf("after the supervisor has gone: %v", f)
	}
}
