package egress

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// floorRange is one block of addresses that no name may lead to.
type floorRange struct {
	prefix netip.Prefix
	why    string
}

// floorRanges are the blocks that a name rule never opens; only an IP or CIDR
// rule does that lies in the block. Source: the IANA special-purpose registries (RFC 6890 and
// its updates). The documentation ranges (RFC 5737, RFC 3849) are left to the
// rules: nothing lives there.
var floorRanges = []floorRange{
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

// onFloor says why an address may not be reached by a name, or "", and the block
// for which that is so. own are the host's addresses. An address with a zone is
// always on the floor: it means a link of the host.
func onFloor(a netip.Addr, own func() []netip.Addr) (netip.Prefix, string) {
	itself := netip.PrefixFrom(a, a.BitLen()) // drops a zone
	if !a.IsValid() {
		return itself, "no address"
	}
	if a.Zone() != "" {
		return itself, "link-local (with a zone)"
	}
	if slices.Contains(own(), a.Unmap()) {
		return itself, "the host's own address"
	}
	for _, r := range floorRanges {
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
		if addr, err := netip.ParseAddr(text); err == nil && !addr.IsLoopback() { // that is on the floor by itself
			out = append(out, addr.Unmap().WithZone(""))
		}
	}
	h.last = out
	return out
}
