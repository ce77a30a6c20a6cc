package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// TestAttackAnAddressThatBecomesTheHosts: a rule was approved while its address was another
// machine's, and now the host has that address (DHCP, a bridge of Docker). Only a rule that
// says so opens the host, and it opens nothing else.
func TestAttackAnAddressThatBecomesTheHosts(t *testing.T) {
	for name, c := range map[string]struct {
		rules  testRules
		at     string // what the host gets
		to     policy.Flow
		answer string // of a name
		before bool   // whether the flow passes while it is another machine's
		then   bool   // and while it is the host's
	}{
		"a private address":             {testRules{"10.0.0.5:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", true, false},
		"a public address":              {testRules{"198.51.100.5:443"}, "198.51.100.5", policy.Flow{Addr: addrs("198.51.100.5")[0]}, "", true, false},
		"an IPv6 address":               {testRules{"fd00::5/128:443"}, "fd00::5", policy.Flow{Addr: addrs("fd00::5")[0]}, "", true, false},
		"a network":                     {testRules{"10.0.0.0/8:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", true, false},
		"two addresses":                 {testRules{"10.0.0.4/31:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", true, false},
		"by NAT64":                      {testRules{"64:ff9b::a00:5/128:443"}, "10.0.0.5", policy.Flow{Addr: addrs("64:ff9b::a00:5")[0]}, "", true, false},
		"without inspection":            {testRules{"10.0.0.5:443 raw"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", true, false},
		"a name, and its address":       {testRules{"a.example:443", "10.0.0.5:443"}, "10.0.0.5", policy.Flow{Name: "a.example"}, "10.0.0.5", true, false},
		"a private name":                {testRules{"private:a.example:443"}, "10.0.0.5", policy.Flow{Name: "a.example"}, "10.0.0.5", true, false},
		"host:":                         {testRules{"host:10.0.0.5:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", false, true},
		"host: for another address":     {testRules{"host:10.0.0.6:443", "10.0.0.5:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", true, false},
		"host: for another port":        {testRules{"host:10.0.0.5:80", "10.0.0.5:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", true, false},
		"host: for a public address":    {testRules{"host:198.51.100.5:443"}, "198.51.100.5", policy.Flow{Addr: addrs("198.51.100.5")[0]}, "", false, true},
		"host:, and everything":         {testRules{"host:10.0.0.5:443", "0.0.0.0/0:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", false, true},
		"host:, by a name":              {testRules{"a.example:443", "host:10.0.0.5:443"}, "10.0.0.5", policy.Flow{Name: "a.example"}, "10.0.0.5", false, true},
		"host:, and denied by its form": {testRules{"host:10.0.0.5:443", "-10.0.0.5:443"}, "10.0.0.5", policy.Flow{Addr: addrs("10.0.0.5")[0]}, "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, own := range []bool{false, true} {
				f := &fakeNet{answers: [][]netip.Addr{addrs("198.51.100.200")}}
				if c.answer != "" {
					f.answers = [][]netip.Addr{addrs(c.answer)}
				}
				d, to := f.dialer(c.rules), c.to
				to.Port, to.Proto = 443, policy.TCP
				if own {
					d.guard.hostNet = func() HostNet { return HostNet{Own: prefixes(c.at + "/" + fmt.Sprint(addrs(c.at)[0].BitLen()))} }
				}
				to.AtHost = to.Addr.IsValid() && d.guard.hostNet().owns(to.Addr)
				var err error
				if decision := d.guard.decide(to); !decision.Allow {
					err = errors.New(decision.Reason)
				} else {
					_, _, err = d.connect(t.Context(), to)
				}
				want := c.before
				if own {
					want = c.then
				}
				if (err == nil) != want || err != nil && len(f.dialled) > 0 {
					t.Errorf("the host has the address: %v; %v, dialled %q", own, err, f.dialled)
				}
			}
		})
	}
}

// TestAttackOpenFlowsToAnAddressThatBecomesTheHosts: the next datagram of an open association
// would go to the host, and the log says why it does not and what would open it.
func TestAttackOpenFlowsToAnAddressThatBecomesTheHosts(t *testing.T) {
	var own atomic.Bool
	l := newLab(t, testRules{"udp 10.0.0.5:123", "10.0.0.5:443"}, func(c *Config) {
		c.HostNet = func() HostNet {
			if own.Load() {
				return HostNet{Own: prefixes("10.0.0.5/32")}
			}
			return HostNet{}
		}
	})
	s, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l.serve("", "10.0.0.5:123", s.LocalAddr().String())
	c, err := l.packets(netip.MustParseAddrPort("10.0.0.5:123"))
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	_, _ = c.Write([]byte("before"))
	if n, _, err := s.ReadFrom(buf); err != nil || string(buf[:n]) != "before" {
		t.Fatal(string(buf[:n]), err)
	}
	own.Store(true)
	deadline := time.Now().Add(30 * time.Second)
	for { // until the association has ended, and nobody is at its port
		if _, err := c.Write([]byte("after")); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the association is still open")
		}
		runtime.Gosched()
	}
	if _, err := l.dialAddr(netip.MustParseAddrPort("10.0.0.5:443")); !errors.Is(err, errRejected) {
		t.Errorf("a new connection: %v", err)
	}
	l.Close()
	last, err := net.Dial("udp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	_, _ = last.Write([]byte("last"))
	if n, _, err := s.ReadFrom(buf); err != nil || string(buf[:n]) != "last" {
		t.Errorf("the host got %q, %v", buf[:n], err)
	}
	var cut, denied bool
	for _, e := range readAll(t, l.path) {
		cut = cut || strings.Contains(e.Reason, "has become the host's own")
		denied = denied || strings.Contains(e.Reason, "allow host:10.0.0.5:443 if the guest is to reach") && e.Suggest == ""
	}
	if !cut || !denied {
		t.Errorf("%+v", readAll(t, l.path))
	}
}

// endsConn is a connection between given addresses.
type endsConn struct {
	net.Conn
	local, remote net.Addr
	closed        bool
}

func (c *endsConn) dial(context.Context, string, string) (net.Conn, error) { return c, nil }
func (c *endsConn) LocalAddr() net.Addr                                    { return c.local }
func (c *endsConn) RemoteAddr() net.Addr                                   { return c.remote }
func (c *endsConn) Close() error                                           { c.closed = true; return nil }

// TestAttackTheHostGetsTheAddressDuringTheDial: its networks were read a moment before. The
// ends of the connection show that it did not leave the host.
func TestAttackTheHostGetsTheAddressDuringTheDial(t *testing.T) {
	at := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for name, c := range map[string]struct {
		local, remote net.Addr
		cut           bool
	}{
		"another machine":           {at("10.0.0.9:40000"), at("10.0.0.5:443"), false},
		"this host":                 {at("10.0.0.5:40000"), at("10.0.0.5:443"), true},
		"this host, mapped":         {at("[::ffff:10.0.0.5]:40000"), at("[::ffff:10.0.0.5]:443"), true},
		"ends that say nothing":     {nil, nil, false},
		"a datagram socket":         {net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.5:1")), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.0.0.5:443")), true},
		"a proxy of the host's own": {at("127.0.0.1:40000"), at("127.0.0.1:443"), false},
	} {
		conn := &endsConn{local: c.local, remote: c.remote}
		d := (&fakeNet{}).dialer(testRules{"10.0.0.5:443"})
		d.dial = conn.dial
		_, _, err := d.connect(t.Context(), policy.Flow{Addr: addrs("10.0.0.5")[0], Port: 443, Proto: policy.TCP})
		if _, denied := asDenied(err); denied != c.cut || conn.closed != c.cut {
			t.Errorf("%s: %v, closed %v", name, err, conn.closed)
		}
	}
}

// TestUnknownHostNetworksOpenNoAddress: a bare address may be the host's own, too.
func TestUnknownHostNetworksOpenNoAddress(t *testing.T) {
	for _, a := range []string{"10.0.0.5", "198.51.100.9", "fd00::5"} {
		f := &fakeNet{}
		d := f.dialer(testRules{"10.0.0.5:443", "198.51.100.9:443", "fd00::5/128:443"})
		d.guard.hostNet = func() HostNet { return HostNet{Err: errors.New("no netlink")} }
		if _, _, err := d.connect(t.Context(), policy.Flow{Addr: addrs(a)[0], Port: 443, Proto: policy.TCP}); err == nil || len(f.dialled) > 0 {
			t.Errorf("%s: %v, dialled %q", a, err, f.dialled)
		}
	}
}
