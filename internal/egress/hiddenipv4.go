package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// IPv6 addresses that hide an IPv4 address. Most ways to do that are dead, and such
// addresses are reserved. One is alive: on a network without IPv4, NAT64 (RFC 6146)
// translates a prefix to IPv4, and the resolver gives names addresses there (DNS64, RFC
// 6147). Such an address is judged as the IPv4 address that the network connects to.
// The prefix is the well-known one, or a global one that the network tells by its answer for
// ipv4only.arpa (RFC 7050).

const (
	// nat64Name has the addresses of nat64Known and, unless the resolver makes some up,
	// no IPv6 address (RFC 7050, section 3).
	nat64Name = "ipv4only.arpa"
	// nat64TTL is how long the answer holds on one network, nat64Retry how long a
	// failure does.
	nat64TTL, nat64Retry = 10 * time.Minute, 30 * time.Second
	// nat64Timeout bounds the question.
	nat64Timeout = 2 * time.Second
)

// nat64Known are the IPv4 addresses of nat64Name (RFC 7050, section 2.2).
var nat64Known = []netip.Addr{netip.MustParseAddr("192.0.0.170"), netip.MustParseAddr("192.0.0.171")}

// nat64WellKnown is the prefix that needs no discovery (RFC 6052, section 2.1).
var nat64WellKnown = netip.MustParsePrefix("64:ff9b::/96")

// nat64Lengths are the lengths of prefixes (RFC 6052, section 2.2).
var nat64Lengths = []int{32, 40, 48, 56, 64, 96}

// nat64Prefixes returns the prefixes that an answer for nat64Name tells.
func nat64Prefixes(answer []netip.Addr) (list []netip.Prefix) {
	for _, a := range answer {
		if !a.Is6() || a.Zone() != "" {
			continue
		}
		for _, n := range nat64Lengths {
			p, err := a.Prefix(n)
			if err == nil && mayTranslate(p) && slices.Contains(nat64Known, policy.EmbeddedIPv4(a, n)) && !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	return list
}

// mayTranslate reports whether a network may use a prefix for NAT64: the well-known one, or
// one of global unicast addresses (RFC 4291), which are open to names anyway. What the network
// says of others is not believed: addresses in reserved blocks (RFC 4193, RFC 8215) would be
// judged as the IPv4 addresses that it says are in them, and a resolver that lies could lead a
// name to any host there.
func mayTranslate(p netip.Prefix) bool {
	in := func(block netip.Prefix) bool { return block.Bits() <= p.Bits() && block.Contains(p.Addr()) }
	return in(nat64WellKnown) || in(global) && !in(teredo) && !in(sixToFour)
}

// The blocks of the ways that are dead, and that of global addresses.
var (
	siit       = netip.MustParsePrefix("::ffff:0:0:0/96") // RFC 2765
	compatible = netip.MustParsePrefix("::/96")           // RFC 4291, section 2.5.5.1
	teredo     = netip.MustParsePrefix("2001::/32")       // RFC 4380
	sixToFour  = netip.MustParsePrefix("2002::/16")       // RFC 3056
	global     = netip.MustParsePrefix("2000::/3")        // RFC 4291, section 2.4
)

// isatap is the interface identifier's upper half of an ISATAP address (RFC
// 5214): the lower half is an IPv4 address. The bit that says "globally unique"
// may be set.
var isatap = [2][4]byte{{0x00, 0x00, 0x5e, 0xfe}, {0x02, 0x00, 0x5e, 0xfe}}

// isISATAP reports whether an address is one of ISATAP.
func isISATAP(a netip.Addr) bool {
	if !a.Is6() {
		return false
	}
	b := a.As16()
	id := [4]byte(b[8:12])
	return id == isatap[0] || id == isatap[1]
}

// tunnelled returns the IPv4 addresses in an address of the ways that are dead: a packet
// to it may be sent on to each of them.
func tunnelled(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	end := netip.AddrFrom4([4]byte(b[12:]))
	a = a.WithZone("")
	switch {
	case a.Is4In6(), siit.Contains(a), compatible.Contains(a), isISATAP(a):
		return []netip.Addr{end}
	case sixToFour.Contains(a): // RFC 3056, section 2
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	case teredo.Contains(a): // RFC 4380, section 4: the server, and the client with its bits inverted
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	return nil
}

// nat64 knows the prefixes that the host's network translates. Safe for concurrent use.
type nat64 struct {
	resolve func(ctx context.Context, name string) ([]netip.Addr, error)

	asking sync.Mutex // held while the network is asked

	mu    sync.Mutex
	list  []netip.Prefix
	err   error // why the list is not known
	until time.Time
	host  HostNet // for which the list holds
}

// learn asks the network for its prefixes, unless they are known. A resolver that knows
// no such name, or no IPv6 address of it, means that there are none.
func (n *nat64) learn(ctx context.Context, host HostNet) {
	if n.fresh(host) {
		return
	}
	n.asking.Lock()
	defer n.asking.Unlock()
	if n.fresh(host) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, nat64Timeout)
	defer cancel()
	answer, err := n.resolve(ctx, nat64Name)
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		err = nil
	}
	ttl := nat64TTL
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err == nil:
		n.list, n.err = nat64Prefixes(answer), nil
	case n.until.IsZero() || !n.host.equal(host):
		n.list, n.err, ttl = nil, err, nat64Retry
	default: // the last answer is still of this network
		ttl = nat64Retry
	}
	n.until, n.host = time.Now().Add(ttl), host
}

// prefixes returns the prefixes that the network translates, beside the well-known one.
func (n *nat64) prefixes() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(n.list), func(p netip.Prefix) bool { return p == nat64WellKnown })
}

// fresh reports whether the last answer holds.
func (n *nat64) fresh(host HostNet) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Now().Before(n.until) && n.host.equal(host)
}

// translated returns the IPv4 addresses to which the network may translate an address:
// none if it does not. The error is that the network could not be asked. It asks
// nothing itself.
func (n *nat64) translated(a netip.Addr) (list []netip.Addr, err error) {
	if !a.Is6() || a.Is4In6() || a.Zone() != "" {
		return nil, nil
	}
	if nat64WellKnown.Contains(a) {
		list = append(list, policy.EmbeddedIPv4(a, nat64WellKnown.Bits()))
	}
	if n == nil {
		return list, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.list {
		if p.Contains(a) && p != nat64WellKnown {
			list = append(list, policy.EmbeddedIPv4(a, p.Bits()))
		}
	}
	if len(list) == 0 {
		err = n.err
	}
	return list, err
}
