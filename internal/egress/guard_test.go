package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// TestPrivateNames: private: opens private addresses to its own names and ports, and
// neither the bare address, nor other names, nor what is the host's or its cloud's.
func TestPrivateNames(t *testing.T) {
	rules := testRules{"private:git.corp.test:443", "git.corp.test:80", "other.corp.test:443", "-10.9.0.0/16:*"}
	to := policy.Flow{Name: "git.corp.test", Port: 443, Proto: policy.TCP}
	connect := func(to policy.Flow, at string) error {
		f := &fakeNet{answers: [][]netip.Addr{addrs(at)}}
		_, _, err := f.dialer(rules).connect(t.Context(), to)
		if err != nil && len(f.dialled) > 0 {
			t.Errorf("%s was dialled", at)
		}
		return err
	}
	for _, good := range []string{
		"10.0.0.1", "172.16.3.4", "192.168.1.1", "100.64.0.7", "fd12:3456::1", "203.0.113.130", "2001:db8:1::9", "64:ff9b::a00:1", "198.51.100.9",
	} {
		if err := connect(to, good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1", "fe80::1%eth0", "203.0.113.200", "168.63.129.16", "100.100.100.200", "192.0.0.192",
		"fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "224.0.0.1", "255.255.255.255", "198.18.0.5", "fd62:6177:6e00:1::5",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::cb00:71c8", "2002:a00:1::", "::10.0.0.1", "fec0::1", "10.9.0.1", "64:ff9b::a09:1",
	} {
		if err := connect(to, bad); err == nil {
			t.Errorf("private: opened %s", bad)
		}
	}
	for _, other := range []policy.Flow{
		{Name: "git.corp.test", Port: 80, Proto: policy.TCP}, {Name: "other.corp.test", Port: 443, Proto: policy.TCP}, {Addr: addrs("10.0.0.1")[0], Port: 443, Proto: policy.TCP},
	} {
		if err := connect(other, "10.0.0.1"); err == nil {
			t.Errorf("private: opened %v", other)
		}
	}
}

// TestNeighbours: a name that leads to a host beside this one needs a rule, also when
// that has a public address.
func TestNeighbours(t *testing.T) {
	for addr, rule := range map[string]string{"203.0.113.130": "203.0.113.128/25:443", "2001:db8:1::9": "2001:db8:1::9/128:443"} {
		f := &fakeNet{answers: [][]netip.Addr{addrs(addr)}}
		to := policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP}
		for _, rules := range []testRules{{"a.example:443"}, {"a.example:443", "203.0.113.0/24:443", "2001:db8::/32:443"}} {
			var denied *deniedError
			if _, _, err := f.dialer(rules).connect(t.Context(), to); !errors.As(err, &denied) || len(f.dialled) > 0 {
				t.Errorf("%s by %v: %v", addr, rules, err)
			}
		}
		if _, _, err := f.dialer(testRules{"a.example:443", rule}).connect(t.Context(), to); err != nil {
			t.Errorf("%s by %s: %v", addr, rule, err)
		}
	}
}

// TestNoHostNetworks: a host whose networks cannot be read lets no name lead anywhere.
func TestNoHostNetworks(t *testing.T) {
	f := &fakeNet{answers: [][]netip.Addr{addrs("198.51.100.9")}}
	d := f.dialer(testRules{"a.example:443"})
	d.guard.hostNet = func() HostNet { return HostNet{Err: errors.New("no netlink")} }
	if _, _, err := d.connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP}); err == nil {
		t.Error("dialled")
	}
}

// translator is a network that may translate a prefix; its resolver answers for
// ipv4only.arpa with an address below it.
type translator struct {
	answer []netip.Addr
	err    error
	asked  int
}

func (n *translator) resolve(_ context.Context, name string) ([]netip.Addr, error) {
	if name != nat64Name {
		return nil, fmt.Errorf("asked for %s", name)
	}
	n.asked++
	return n.answer, n.err
}

// TestTranslatedPrefixes: on networks with NAT64 of every prefix (RFC 6052, section 2.4),
// a name may lead to a public address behind it, and to none that is reserved or denied.
func TestTranslatedPrefixes(t *testing.T) {
	for _, c := range []struct{ told, public, loopback, private, metadata, denied string }{
		{"64:ff9b::c000:aa", "64:ff9b::808:808", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::101:101"},
		{"2001:db8:c000:aa::", "2001:db8:808:808::", "2001:db8:7f00:1::", "2001:db8:a00:1::", "2001:db8:a9fe:a9fe::", "2001:db8:101:101::"},
		{"2001:db8:1c0:0:aa::", "2001:db8:108:808:8::", "2001:db8:17f:0:1::", "2001:db8:10a:0:1::", "2001:db8:1a9:fea9:fe::", "2001:db8:101:101:1::"},
		{"2001:db8:122:c000:0:aa00::", "2001:db8:122:808:8:800::", "2001:db8:122:7f00:0:100::", "2001:db8:122:a00:0:100::", "2001:db8:122:a9fe:a9:fe00::", "2001:db8:122:101:1:100::"},
		{"2001:db8:122:3c0:0:aa::", "2001:db8:122:308:8:808::", "2001:db8:122:37f:0:1::", "2001:db8:122:30a:0:1::", "2001:db8:122:3a9:fe:a9fe::", "2001:db8:122:301:1:101::"},
		{"2001:db8:122:344:c0:0:aa00::", "2001:db8:122:344:8:808:800::", "2001:db8:122:344:7f:0:100::", "2001:db8:122:344:a:0:100::", "2001:db8:122:344:a9:fea9:fe00::", "2001:db8:122:344:1:101:100::"},
		{"2001:db8:122:344::c000:aa", "2001:db8:122:344::808:808", "2001:db8:122:344::7f00:1", "2001:db8:122:344::a00:1", "2001:db8:122:344::a9fe:a9fe", "2001:db8:122:344::101:101"},
	} {
		network := &translator{answer: addrs("192.0.0.170", c.told)}
		connect := func(addr string, rules ...string) error {
			f := &fakeNet{answers: [][]netip.Addr{addrs(addr)}}
			d := f.dialer(append(testRules{"a.example:443", "-1.1.1.1/32:*"}, rules...))
			d.guard.nat64 = &nat64{resolve: network.resolve}
			_, _, err := d.connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP})
			_, _, bare := d.connect(t.Context(), policy.Flow{Addr: netip.MustParseAddr(addr), Port: 443, Proto: policy.TCP})
			if (err == nil) != (bare == nil) {
				t.Errorf("%s: by name %v, as it is %v", addr, err, bare)
			}
			return err
		}
		if err := connect(c.public); err != nil {
			t.Errorf("told %s: %s: %v", c.told, c.public, err)
		}
		for _, bad := range []string{c.loopback, c.private, c.metadata, c.denied} {
			if err := connect(bad, "::/0:443", "0.0.0.0/0:443", "2000::/3:443"); err == nil {
				t.Errorf("told %s: %s was dialled", c.told, bad)
			}
		}
		if err := connect(c.private, "10.0.0.0/8:443"); err != nil {
			t.Errorf("told %s: a rule for the IPv4 network: %v", c.told, err)
		}
	}
}

// TestAttackReservedPrefixesDeclaredNAT64: a resolver that lies cannot have a name lead to a
// private network, or to what is hidden, by calling its addresses those of NAT64. A person's
// rule for the addresses opens them.
func TestAttackReservedPrefixesDeclaredNAT64(t *testing.T) {
	for told, at := range map[string]string{
		"fd00:64:64::c000:aa": "fd00:64:64::808:808", "fd00:c000:aa::": "fd00:808:808::", "64:ff9b:1:7::c000:ab": "64:ff9b:1:7::808:808",
		"64:ff9b:1:c000:0:aa00::": "64:ff9b:1:808:8:800::", "fe80::c000:aa": "fe80::808:808", "fec0::c000:aa": "fec0::808:808",
		"::c000:aa": "::808:808", "2002:c000:aa::": "2002:808:808::", "2001:0:c000:aa::": "2001:0:808:808::", "ff0e::c000:aa": "ff0e::808:808",
		"::ffff:0:192.0.0.170": "::ffff:0:8.8.8.8", "100::c000:aa": "100::808:808", "fd00:ec2::c000:aa": "fd00:ec2::808:808",
	} {
		for _, rules := range []testRules{{"a.example:443"}, {"a.example:443", "::/0:443", "8.8.8.8:443"}} {
			f := &fakeNet{answers: [][]netip.Addr{addrs(at)}}
			d := f.dialer(rules)
			d.guard.nat64 = &nat64{resolve: (&translator{answer: addrs(told)}).resolve}
			if _, _, err := d.connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP}); err == nil || len(f.dialled) > 0 {
				t.Errorf("told %s, by %q: %s: %v, dialled %q", told, rules, at, err, f.dialled)
			}
		}
	}
	f := &fakeNet{answers: [][]netip.Addr{addrs("fd00:64:64::808:808")}}
	if _, _, err := f.dialer(testRules{"a.example:443", "fd00:64:64::/96:443"}).connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP}); err != nil {
		t.Errorf("a rule for the prefix: %v", err)
	}
}

// TestTranslationUnknown: where the network does not say what it translates, an IPv6
// address needs a rule; a network that says it translates nothing is believed, and the
// question is not asked again for each connection.
func TestTranslationUnknown(t *testing.T) {
	to := policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP}
	for _, c := range []struct {
		name   string
		err    error
		answer []netip.Addr
		rules  testRules
		ok     bool
	}{
		{"no such name", &net.DNSError{IsNotFound: true}, nil, testRules{"a.example:443"}, true},
		{"no IPv6 address", nil, nat64Known, testRules{"a.example:443"}, true},
		{"a lie about loopback", nil, addrs("::c000:aa", "::ffff:192.0.0.170", "fe80::c000:aa", "2002:c000:aa::"), testRules{"a.example:443"}, true},
		{"no answer", &net.DNSError{IsTimeout: true}, nil, testRules{"a.example:443"}, false},
		{"no answer, a rule", &net.DNSError{IsTimeout: true}, nil, testRules{"a.example:443", "2606:4700::/32:443"}, true},
		{"no answer, a wide rule", &net.DNSError{IsTimeout: true}, nil, testRules{"a.example:443", "2000::/3:443"}, false},
	} {
		network := &translator{answer: c.answer, err: c.err}
		f := &fakeNet{answers: [][]netip.Addr{addrs("2606:4700::1")}}
		d := f.dialer(c.rules)
		d.guard.nat64 = &nat64{resolve: network.resolve}
		for range 3 {
			if _, _, err := d.connect(t.Context(), to); (err == nil) != c.ok {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if network.asked != 1 {
			t.Errorf("%s: asked %d times", c.name, network.asked)
		}
	}
	// An answer is of one network: on another one the question is asked again.
	network := &translator{answer: addrs("2001:db8:64::c000:aa")}
	n := &nat64{resolve: network.resolve}
	n.learn(t.Context(), testHostNet())
	network.answer, network.err = nil, errors.New("not yet")
	n.learn(t.Context(), HostNet{Own: prefixes("192.0.2.9/32")})
	if _, err := n.translated(addrs("2606:4700::1")[0]); err == nil || network.asked != 2 {
		t.Errorf("after a change of networks: %v, asked %d times", err, network.asked)
	}
	// On the same one the last answer outlives a failure.
	network.answer, network.err = addrs("2001:db8:64::c000:aa"), nil
	n = &nat64{resolve: network.resolve}
	n.learn(t.Context(), testHostNet())
	n.until, network.err = time.Unix(1, 0), errors.New("no answer")
	n.learn(t.Context(), testHostNet())
	if list, err := n.translated(addrs("2001:db8:64::7f00:1")[0]); err != nil || !slices.Equal(list, addrs("127.0.0.1")) {
		t.Error(list, err)
	}
}

// TestDeniedBehindADisguise: a rule that denies an IPv4 address denies it in every form.
func TestDeniedBehindADisguise(t *testing.T) {
	for _, disguise := range []string{
		"::ffff:8.8.8.8", "::8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2001:0:808:808::1", "2001:0:1:1:0:0:f7f7:f7f7", "2001:db8::5efe:808:808",
	} {
		a := netip.MustParseAddr(disguise)
		f := &fakeNet{answers: [][]netip.Addr{{a}}}
		d := f.dialer(testRules{"a.example:443", "-8.8.8.8/32:*", a.String() + "/128:443"})
		_, _, err := d.connect(t.Context(), policy.Flow{Name: "a.example", Port: 443, Proto: policy.TCP})
		if denied, ok := asDenied(err); !ok || denied.Rule == nil {
			t.Errorf("%s: %v", disguise, err)
		}
	}
}
