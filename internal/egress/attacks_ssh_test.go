package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
)

// TestAttackSSHErrors: what the guest reads about a server of git that is not reached, or that ends the handshake, has
// nothing of the host's network.
func TestAttackSSHErrors(t *testing.T) {
	resets := tunneltest.Serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4))
		abort(c)
	})
	resolved, at := error(nil), ""
	g := newSSHLabOn(t, func(c *Config) {
		c.Resolve = func(context.Context, string) ([]netip.Addr, error) { return addrs("203.0.113.7"), resolved }
		c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			if at == "" {
				return nil, &net.OpError{Op: "dial", Net: network, Source: &net.TCPAddr{IP: net.IPv4(10, 1, 1, 1)}, Addr: &net.TCPAddr{IP: net.IPv4(203, 0, 113, 7)}, Err: fmt.Errorf("socket of 10.1.1.1")}
			}
			return new(net.Dialer).DialContext(ctx, network, at)
		}
	}, "allow git:example.com/own/app")
	for _, c := range []struct {
		name     string
		resolved error
		at, want string
	}{
		{"a resolver that fails", &net.DNSError{Err: "server misbehaving", Name: "example.com", Server: "10.9.8.7:53"}, "", "cannot be resolved"},
		{"no connection", nil, "", "the connection failed"},
		{"a reset", nil, resets, "reset by peer"},
	} {
		resolved, at = c.resolved, c.at
		out, err := g.git(t, "fetch", "origin")
		out, _, _ = strings.Cut(out, "fatal: ") // git's own words
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		for _, secret := range []string{"10.", "127.0", "203.", ":53", "lookup", "dial", "tcp"} {
			if strings.Contains(out, secret) {
				t.Errorf("%s: the guest reads %q: %q", c.name, secret, out)
			}
		}
		g.dialer.mu.Lock()
		g.dialer.cache = nil
		g.dialer.mu.Unlock()
	}
	g.Close()
	log := fmt.Sprintf("%+v", readAll(t, g.path)) // on the host, it has it all
	for _, want := range []string{"10.9.8.7:53", "10.1.1.1", "127.0.0.1"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: %s", want, log)
		}
	}
}
