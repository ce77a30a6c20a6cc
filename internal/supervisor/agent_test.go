package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/wire"
)

// fakeGuest is the guest's end of the two ports, played by the test.
type fakeGuest struct {
	control, mux net.Conn
	in           *bufio.Scanner
}

func pair(t *testing.T) (*agent, *fakeGuest) {
	t.Helper()
	c1, c2 := net.Pipe()
	m1, m2 := net.Pipe()
	g := &fakeGuest{control: c2, mux: m2, in: bufio.NewScanner(c2)}
	g.in.Buffer(nil, wire.MaxLine)
	t.Cleanup(func() {
		for _, c := range []net.Conn{c1, c2, m1, m2} {
			c.Close()
		}
	})
	return newAgent(c1, m1, slog.New(slog.DiscardHandler)), g
}

func (g *fakeGuest) request(t *testing.T) wire.Request {
	t.Helper()
	var r wire.Request
	if !g.in.Scan() {
		t.Error("the host sent nothing")
	}
	if err := json.Unmarshal(g.in.Bytes(), &r); err != nil {
		t.Error(err)
	}
	return r
}

func (g *fakeGuest) say(s string) { _, _ = io.WriteString(g.control, s+"\n") }

func TestAgentCall(t *testing.T) {
	a, g := pair(t)
	go func() {
		r := g.request(t)
		g.say(`{"id":99,"error":"nobody asked"}`)
		b, _ := json.Marshal(wire.Reply{ID: r.ID, Body: json.RawMessage(`{"version":"v"}`)})
		g.say(string(b))
	}()
	var hello wire.HelloReply
	if err := a.call(context.Background(), wire.OpHello, struct{}{}, &hello); err != nil || hello.Version != "v" {
		t.Fatalf("got %+v, %v", hello, err)
	}
}

func TestAgentErrorIsShownHarmlessly(t *testing.T) {
	a, g := pair(t)
	go func() {
		r := g.request(t)
		b, _ := json.Marshal(wire.Reply{ID: r.ID, Error: "no \x1b[2J disk" + strings.Repeat("x", 1<<19)})
		g.say(string(b))
	}()
	err := a.call(context.Background(), wire.OpSetup, nil, nil)
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
			a, g := pair(t)
			go func() {
				g.request(t)
				_, _ = io.WriteString(g.control, bytes)
				go func() { _, _ = io.Copy(io.Discard, g.control) }()
			}()
			if err := a.call(context.Background(), wire.OpHello, nil, nil); err == nil {
				t.Fatal("the call succeeded")
			}
			if err := a.call(context.Background(), wire.OpHello, nil, nil); err == nil {
				t.Fatal("a call after it succeeded")
			}
		})
	}
}

func TestCallEndsWithItsContext(t *testing.T) {
	a, g := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { g.request(t); cancel() }()
	if err := a.call(ctx, wire.OpHello, nil, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestMuxSkipsStaleBytes(t *testing.T) {
	a, g := pair(t)
	go func() {
		r := g.request(t)
		var m wire.MuxRequest
		_ = json.Unmarshal(r.Body, &m)
		b, _ := json.Marshal(wire.Reply{ID: r.ID})
		g.say(string(b))
		got := make([]byte, len(m.Nonce))
		_, _ = io.ReadFull(g.mux, got)
		if !bytes.Equal(got, m.Nonce) {
			t.Error("the host did not begin with its nonce")
		}
		_, _ = g.mux.Write(append([]byte("stale frames"), m.Nonce[:7]...))
		_, _ = g.mux.Write(m.Nonce)
		s, err := yamux.Server(g.mux, yamux.DefaultConfig())
		if err != nil {
			t.Error(err)
			return
		}
		st, err := s.Accept()
		if err != nil {
			return
		}
		line, _ := readLine(st)
		_, _ = st.Write([]byte(`{"error":"refused: ` + string(line[:5]) + "\"}\n"))
	}()
	if err := a.startMux(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.dialTCP(80); err == nil {
		t.Fatal("a malformed stream reply was taken")
	}
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte(`{"id":1,"body":{"version":"x"}}` + "\n"))
	f.Add([]byte("{}\n{\"id\":1,\"error\":\"\\u001b\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, g := pair(t)
		go func() {
			g.in.Scan()
			_, _ = g.control.Write(b)
			g.control.Close()
		}()
		var hello wire.HelloReply
		_ = a.call(context.Background(), wire.OpHello, nil, &hello)
	})
}
