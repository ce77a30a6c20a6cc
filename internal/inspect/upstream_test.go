package inspect

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/proc/proctest"
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

// TestAttackServersThatAGuestVouchesFor: the environment names certificates in a directory that a guest writes. No server
// is reached by them, and the person is told why.
func TestAttackServersThatAGuestVouchesFor(t *testing.T) {
	shared := t.TempDir()
	proctest.Share(t, shared)
	t.Setenv("SSL_CERT_DIR", shared)
	dials, told := 0, ""
	u := &upstream{times: times{handshake: handshakeTime}, t: Target{
		Name: hostName, Dial: func() (net.Conn, error) { dials++; return nil, net.ErrClosed }, Fault: func(reason string) { told = reason },
	}}
	if _, err := u.dial(t.Context(), nil); err == nil || dials != 0 || !strings.Contains(told, "SSL_CERT_DIR") {
		t.Errorf("%d dials, %q, %v", dials, told, err)
	}
	u.roots = x509.NewCertPool()
	if _, err := u.dial(t.Context(), nil); err == nil || dials != 1 {
		t.Errorf("with authorities of its own: %d dials, %v", dials, err)
	}
}
