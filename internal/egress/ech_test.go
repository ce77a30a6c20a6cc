package egress

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/egress/tlshello"
)

// echConfig makes an ECHConfigList of one key (RFC 9849, section 4), and the key.
func echConfig(t *testing.T, publicName string) (list []byte, key tls.EncryptedClientHelloKey) {
	t.Helper()
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	put := binary.BigEndian.AppendUint16
	body := put([]byte{7}, 0x0020) // id; DHKEM(X25519, HKDF-SHA256)
	body = append(put(body, 32), private.PublicKey().Bytes()...)
	body = put(put(put(body, 4), 1), 1) // HKDF-SHA256, AES-128-GCM
	body = append(body, 0, byte(len(publicName)))
	body = put(append(body, publicName...), 0)
	config := append(put(put(nil, 0xfe0d), uint16(len(body))), body...)
	return append(put(nil, uint16(len(config))), config...), tls.EncryptedClientHelloKey{Config: config, PrivateKey: private.Bytes(), SendAsRetry: true}
}

// TestECH: a ClientHello with Encrypted Client Hello passes by a rule with ech: and no
// other, and only with the server name in the clear that was dialled.
func TestECH(t *testing.T) {
	list, key := echConfig(t, "good.example")
	certificate := newCounter(t, true, nil).TLS.Certificates
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: certificate, EncryptedClientHelloKeys: []tls.EncryptedClientHelloKey{key},
		CurvePreferences: []tls.CurveID{tls.CurveP384}, // asks the client again: both its hellos are judged
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 8)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				close(accepted)
				return
			}
			accepted <- c
			go func() { _ = c.(*tls.Conn).Handshake() }()
		}
	}()
	handshake := func(l *lab, host string) (*tls.Conn, error) {
		dialled, err := l.dialName(host, 443)
		if a, bad := netip.ParseAddr(host); bad == nil {
			dialled, err = l.dialAddr(netip.AddrPortFrom(a, 443))
		}
		if err != nil {
			t.Fatal(host, err)
		}
		c := tls.Client(dialled, &tls.Config{
			ServerName: "inner.example", InsecureSkipVerify: true, EncryptedClientHelloConfigList: list, MinVersion: tls.VersionTLS13,
			EncryptedClientHelloRejectionVerify: func(tls.ConnectionState) error { return nil },
		})
		return c, c.Handshake()
	}
	for _, c := range []struct {
		rules testRules
		host  string
		ok    bool
	}{
		{testRules{"good.example:443"}, "good.example", false},
		{testRules{"ech:good.example:443"}, "good.example", true},
		{testRules{"good.example:443", "ech:good.example:443"}, "good.example", true},
		{testRules{"ech:good.example:443", "ech:bad.example:443"}, "bad.example", false}, // the name in the clear is good.example
		{testRules{"bad.example:443", "ech:good.example:443"}, "bad.example", false},
		{testRules{"198.51.100.1/32:443", "ech:good.example:443"}, "198.51.100.1", false},
	} {
		l := newLab(t, c.rules)
		l.serve("good.example", "198.51.100.1:443", ln.Addr().String())
		l.serve("bad.example", "198.51.100.1:443", ln.Addr().String())
		client, err := handshake(l, c.host)
		if (err == nil) != c.ok || c.ok && !client.ConnectionState().ECHAccepted {
			t.Errorf("%v to %s: %v", c.rules, c.host, err)
		}
		if !c.ok && len(accepted) > 0 {
			t.Errorf("%v to %s: the server was reached", c.rules, c.host)
		}
		for len(accepted) > 0 {
			defer (<-accepted).Close()
		}
		if suggested := slices.ContainsFunc(l.Denials(), func(d Denial) bool { return d.Suggest == "ech:good.example:443" }); suggested != (!c.ok && c.host == "good.example") {
			t.Errorf("%v: the denials are %+v", c.rules, l.Denials())
		}
		if c.ok { // a change that takes ech: back cuts the connection
			l.SetPolicy(testRules{"good.example:443"}.set())
			if _, err := client.Read(make([]byte, 1)); err == nil {
				t.Errorf("%v: the connection goes on", c.rules)
			}
		}
		client.Close()
	}
	// What browsers send as a decoy.
	l := newLab(t, testRules{"ech:good.example:443"})
	c := l.mustDial("good.example", 443)
	if got := send(t, c, string(handmadeHello("bad.example", []byte{0xfe, 0x0d, 0, 1, 0}))); got != string(tlshello.Alert(tlshello.AlertUnrecognizedName)) {
		t.Errorf("another name in the clear: %q", got)
	}
}
