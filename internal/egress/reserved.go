package egress

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// The reserved ranges are the blocks of addresses that no name may lead to: the
// host's own networks, the cloud's metadata, addresses that hide another one. Only
// a rule about addresses of such a block opens it.

// reservedRange is one block of addresses that no name may lead to.
type reservedRange struct {
	prefix netip.Prefix
	why    string
}

// reservedRanges are the blocks that a name rule never opens; only an IP or CIDR
// rule that lies in the block does. Source: the IANA special-purpose registries (RFC
// 6890 and its updates). The documentation ranges (RFC 5737, RFC 3849) are left to the
// rules: nothing lives there.
var reservedRanges = []reservedRange{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers (CGNAT)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata"}, // Azure's wire server, a public address
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local or cloud metadata"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast"},

	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 hidden in IPv6 (mapped)"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4 hidden in IPv6 (translated)"}, // RFC 2765
	{netip.MustParsePrefix("::/96"), "unspecified or IPv4 hidden in IPv6 (compatible)"},
	{netip.MustParsePrefix("64:ff9b::/96"), "IPv4 hidden in IPv6 (NAT64)"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "IPv4 hidden in IPv6 (local NAT64)"},
	{netip.MustParsePrefix("100::/63"), "discard or dummy"},
	{netip.MustParsePrefix("2001::/32"), "IPv4 hidden in IPv6 (Teredo)"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking"},
	{netip.MustParsePrefix("2001:10::/28"), "ORCHID"},
	{netip.MustParsePrefix("2001:20::/28"), "ORCHID"},
	{netip.MustParsePrefix("2002::/16"), "IPv4 hidden in IPv6 (6to4)"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing"},
	{netip.MustParsePrefix("fc00::/7"), "private (ULA)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// isatap is the interface identifier's upper half of an ISATAP address (RFC
// 5214): the lower half is an IPv4 address. The bit that says "globally unique"
// may be set.
var isatap = [2][4]byte{{0x00, 0x00, 0x5e, 0xfe}, {0x02, 0x00, 0x5e, 0xfe}}

// ownAddress is why an address of the host's interfaces is reserved.
const ownAddress = "the host's own address"

// reservedFor returns why an address may not be reached by a name, or "", and the
// block for which that holds. own lists the host's addresses. An address with a zone
// is always reserved: it means a link of the host.
func reservedFor(a netip.Addr, own func() []netip.Addr) (netip.Prefix, string) {
	itself := netip.PrefixFrom(a, a.BitLen()) // drops a zone
	if !a.IsValid() {
		return itself, "not a valid address"
	}
	if a.Zone() != "" {
		return itself, "link-local (with a zone)"
	}
	if slices.Contains(own(), a.Unmap()) {
		return itself, ownAddress
	}
	for _, r := range reservedRanges {
		// Contains never matches a mapped address with an IPv4 block, nor the
		// other way round: mapped ones have a block of their own.
		if r.prefix.Contains(a) {
			return r.prefix, r.why
		}
	}
	if a.Is6() {
		b := a.As16()
		if id := [4]byte(b[8:12]); id == isatap[0] || id == isatap[1] {
			return itself, "IPv4 hidden in IPv6 (ISATAP)"
		}
	}
	return netip.Prefix{}, ""
}

// addressGuard judges the addresses that a flow is dialled at. Safe for concurrent
// use.
type addressGuard struct {
	hostAddrs func() []netip.Addr
	pools     []netip.Prefix                    // of synthetic addresses
	decide    func(policy.Flow) policy.Decision // of the policy in force now
}

// permit judges one address of a flow's target; nil lets it be dialled. A rule that
// denies the address wins. The reserved ranges hold unless a rule is about that
// part of them: "everything" (0.0.0.0/0) does not mean the host's loopback. Errors
// are *deniedError.
func (g *addressGuard) permit(a netip.Addr, to policy.Flow) error {
	byAddr := policy.Flow{Addr: a, Port: to.Port, Proto: to.Proto}
	d := g.decide(byAddr)
	deny := func(rule *policy.Rule, missing policy.Flow, format string, args ...any) error {
		return &deniedError{policy.Decision{Rule: rule, Reason: fmt.Sprintf(format, args...)}, missing}
	}
	if !d.Allow && d.Rule != nil {
		return deny(d.Rule, policy.Flow{}, "its address %s is denied", a)
	}
	if slices.ContainsFunc(g.pools, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return deny(nil, policy.Flow{}, "its address %s is one of bawn's own", a)
	}
	if a.IsUnspecified() { // the kernel would connect to the loopback (ip(7), INADDR_ANY)
		return deny(nil, policy.Flow{}, "its address %s is not the address of any host", a)
	}
	block, why := reservedFor(a, g.hostAddrs)
	if why == ownAddress && d.Allow && d.Prefix.IsSingleIP() && d.Ports > policy.MaxHostPorts {
		return deny(nil, policy.Flow{}, "its address %s is %s, for which a rule may allow at most %d ports", a, why, policy.MaxHostPorts)
	}
	if why == "" || d.Allow && d.Prefix.IsValid() && d.Prefix.Bits() >= block.Bits() && block.Overlaps(d.Prefix) {
		return nil
	}
	return deny(nil, byAddr, "its address %s is %s", a, why)
}

// ownTime is how long a list of the host's addresses holds: hosts change
// networks, and a burst of connections is not to ask the kernel each time.
const ownTime = time.Second

// hostAddrs lists the addresses of the host's interfaces, but for the loopback's;
// when that fails, the last answer holds.
type hostAddrs struct {
	mu   sync.Mutex
	last []netip.Addr
	at   time.Time
}

func (h *hostAddrs) list() []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < ownTime {
		return h.last
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		return h.last
	}
	h.at = time.Now()
	var out []netip.Addr
	for _, a := range list {
		text, _, _ := strings.Cut(a.String(), "/")
		if addr, err := netip.ParseAddr(text); err == nil && !addr.IsLoopback() { // loopback is reserved anyway
			out = append(out, addr.Unmap().WithZone(""))
		}
	}
	h.last = out
	return out
}

// HostAddrs returns the addresses of the host's interfaces, but for the loopback's, as the
// gateway knows them.
func HostAddrs() []netip.Addr { return new(hostAddrs).list() }
