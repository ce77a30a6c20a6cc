package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/agent/agenttest"
	"bawn.dev/bawn/internal/wire"
)

func TestAgentCall(t *testing.T) {
	a, g := agenttest.New(t)
	go func() {
		r := g.Request(t)
		g.Say(`{"id":99,"error":"nobody asked"}`)
		b, _ := json.Marshal(wire.Reply{ID: r.ID, Body: json.RawMessage(`{"version":"v"}`)})
		g.Say(string(b))
	}()
	var hello wire.HelloReply
	if err := a.Call(context.Background(), wire.OpHello, struct{}{}, &hello); err != nil || hello.Version != "v" {
		t.Fatalf("got %+v, %v", hello, err)
	}
}

func TestAgentErrorIsShownHarmlessly(t *testing.T) {
	a, g := agenttest.New(t)
	go func() {
		r := g.Request(t)
		b, _ := json.Marshal(wire.Reply{ID: r.ID, Error: "no \x1b[2J disk" + strings.Repeat("x", 1<<19)})
		g.Say(string(b))
	}()
	err := a.Call(context.Background(), wire.OpSetup, nil, nil)
	if err == nil || strings.ContainsRune(err.Error(), 0x1b) || len(err.Error()) > 4096 {
		t.Fatalf("got %.100q", err)
	}
}

func TestHostileControlPortEndsCalls(t *testing.T) {
	for name, bytes := range map[string]string{
		"garbage":   "\x00\xff\n",
		"endless":   strings.Repeat("a", wire.MaxLine+1),
		"truncated": `{"id":1,"err` + "\n",
		"wrong":     `{"id":"one"}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			a, g := agenttest.New(t)
			go func() {
				g.Request(t)
				_, _ = io.WriteString(g.Control, bytes)
				go func() { _, _ = io.Copy(io.Discard, g.Control) }()
			}()
			if err := a.Call(context.Background(), wire.OpHello, nil, nil); err == nil {
				t.Fatal("the call succeeded")
			}
			if err := a.Call(context.Background(), wire.OpHello, nil, nil); err == nil {
				t.Fatal("a call after it succeeded")
			}
		})
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	a, g := agenttest.New(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { g.Request(t); cancel() }()
	if err := a.Call(ctx, wire.OpHello, nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestMuxSkipsStaleBytes(t *testing.T) {
	a, g := agenttest.New(t)
	go func() {
		r := g.Request(t)
		var m wire.MuxRequest
		_ = json.Unmarshal(r.Body, &m)
		b, _ := json.Marshal(wire.Reply{ID: r.ID})
		g.Say(string(b))
		got := make([]byte, len(m.Nonce))
		_, _ = io.ReadFull(g.Mux, got)
		if !bytes.Equal(got, m.Nonce) {
			t.Error("the host did not begin with its nonce")
		}
		_, _ = g.Mux.Write(append([]byte("stale frames"), m.Nonce[:7]...))
		_, _ = g.Mux.Write(m.Nonce)
		s, err := yamux.Server(g.Mux, yamux.DefaultConfig())
		if err != nil {
			t.Error(err)
			return
		}
		st, err := s.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(st).ReadBytes('\n')
		_, _ = st.Write([]byte(`{"error":"refused: ` + string(line[:5]) + "\"}\n"))
	}()
	if err := a.StartMux(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.DialTCP(context.Background(), 80); err == nil {
		t.Fatal("a malformed stream reply was taken")
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte(`{"id":1,"body":{"version":"x"}}` + "\n"))
	f.Add([]byte("{}\n{\"id\":1,\"error\":\"\\u001b\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, g := agenttest.New(t)
		go func() {
			g.Request(t)
			_, _ = g.Control.Write(b)
			g.Control.Close()
		}()
		var hello wire.HelloReply
		_ = a.Call(context.Background(), wire.OpHello, nil, &hello)
	})
}

// TestAGuestThatDoesNotReadHoldsNoCall: a call that cannot be sent ends with its context,
// and so does one that waits for its turn behind it. When the guest reads again, the line
// that was cut off is completed, and later calls succeed.
func TestAGuestThatDoesNotReadHoldsNoCall(t *testing.T) {
	a, g := agenttest.New(t)
	stuck, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- a.Call(stuck, wire.OpTime, "the first", nil) }()
	begun := make([]byte, 5)
	if _, err := io.ReadFull(g.Control, begun); err != nil { // from here on the guest hangs
		t.Fatal(err)
	}
	behind, cancelBehind := context.WithCancel(t.Context())
	second := make(chan error, 1)
	go func() { second <- a.Call(behind, wire.OpTime, "the second", nil) }()
	cancelBehind()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}

	done := make(chan error, 1)
	go func() { done <- a.Call(t.Context(), wire.OpTime, "the third", nil) }()
	in := bufio.NewScanner(io.MultiReader(bytes.NewReader(begun), g.Control))
	for _, want := range []string{`"the first"`, `"the third"`} {
		var r wire.Request
		if !in.Scan() {
			t.Fatal("the host sent nothing")
		}
		if err := json.Unmarshal(in.Bytes(), &r); err != nil || string(r.Body) != want {
			t.Fatalf("%q, %v, want %s", in.Bytes(), err, want)
		}
		if want == `"the third"` {
			g.Done(r)
		}
	}
	if err := <-done; err != nil {
		t.Errorf("the third: %v", err)
	}
}

// session lets the guest take part in a mux session, and hands its streams to serve.
func session(t *testing.T, a *agent.Client, g *agenttest.Guest, serve func(*yamux.Stream)) {
	t.Helper()
	now := make(chan struct{})
	close(now)
	sessionFrom(t, a, g, now, serve)
}

// sessionFrom is session, in which the guest accepts streams when the channel is closed.
func sessionFrom(t *testing.T, a *agent.Client, g *agenttest.Guest, accept <-chan struct{}, serve func(*yamux.Stream)) {
	t.Helper()
	go func() {
		r := g.Request(t)
		var m wire.MuxRequest
		_ = json.Unmarshal(r.Body, &m)
		g.Done(r)
		_, _ = io.ReadFull(g.Mux, make([]byte, len(m.Nonce)))
		_, _ = g.Mux.Write(m.Nonce)
		s, err := yamux.Server(g.Mux, yamux.DefaultConfig())
		if err != nil {
			t.Error(err)
			return
		}
		<-accept
		for {
			st, err := s.AcceptStream()
			if err != nil {
				return
			}
			go serve(st)
		}
	}()
	if err := a.StartMux(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestDialEndsWithItsContext: of a guest that takes the stream and never answers.
func TestDialEndsWithItsContext(t *testing.T) {
	a, g := agenttest.New(t)
	taken := make(chan struct{})
	session(t, a, g, func(*yamux.Stream) { close(taken) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-taken; cancel() }()
	if _, err := a.DialTCP(ctx, 80); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestCloseEndsEverything: a call, a dial and a stream that is being opened, and every
// goroutine of the client.
func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	a, g := agenttest.New(t)
	taken := make(chan struct{}, 2)
	session(t, a, g, func(*yamux.Stream) { taken <- struct{}{} })
	ends := make(chan error, 3)
	go func() { ends <- a.Call(context.Background(), wire.OpHello, nil, nil) }()
	g.Request(t)
	go func() { _, err := a.DialTCP(context.Background(), 80); ends <- err }()
	<-taken
	a.Close()
	for range 2 {
		if err := <-ends; err == nil {
			t.Error("it succeeded")
		}
	}
	if _, err := a.Open(context.Background(), wire.StreamHeader{Kind: wire.StreamSSH}); err == nil {
		t.Error("a stream opened after Close")
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
		runtime.Gosched()
	}
}

// TestStreamsThatTheGuestDoesNotAcceptHoldNoOther: also those that end before the guest has
// accepted them, which yamux never acknowledges.
func TestStreamsThatTheGuestDoesNotAcceptHoldNoOther(t *testing.T) {
	a, g := agenttest.New(t)
	accept := make(chan struct{})
	served := make(chan struct{}, 3)
	sessionFrom(t, a, g, accept, func(*yamux.Stream) { served <- struct{}{} }) // and never ends it
	for range 3 {
		s, err := a.Open(t.Context(), wire.StreamHeader{Kind: wire.StreamSSH})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	close(accept)
	for range 3 {
		<-served
	}
}

// TestOpenWhileItCloses: a stream opens before Close or not at all (the race detector sees a
// task that starts while Close waits for the last).
func TestOpenWhileItCloses(t *testing.T) {
	for range 50 {
		a, _ := agenttest.New(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := a.Open(context.Background(), wire.StreamHeader{Kind: wire.StreamSSH}); errors.Is(err, net.ErrClosed) {
					return
				}
			}
		}()
		a.Close()
		<-done
	}
}
