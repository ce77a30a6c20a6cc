package egress

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

func TestUDP(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "udp time.example:123"})
	s, _ := net.ListenPacket("udp", "127.0.0.1:0")
	defer s.Close()
	var seen atomic.Int32
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := s.ReadFrom(buf)
			if err != nil {
				return
			}
			seen.Add(1)
			_, _ = s.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}()
	for _, a := range []string{"203.0.113.1:443", "203.0.113.2:123", "203.0.113.3:53", "203.0.113.2:124"} {
		l.serve("", a, s.LocalAddr().String())
	}
	l.serve("good.example", "203.0.113.1:443", s.LocalAddr().String())
	l.serve("time.example", "203.0.113.2:123", s.LocalAddr().String())
	good, _, _ := l.names.Addresses("good.example")
	clock, _, _ := l.names.Addresses("time.example")
	for _, dst := range []netip.AddrPort{
		netip.AddrPortFrom(good, 443), netip.AddrPortFrom(clock, 124),
		netip.MustParseAddrPort("203.0.113.3:53"), netip.MustParseAddrPort("198.18.99.99:123"),
	} {
		if _, err := l.packets(dst); !errors.Is(err, errRejected) {
			t.Errorf("%s: %v", dst, err)
		}
	}
	c, err := l.packets(netip.AddrPortFrom(clock, 123))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for range 2 {
		fmt.Fprint(c, "tick")
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "TICK" {
			t.Fatal(string(buf[:n]), err)
		}
	}
	if seen.Load() != 2 {
		t.Errorf("%d datagrams reached the server", seen.Load())
	}
	if c, err = l.packets(testDNS); err != nil {
		t.Fatal(err)
	}
	q := new(dns.Msg)
	q.SetQuestion("good.example.", dns.TypeAAAA)
	b, _ := q.Pack()
	_, _ = c.Write(b)
	n, err := c.Read(buf)
	if err != nil || buf[3]&0xf != 0 || n < 12 { // a DNS header
		t.Fatal(n, err)
	}
}
