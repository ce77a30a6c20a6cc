// Package agenttest is a guest's side of the agent's two ports, played by a test.
package agenttest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"

	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/wire"
)

// Guest is the guest's end of both ports.
type Guest struct {
	Control, Mux net.Conn
	in           *bufio.Scanner
}

// New returns a client and the guest that it is connected to. Both end with the test.
func New(t *testing.T) (*agent.Client, *Guest) {
	t.Helper()
	return NewLogged(t, slog.New(slog.DiscardHandler))
}

// NewLogged is New with the client's log.
func NewLogged(t *testing.T, log *slog.Logger) (*agent.Client, *Guest) {
	t.Helper()
	c1, c2 := net.Pipe()
	m1, m2 := net.Pipe()
	g := &Guest{Control: c2, Mux: m2, in: bufio.NewScanner(c2)}
	g.in.Buffer(nil, wire.MaxLine)
	a := agent.New(c1, m1, log)
	t.Cleanup(func() {
		c2.Close()
		m2.Close()
		a.Close()
	})
	return a, g
}

// Request reads the client's next request.
func (g *Guest) Request(t *testing.T) wire.Request {
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

// Say sends one line.
func (g *Guest) Say(line string) { _, _ = io.WriteString(g.Control, line+"\n") }

// Done answers a request that has no reply but that it is done.
func (g *Guest) Done(r wire.Request) { g.Say(fmt.Sprintf(`{"id":%d}`, r.ID)) }
