package egress

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/secret"
)

// TestAttackSecretHostByItsAddress: a rule for addresses is no way around what is refused at the name of a host with a secret.
func TestAttackSecretHostByItsAddress(t *testing.T) {
	plain, server := newRequestServer(t, false), newCounter(t, true, nil)
	theirs := &secrets{list: []secret.Bound{{
		Secret: secret.Secret{Name: "EXAMPLE_KEY", For: []secret.Host{{Name: "shop.test", Port: 443}}}, Placeholder: testStandIn,
	}}}
	l, authority := newInspectedLab(t, theirs, server, nil)
	l.SetPolicy(rulesFrom(t, "allow **", "allow 203.0.113.0/24"))
	l.serve("", "203.0.113.8:80", plain.addr())
	l.serve("", "203.0.113.8:443", server.addr())
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("203.0.113.8"), port) }

	t.Run("in the clear", func(t *testing.T) {
		for _, host := range []string{"shop.test", "SHOP.test.", "shop.test:80"} {
			c, err := l.dialAddr(at(80))
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			if got := send(t, c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nAuthorization: Bearer of-the-attacker\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
				t.Errorf("%s: %.200s", host, got)
			}
		}
		if got := plain.seen(); got != "" {
			t.Errorf("the server got %q", got)
		}
		c, err := l.dialAddr(at(80))
		if err != nil {
			t.Fatal(err)
		}
		if got := send(t, c, "GET / HTTP/1.1\r\nHost: other.test\r\nAuthorization: Bearer own\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 202") {
			t.Errorf("another host at the address: %.200s", got)
		}
	})
	t.Run("over HTTP/2 in the clear", func(t *testing.T) {
		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		client := l.client()
		client.Transport.(*http.Transport).Protocols = &h2c
		r, err := http.NewRequestWithContext(t.Context(), "GET", "http://203.0.113.8/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "shop.test"
		r.Header.Set("Authorization", "Bearer of-the-attacker")
		if res, err := client.Do(r); err == nil {
			if res.Body.Close(); res.StatusCode != http.StatusForbidden {
				t.Error(res.Status)
			}
		}
		if got := plain.seen(); strings.Contains(got, "attacker") {
			t.Errorf("the server got %q", got)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		for _, name := range []string{"shop.test", "shop.testx"} {
			c, err := l.dialAddr(at(443))
			if err != nil {
				t.Fatal(err)
			}
			c = &renamed{c, "shop.testx", "shop.test."} // crypto/tls sends no final dot
			err = tls.Client(c, &tls.Config{ServerName: name, RootCAs: authority}).HandshakeContext(t.Context())
			if err == nil || server.conns.Load() != 0 {
				t.Errorf("%s: %v, %d connections", name, err, server.conns.Load())
			}
		}
	})
}

// renamed is a connection that writes another text in place of one of the same length.
type renamed struct {
	net.Conn
	from, to string
}

func (r *renamed) Write(b []byte) (int, error) {
	return r.Conn.Write(bytes.ReplaceAll(b, []byte(r.from), []byte(r.to)))
}
