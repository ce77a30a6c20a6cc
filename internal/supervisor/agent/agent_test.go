package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/yamux"

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
	if _, err := a.DialTCP(80); err == nil {
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
