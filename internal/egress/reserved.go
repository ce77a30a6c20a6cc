package egress

import (
	"fmt"
	"net/netip"
)

// The reserved ranges are the blocks of addresses that no name may lead to: the
// host's own networks, the cloud's metadata, addresses that hide another one. Only
// a rule about addresses of such a block opens it, or for those that are private a
// rule private: for the name.

// reservation is a block of addresses that no name may lead to.
type reservation struct {
	prefix netip.Prefix
	why    string // empty: not reserved
	// private blocks are opened by a rule private: for the name. Not among them is what
	// belongs to the host itself or to its cloud.
	private bool
}

// reservedRanges are the blocks that hold everywhere, the narrower first where two
// overlap. Source: the IANA special-purpose registries (RFC 6890 and its updates), and
// the clouds' manuals for their metadata services. The documentation ranges (RFC 5737,
// RFC 3849) are left to the rules: nothing lives there.
var reservedRanges = []reservation{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified", false},
	{netip.MustParsePrefix("10.0.0.0/8"), "private", true},
	{netip.MustParsePrefix("100.100.100.200/32"), "cloud metadata", false}, // Alibaba Cloud
	{netip.MustParsePrefix("100.64.0.0/10"), "shared by carriers (CGNAT)", true},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback", false},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata", false}, // Azure's wire server, a public address
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local or cloud metadata", false},
	{netip.MustParsePrefix("172.16.0.0/12"), "private", true},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols", false}, // 192.0.0.192: Oracle's metadata
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay", false},
	{netip.MustParsePrefix("192.168.0.0/16"), "private", true},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking", false},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast", false},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast", false},

	{netip.MustParsePrefix("::1/128"), "loopback", false},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 hidden in IPv6 (mapped)", false},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4 hidden in IPv6 (translated)", false}, // RFC 2765
	{netip.MustParsePrefix("::/96"), "unspecified or IPv4 hidden in IPv6 (compatible)", false},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "IPv4 hidden in IPv6 (local NAT64)", false},
	{netip.MustParsePrefix("100::/63"), "discard or dummy", false},
	{netip.MustParsePrefix("2001::/32"), "IPv4 hidden in IPv6 (Teredo)", false},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking", false},
	{netip.MustParsePrefix("2001:10::/28"), "ORCHID", false},
	{netip.MustParsePrefix("2001:20::/28"), "ORCHID", false},
	{netip.MustParsePrefix("2002::/16"), "IPv4 hidden in IPv6 (6to4)", false},
	{netip.MustParsePrefix("5f00::/16"), "segment routing", false},
	{netip.MustParsePrefix("fd00:42::42/128"), "cloud metadata", false},        // Scaleway
	{netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), "cloud metadata", false}, // Oracle
	{netip.MustParsePrefix("fd00:ec2::/32"), "cloud metadata", false},          // Amazon's link services
	{netip.MustParsePrefix("fd20:ce::254/128"), "cloud metadata", false},       // Google
	{netip.MustParsePrefix("fc00::/7"), "private (ULA)", true},
	{netip.MustParsePrefix("fe80::/10"), "link-local", false},
	{netip.MustParsePrefix("fec0::/10"), "site-local", false},
	{netip.MustParsePrefix("ff00::/8"), "multicast", false},
}

// itself is the block of one address. It drops a zone.
func itself(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ownAddress is why an address of the host's interfaces is reserved.
const ownAddress = "the host's own address"

// reservedFor returns the block in which an address lies that no name may lead to on a
// host with these networks. An address with a zone is always reserved: it means a link
// of the host.
func reservedFor(a netip.Addr, host HostNet) reservation {
	switch {
	case !a.IsValid():
		return reservation{itself(a), "not a valid address", false}
	case a.Zone() != "":
		return reservation{itself(a), "link-local (with a zone)", false}
	case host.owns(a):
		return reservation{itself(a), ownAddress, false}
	}
	for _, r := range reservedRanges {
		// Contains never matches a mapped address with an IPv4 block, nor the
		// other way round: mapped ones have a block of their own.
		if r.prefix.Contains(a) {
			return r
		}
	}
	if isISATAP(a) {
		return reservation{itself(a), "IPv4 hidden in IPv6 (ISATAP)", false}
	}
	for _, p := range host.OnLink {
		if p.Contains(a) {
			return reservation{p, fmt.Sprintf("in a network that this host is connected to (%s)", p), true}
		}
	}
	return reservation{}
}
