package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Names that bawn keeps for itself, so that no rule can be about them.
const (
	// InfoName is the page that tells the agent in the guest what it may reach.
	InfoName = "bawn.internal"
	// HostName is the host's own loopback, port by port (rule host:PORT).
	HostName = "host.bawn.internal"
)

// Addresses that stand for names in the guest: of the block for benchmarks (RFC
// 2544), which the Internet does not route, and of an ULA prefix (RFC 4193).
var (
	Synthetic4 = netip.MustParsePrefix("198.18.0.0/15")
	Synthetic6 = netip.MustParsePrefix("fd62:6177:6e00:1::/64")
)

// The gateway's addresses in every guest: of the shared address space (RFC 6598)
// and of the ULA prefix.
var (
	Gateway4 = netip.MustParsePrefix("100.127.255.1/32")
	Gateway6 = netip.MustParsePrefix("fd62:6177:6e00::1/128")
)

// unreachable lists the blocks that no connection goes to, with the reason.
var unreachable = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/32"), "is not the address of any host"},
	{netip.MustParsePrefix("::/128"), "is not the address of any host"},
	{netip.MustParsePrefix("224.0.0.0/4"), "is a multicast address, and multicast never leaves the sandbox"},
	{netip.MustParsePrefix("ff00::/8"), "is a multicast address, and multicast never leaves the sandbox"},
	{netip.MustParsePrefix("255.255.255.255/32"), "is the broadcast address, and broadcast never leaves the sandbox"},
	{Synthetic4, "is a range from which bawn gives the guest addresses for names: write a rule about the name"},
	{Synthetic6, "is a range from which bawn gives the guest addresses for names: write a rule about the name"},
	{Gateway4, "is the address of bawn's own name server and page in the guest, which every guest may use"},
	{Gateway6, "is the address of bawn's own name server and page in the guest, which every guest may use"},
}

// checkMatchable returns an error that says why the rule can never match, or nil.
func (r *Rule) checkMatchable() error {
	if r.prefix.IsValid() {
		for _, u := range unreachable {
			if u.prefix.Bits() <= r.prefix.Bits() && u.prefix.Contains(r.prefix.Addr()) {
				return fmt.Errorf("no connection can match: %s %s", r.prefix, u.why)
			}
		}
		return nil
	}
	switch end := literalEnd(r.labels); {
	case end == "localhost" || strings.HasSuffix(end, ".localhost"): // RFC 6761 section 6.3
		return errors.New("no connection can match: in the guest, localhost is the guest itself; write host:PORT for a service of the host")
	case end == HostName:
		return errors.New("no connection can match: write host:PORT for a service of the host")
	case end == InfoName || strings.HasSuffix(end, "."+InfoName):
		return errors.New("no connection can match: bawn answers for this name itself")
	}
	return nil
}
