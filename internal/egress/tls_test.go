package egress

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/tlshello"
)

func TestTLS(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "bad.example:443", "raw.example:443 raw"})
	s := newCounter(t, true, nil)
	l.serve("good.example", "203.0.113.1:443", s.addr())
	l.serve("raw.example", "203.0.113.2:443", s.addr())
	if code, body := get(t, l.client(), "https://good.example/"); code != 200 || body != "hello good.example" {
		t.Fatal(code, body)
	}
	before := s.conns.Load()
	handshake := func(host string, cfg *tls.Config) error {
		cfg.InsecureSkipVerify = true
		c := l.mustDial(host, 443)
		defer c.Close()
		return tls.Client(c, cfg).Handshake()
	}
	for name, cfg := range map[string]*tls.Config{
		"another name": {ServerName: "bad.example"},
		"a name below": {ServerName: "x.good.example"},
		"no name":      {},
	} {
		var alertErr tls.AlertError
		err := handshake("good.example", cfg)
		if !errors.As(err, &alertErr) && (err == nil || !strings.Contains(err.Error(), "unrecognized name")) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := l.mustDial("good.example", 443)
	if got := send(t, c, string(handmadeHello("good.example", []byte{0xfe, 0x0d, 0, 1, 0}))); got != string(tlshello.Alert(tlshello.AlertUnrecognizedName)) {
		t.Errorf("ECH: %q", got)
	}
	c = l.mustDial("good.example", 443)
	if got := send(t, c, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") || strings.Contains(got, "policy allow") || !strings.Contains(got, "a rule with raw") {
		t.Errorf("plain HTTP, which a rule allows already: %q", got)
	}
	c = l.mustDial("good.example", 443)
	if got := send(t, c, "SSH-2.0-x\r\n"); got != "" {
		t.Errorf("SSH: %q", got)
	}
	if n := s.conns.Load(); n != before {
		t.Errorf("%d refused connections reached the server", n-before)
	}
	if err := handshake("raw.example", &tls.Config{ServerName: "anything.example"}); err != nil {
		t.Errorf("raw: %v", err)
	}
	if len(l.Denials()) < 4 {
		t.Errorf("denials: %+v", l.Denials())
	}
}

// handmadeHello is a ClientHello with a server name and other extensions.
func handmadeHello(name string, exts ...[]byte) []byte {
	n := len(name)
	all := append([]byte{0, 0, 0, byte(n + 5), 0, byte(n + 3), 0, 0, byte(n)}, name...)
	all = append(all, bytes.Join(exts, nil)...)
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0, byte(len(all)>>8), byte(len(all)))
	body = append(body, all...)
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

func TestTLSThrough(t *testing.T) {
	// Bytes both ways at once, then half-close, inside TLS that bawn only passes.
	l := newLab(t, testRules{"good.example:443"})
	s := newCounter(t, true, nil) // only for its certificate
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
			Certificates: s.TLS.Certificates, MaxVersion: version,
			CurvePreferences: []tls.CurveID{tls.CurveP384}, // asks the client again (HelloRetryRequest)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}()
		l.serve("good.example", "203.0.113.1:443", ln.Addr().String())
		c := tls.Client(l.mustDial("good.example", 443), &tls.Config{ServerName: "good.example", InsecureSkipVerify: true})
		const n = 3 << 20
		go func() {
			_, _ = io.CopyN(c, zero{}, n)
			_ = c.CloseWrite()
		}()
		if got, err := io.Copy(io.Discard, c); err != nil || got != n {
			t.Errorf("TLS %x: %d bytes, %v", version, got, err)
		}
		if !c.ConnectionState().HandshakeComplete || c.ConnectionState().Version != version {
			t.Errorf("version %x", c.ConnectionState().Version)
		}
	}
}
