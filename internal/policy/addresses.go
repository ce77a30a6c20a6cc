package policy

import (
	"net/netip"
	"slices"
)

// Blocks of addresses that are not the public Internet, and what they are to a rule.

// specialBlock is one block. what completes "the guest may reach ...".
type specialBlock struct {
	prefix netip.Prefix
	kind   Kind
	what   string
}

// specialBlocks lists the special-purpose blocks (IANA registries, RFC 6890), but for those
// that hide an IPv4 address. A connection to 0.0.0.0/8 or :: goes to the loopback on Linux
// (ip(7), INADDR_ANY).
var specialBlocks = []specialBlock{
	{netip.MustParsePrefix("0.0.0.0/8"), KindHost, ""},
	{netip.MustParsePrefix("127.0.0.0/8"), KindHost, ""},
	{netip.MustParsePrefix("::/127"), KindHost, ""},
	{netip.MustParsePrefix("10.0.0.0/8"), KindPrivate, private},
	{netip.MustParsePrefix("172.16.0.0/12"), KindPrivate, private},
	{netip.MustParsePrefix("192.168.0.0/16"), KindPrivate, private},
	{netip.MustParsePrefix("100.64.0.0/10"), KindPrivate, private},
	{netip.MustParsePrefix("fc00::/7"), KindPrivate, private},
	{netip.MustParsePrefix("fec0::/10"), KindPrivate, private},
	{netip.MustParsePrefix("169.254.0.0/16"), KindLinkLocal, linkLocal},
	{netip.MustParsePrefix("fe80::/10"), KindLinkLocal, linkLocal},
	{netip.MustParsePrefix("192.0.0.0/24"), KindReserved, reserved},
	{netip.MustParsePrefix("192.88.99.0/24"), KindReserved, reserved},
	{netip.MustParsePrefix("198.18.0.0/15"), KindReserved, reserved},
	{netip.MustParsePrefix("224.0.0.0/4"), KindReserved, reserved},
	{netip.MustParsePrefix("240.0.0.0/4"), KindReserved, reserved},
	{netip.MustParsePrefix("100::/63"), KindReserved, reserved},
	{netip.MustParsePrefix("2001:2::/48"), KindReserved, reserved},
	{netip.MustParsePrefix("2001:10::/28"), KindReserved, reserved},
	{netip.MustParsePrefix("2001:20::/28"), KindReserved, reserved},
	{netip.MustParsePrefix("5f00::/16"), KindReserved, reserved},
	{netip.MustParsePrefix("ff00::/8"), KindReserved, reserved},
}

const (
	private   = "A PRIVATE NETWORK of this host"
	linkLocal = "THE LINK of this host (and what cloud providers put there)"
	reserved  = "RESERVED ADDRESSES"
)

// metadataAddresses are the addresses at which cloud providers give a machine its
// credentials, as their documentation names them.
var metadataAddresses = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"),    // AWS, Azure, Google, OpenStack, DigitalOcean
	netip.MustParseAddr("169.254.170.2"),      // AWS ECS
	netip.MustParseAddr("169.254.170.23"),     // AWS EKS
	netip.MustParseAddr("169.254.0.23"),       // Tencent
	netip.MustParseAddr("169.254.42.42"),      // Scaleway
	netip.MustParseAddr("168.63.129.16"),      // Azure's wire server
	netip.MustParseAddr("100.100.100.200"),    // Alibaba
	netip.MustParseAddr("192.0.0.192"),        // Oracle
	netip.MustParseAddr("fd00:ec2::254"),      // AWS
	netip.MustParseAddr("fd00:ec2::23"),       // AWS EKS
	netip.MustParseAddr("fd20:ce::254"),       // Google
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"), // Oracle
	netip.MustParseAddr("fd00:42::42"),        // Scaleway
	netip.MustParseAddr("fe80::a9fe:a9fe"),    // OpenStack
}

// within reports whether a block lies in another.
func within(p, in netip.Prefix) bool { return p.Bits() >= in.Bits() && in.Contains(p.Addr()) }

// hidingBlocks are the IPv6 blocks whose addresses hold an IPv4 address, with the number of
// the byte at which it begins.
var hidingBlocks = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("::ffff:0:0/96"), 12},   // mapped (RFC 4291 section 2.5.5.2)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // translated (RFC 2765)
	{netip.MustParsePrefix("::/96"), 12},           // compatible (RFC 4291 section 2.5.5.1)
	{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64 (RFC 6052)
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // local NAT64 (RFC 8215), as a /96
	{netip.MustParsePrefix("2001::/32"), 12},       // Teredo (RFC 4380), each bit inverted
	{netip.MustParsePrefix("2002::/16"), 2},        // 6to4 (RFC 3056)
}

// EmbeddedIPv4 returns the IPv4 address in an IPv6 address below a NAT64 prefix whose length is
// one of 32, 40, 48, 56, 64 and 96. The ninth byte is not part of it (RFC 6052, section 2.2).
func EmbeddedIPv4(a netip.Addr, length int) netip.Addr {
	b := a.As16()
	bytes := slices.Concat(b[:8], b[9:])
	at := length / 8
	if length > 64 {
		at-- // behind the ninth
	}
	return netip.AddrFrom4([4]byte(bytes[at : at+4]))
}

// hidesAllIPv4 reports whether a block of IPv6 addresses has one of hidingBlocks in it.
func hidesAllIPv4(p netip.Prefix) bool {
	for _, h := range hidingBlocks {
		if within(h.prefix, p) {
			return true
		}
	}
	return false
}

// hiddenIPv4 returns the IPv4 addresses that a block of IPv6 addresses hides. :: and ::1 hide
// none.
func hiddenIPv4(p netip.Prefix) (netip.Prefix, bool) {
	if p.Addr().Is4() || within(p, netip.MustParsePrefix("::/127")) {
		return netip.Prefix{}, false
	}
	b := p.Addr().As16()
	at := -1
	for _, h := range hidingBlocks {
		if within(p, h.prefix) {
			at = h.at
			break
		}
	}
	id := [4]byte(b[8:12])
	id[0] &^= 2                                                            // "globally unique"
	if at < 0 && p.Bits() >= 96 && id == [4]byte{0x00, 0x00, 0x5e, 0xfe} { // ISATAP (RFC 5214)
		at = 12
	}
	if at < 0 {
		return netip.Prefix{}, false
	}
	v4 := [4]byte(b[at : at+4])
	bits := min(32, max(0, p.Bits()-8*at))
	if within(p, netip.MustParsePrefix("2001::/32")) {
		for i := range v4 {
			v4[i] ^= 0xff
		}
	}
	return netip.PrefixFrom(netip.AddrFrom4(v4), bits).Masked(), true
}
