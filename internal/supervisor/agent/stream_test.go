package agent_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/supervisor/agent/agenttest"
	"bawn.dev/bawn/internal/sys/relay"
	"bawn.dev/bawn/internal/wire"
)

// readFrame reads a frame of the host's, and returns its stream.
func readFrame(t *testing.T, g *agenttest.Guest) (stream uint32) {
	t.Helper()
	h := make([]byte, 12)
	if _, err := io.ReadFull(g.Mux, h); err != nil {
		t.Fatal(err)
	}
	if h[1] == data {
		if _, err := io.ReadFull(g.Mux, make([]byte, binary.BigEndian.Uint32(h[8:]))); err != nil {
			t.Fatal(err)
		}
	}
	return binary.BigEndian.Uint32(h[4:])
}

// TestAGuestThatReadsNoMoreHoldsNoDial: it refuses a connection, and then reads the mux port no
// more, so that the host's end of the stream cannot be sent.
func TestAGuestThatReadsNoMoreHoldsNoDial(t *testing.T) {
	a, g := agenttest.New(t)
	begin(t, a, g)
	ended := make(chan error, 1)
	go func() { _, err := a.DialTCP(t.Context(), 80); ended <- err }()
	id := readFrame(t, g) // the opening
	readFrame(t, g)       // and its header
	const refusal = `{"error":"refused"}` + "\n"
	if _, err := g.Mux.Write(append(frame(data, ack, id, uint32(len(refusal))), refusal...)); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
}

// TestAGuestThatReadsNoMoreHoldsNoRelay: a client's bytes are on their way to it when the
// sandbox ends, or its SSH socket is closed.
func TestAGuestThatReadsNoMoreHoldsNoRelay(t *testing.T) {
	a, g := agenttest.New(t)
	begin(t, a, g)
	opened := make(chan net.Conn, 1)
	go func() {
		s, err := a.Open(t.Context(), wire.StreamHeader{Kind: wire.StreamSSH})
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	readFrame(t, g)
	readFrame(t, g)
	s := <-opened
	client, in := net.Pipe()
	defer client.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); relay.Until(ctx, in, s) }()
	if _, err := client.Write([]byte("x")); err != nil { // the relay has it, and cannot pass it on
		t.Fatal(err)
	}
	cancel()
	<-ended
}

// TestPortsTakeNoStreamsOfSessions: a guest's page opens connections to a published port, and the
// guest ends none.
func TestPortsTakeNoStreamsOfSessions(t *testing.T) {
	a, g := agenttest.New(t)
	session(t, a, g, func(s *yamux.Stream) {
		_, _ = s.Write([]byte("{}\n"))
		_, _ = io.Copy(io.Discard, s)
	})
	var refused error
	for range 2000 {
		c, err := a.DialTCP(t.Context(), 80)
		if err != nil {
			refused = err
			break
		}
		c.Close()
	}
	if refused == nil {
		t.Error("2000 connections are open")
	}
	s, err := a.Open(t.Context(), wire.StreamHeader{Kind: wire.StreamSSH})
	if err != nil {
		t.Fatalf("no session: %v", err)
	}
	s.Close()
}
