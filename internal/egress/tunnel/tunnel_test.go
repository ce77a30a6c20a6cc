package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
	"bawn.dev/bawn/internal/sys/proc/proctest"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// echo answers with a greeting at once, then with what it got, upper case, after its end.
func echo(t *testing.T) string {
	return tunneltest.Serve(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "hello\n")
		b, _ := io.ReadAll(c)
		_, _ = io.WriteString(c, strings.ToUpper(string(b)))
	})
}

// the is the only proxy of the settings.
func the(t *testing.T, s *proxyenv.Settings) *proxyenv.Proxy {
	t.Helper()
	list := s.Proxies()
	if len(list) != 1 {
		t.Fatal(list)
	}
	return list[0]
}

// checkEcho sends over a connection, ends its half, and reads the answer.
func checkEcho(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	if _, err := io.WriteString(c, "some bytes"); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "hello\nSOME BYTES" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestConnect: through each kind of proxy to a name and to addresses, with a server that
// speaks first and halves that end one by one.
func TestConnect(t *testing.T) {
	for _, socks := range []bool{false, true} {
		for _, auth := range []bool{false, true} {
			for _, target := range []string{"server.test:22", "192.0.2.1:22", "[2001:db8::1]:22"} {
				t.Run(fmt.Sprintf("socks %v, auth %v, %s", socks, auth, target), func(t *testing.T) {
					p := tunneltest.New(t, socks, auth)
					p.Route(target, echo(t))
					c, err := new(Dialer).Connect(t.Context(), the(t, p.Settings(t, "")), target)
					if err != nil {
						t.Fatal(err)
					}
					checkEcho(t, c)
					if got := p.Targets(); len(got) != 1 || got[0] != target {
						t.Error(got)
					}
				})
			}
		}
	}
}

// TestServerSpeaksWithTheAnswer: bytes that come in one segment with the proxy's answer are
// the server's.
func TestServerSpeaksWithTheAnswer(t *testing.T) {
	addr := tunneltest.Serve(t, func(c net.Conn) {
		head := make([]byte, 10)
		_, _ = io.ReadFull(c, head)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhello\n")
		_, _ = io.Copy(io.Discard, c)
		_, _ = io.WriteString(c, "SOME BYTES")
	})
	c, err := new(Dialer).Connect(t.Context(), the(t, tunneltest.Settings(t, addr, "")), "server.test:22")
	if err != nil {
		t.Fatal(err)
	}
	checkEcho(t, c)
}

// TestProxyOverTLS: a proxy whose URL begins with https is verified, and gets the credentials
// inside TLS.
func TestProxyOverTLS(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	defer certificate.Close()
	roots := x509.NewCertPool()
	roots.AddCert(certificate.Certificate()) // for 127.0.0.1
	inner := tunneltest.New(t, false, true)
	inner.Route("server.test:22", echo(t))
	addr := tunneltest.Serve(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: certificate.TLS.Certificates})
		up, err := net.Dial("tcp", inner.Addr)
		if err != nil {
			return
		}
		defer up.Close()
		go func() { _, _ = io.Copy(s, up); _ = s.CloseWrite() }()
		_, _ = io.Copy(up, s)
		_ = up.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, s)
	})
	p := the(t, tunneltest.Settings(t, strings.Replace(inner.URL(), "http://", "https://", 1), ""))
	p.URL.Host = addr
	if _, err := new(Dialer).Connect(t.Context(), p, "server.test:22"); err == nil || len(inner.Targets()) > 0 {
		t.Errorf("a proxy with a certificate that nobody trusts: %v", err)
	}
	c, err := (&Dialer{Roots: roots}).Connect(t.Context(), p, "server.test:22")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b := make([]byte, 6); true {
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello\n" {
			t.Errorf("%q, %v", b, err)
		}
	}
}

// TestAttackAProxyThatAGuestBelieves: the environment names certificates in a directory that a guest writes. A proxy in
// TLS that they are for is not even reached.
func TestAttackAProxyThatAGuestBelieves(t *testing.T) {
	shared := t.TempDir()
	proctest.Share(t, shared)
	t.Setenv("SSL_CERT_FILE", filepath.Join(shared, "ca.pem"))
	if err := os.WriteFile(filepath.Join(shared, "ca.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dials := 0
	d := &Dialer{Dial: func(context.Context, string, string) (net.Conn, error) {
		dials++
		return nil, errors.New("dialled")
	}}
	for scheme, refused := range map[string]bool{"https": true, "http": false, "socks5": false} {
		dials = 0
		_, err := d.Connect(t.Context(), the(t, tunneltest.Settings(t, scheme+"://proxy.test", "")), "server.test:22")
		if err == nil || refused != strings.Contains(err.Error(), "a guest can write to") || refused != (dials == 0) {
			t.Errorf("%s: %d dials, %v", scheme, dials, err)
		}
	}
}

// TestErrorsDoNotQuoteTheCertificate: its names are text of the proxy.
func TestErrorsDoNotQuoteTheCertificate(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate()) // for example.com
	p := the(t, tunneltest.Settings(t, "https://proxy.test", ""))
	d := &Dialer{Roots: roots, Dial: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("tcp", server.Listener.Addr().String())
	}}
	if _, err := d.Connect(t.Context(), p, "server.test:22"); err == nil || !strings.Contains(err.Error(), "its certificate") || strings.Contains(err.Error(), "example.com") {
		t.Error(err)
	}
}

// says is a proxy that reads a little, says something and ends the connection.
func says(t *testing.T, text string) string {
	return tunneltest.Serve(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1<<10))
		_, _ = io.WriteString(c, text)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
}

// TestWhatProxiesAnswer: each answer is an error that says what is wrong, without the
// password and without the text of the answer.
func TestWhatProxiesAnswer(t *testing.T) {
	const user = "staff:hunter2@"
	long := "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", maxHead) + "\r\n\r\n"
	many := "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", maxHead/6+1) + "\r\n"
	for _, c := range []struct {
		name, scheme, user, answer string
		want                       string
		answered                   bool
	}{
		{"407 to no user", "http", "", "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=hunter2\r\n\r\n", "wants a user and a password", false},
		{"407 to a user", "http", user, "HTTP/1.1 407 No\r\nProxy-Authenticate: basic realm=x\r\n\r\n", "does not take the user and password", false},
		{"401 to a user", "http", user, "HTTP/1.1 401 Unauthorized\r\n\r\n", "does not take the user and password", false},
		{"407 for NTLM", "http", user, "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n", "it takes Negotiate, NTLM", false},
		{"502", "http", user, "HTTP/1.1 502 hunter2\r\n\r\nhunter2", "answered 502 Bad Gateway for server.test:22", true},
		{"403", "http", user, "HTTP/1.1 403 hunter2\r\n\r\n", "does not permit tunnels to server.test:22", true},
		{"a redirect", "http", user, "HTTP/1.1 302 Found\r\nLocation: http://hunter2.test/\r\n\r\n", "answered 302", false},
		{"half a head", "http", user, "HTTP/1.1 200 OK\r\nVia: hunter2", "ended the connection before its answer was whole", false},
		{"nothing", "http", user, "", "ended the connection before its answer was whole", false},
		{"no HTTP", "http", user, "SSH-2.0-hunter2\r\n\r\n", "its answer is not HTTP", false},
		{"a long header", "http", user, long, "is longer than 65536 bytes", false},
		{"many headers", "http", user, many, "is longer than 65536 bytes", false},
		{"SOCKS without a method", "socks5", "", "\x05\xff", "wants a user and a password", false},
		{"SOCKS refuses the user", "socks5", user, "\x05\x02\x01\x01", "does not take the user and password", false},
		{"SOCKS host unreachable", "socks5h", "", "\x05\x00\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00", "host unreachable", true},
		{"half a SOCKS answer", "socks5h", "", "\x05\x00\x05\x00", "ended the connection before its answer was whole", false},
		{"SOCKS 4", "socks5h", user, "\x04\x00", "unexpected protocol version 4", false},
		{"HTTP to SOCKS", "socks5h", user, "HTTP/1.1 400 Bad Request\r\n\r\n", "unexpected protocol version 72", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := the(t, tunneltest.Settings(t, c.scheme+"://"+c.user+says(t, c.answer), ""))
			conn, err := new(Dialer).Connect(t.Context(), p, "server.test:22")
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || e.Answered != c.answered || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, %v", conn, err)
			}
			if !strings.Contains(err.Error(), "ALL_PROXY") {
				t.Errorf("%v does not name the variable", err)
			}
			if err := new(Dialer).Probe(t.Context(), p); (err == nil) != c.answered {
				t.Errorf("probe: %v", err)
			}
		})
	}
}

// TestAProxyThatStalls is given up when the context ends, before and within its answer.
func TestAProxyThatStalls(t *testing.T) {
	for _, scheme := range []string{"http", "socks5", "https"} {
		for _, begin := range []string{"", "HTTP/1.1 200 OK\r\n", "\x05"} {
			ctx, cancel := context.WithCancel(t.Context())
			addr := tunneltest.Serve(t, func(c net.Conn) {
				_, _ = c.Read(make([]byte, 1))
				_, _ = io.WriteString(c, begin)
				cancel()
				_, _ = io.Copy(io.Discard, c) // until the client goes
			})
			p := the(t, tunneltest.Settings(t, scheme+"://"+addr, ""))
			if _, err := new(Dialer).Connect(ctx, p, "server.test:22"); err == nil {
				t.Errorf("%s %q: connected", scheme, begin)
			}
			cancel()
		}
	}
	addr := tunneltest.Serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	for _, scheme := range []string{"http", "socks5"} {
		// The connection is made before the time begins: on a busy machine that could be all of it.
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		d := &Dialer{Dial: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
		p := the(t, tunneltest.Settings(t, scheme+"://"+addr, ""))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = d.Connect(ctx, p, "server.test:22")
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not answer in time") {
			t.Error(err)
		}
	}
}

// TestNoProxyThere: the error names the proxy.
func TestNoProxyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := the(t, tunneltest.Settings(t, "http://staff:hunter2@"+l.Addr().String(), ""))
	if err := new(Dialer).Probe(t.Context(), p); err == nil || !strings.Contains(err.Error(), "is not reached") || strings.Contains(err.Error(), "hunter2") {
		t.Error(err)
	}
}
