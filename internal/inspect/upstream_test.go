package inspect

import (
	"errors"
	"io"
	"net"
	"testing"
)

// TestServersConnectionsEndWithTheClients: those that no request uses, too, and those that are dialled when the
// client has gone.
func TestServersConnectionsEndWithTheClients(t *testing.T) {
	var servers []net.Conn
	u := &upstream{times: times{handshake: handshakeTime}, t: Target{Name: hostName, Dial: func() (net.Conn, error) {
		ours, server := net.Pipe()
		servers = append(servers, server)
		return ours, nil
	}}}
	kept, _ := u.t.Dial()
	if !u.keep(kept) {
		t.Fatal("a connection is not kept")
	}
	u.close()
	if _, err := u.dial(t.Context(), nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection for a client that has gone: %v", err)
	}
	for i, c := range servers {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("connection %d: %v", i, err)
		}
	}
}
