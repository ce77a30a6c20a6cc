package egress

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/miekg/dns"
)

func TestDNSOverTCP(t *testing.T) {
	l := newLab(t, testRules{"good.example:443"})
	c, err := l.dialAddr(testDNS)
	if err != nil {
		t.Fatal(err)
	}
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeA)
	b, _ := q.Pack()
	for range 2 {
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			t.Fatal(err)
		}
		out := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, out); err != nil || out[3]&0xf != 0 {
			t.Fatal(err)
		}
	}
	if got := send(t, c, "\x00\x01x"); got != "" {
		t.Fatalf("%q", got)
	}
}

// TestCloseEndsDNS: Close ends the connections of DNS clients, and waits for that.
func TestCloseEndsDNS(t *testing.T) {
	l := newLab(t, testRules{"good.example:443"})
	c, err := l.dialAddr(testDNS)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	r := &guestRequest{accepted: make(chan net.Conn, 1), rejected: make(chan struct{})}
	go func() { l.UDP(testGuest, testDNS, r); close(served) }()
	defer (<-r.accepted).Close()
	l.Close()
	if l.dnsUDP.Load() != 0 || l.dnsTCP.Load() != 0 {
		t.Error("Close did not wait for the DNS clients")
	}
	<-served
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a DNS connection goes on")
	}
	if _, err := l.dialAddr(testDNS); !errors.Is(err, errRejected) {
		t.Error("a DNS connection after Close:", err)
	}
}
