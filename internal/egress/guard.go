package egress

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"bawn.dev/bawn/internal/policy"
)

// addressGuard judges the addresses that a flow is dialled at. Safe for concurrent
// use.
type addressGuard struct {
	hostNet func() HostNet
	nat64   *nat64                            // nil: only the well-known prefix counts
	pools   []netip.Prefix                    // of synthetic addresses
	decide  func(policy.Flow) policy.Decision // of the policy in force now
}

// prepare learns what permit needs for these addresses; it may ask the network.
func (g *addressGuard) prepare(ctx context.Context, addrs []netip.Addr) {
	if g.nat64 != nil && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return mayTranslate(itself(a)) }) {
		g.nat64.learn(ctx, g.hostNet())
	}
}

// permit judges one address of a flow's target; nil lets it be dialled. A rule that
// denies the address wins, or one that denies an IPv4 address which it hides. The
// reserved ranges hold unless a rule is about that part of them: "everything"
// (0.0.0.0/0) does not mean the host's loopback. An address that the host has at this moment
// is opened by a rule host:ADDRESS only. An address that the network translates to IPv4 is
// judged as that. permit asks nothing of the network. Errors are *deniedError.
func (g *addressGuard) permit(a netip.Addr, to policy.Flow) error {
	host := g.hostNet()
	hidden, unknown := g.nat64.translated(a)
	if err := g.denied(a, to, slices.Concat(hidden, tunnelled(a))); err != nil {
		return err
	}
	if slices.ContainsFunc(g.pools, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return deny(policy.Flow{}, "its address %s is one of bawn's own", a)
	}
	if a.IsUnspecified() { // the kernel would connect to the loopback (ip(7), INADDR_ANY)
		return deny(policy.Flow{}, "its address %s is not the address of any host", a)
	}
	if host.Err != nil && !a.IsLoopback() { // it may be the host's own
		return deny(policy.Flow{}, "its address %s is not judged, because the host's networks cannot be read (%v)", a, host.Err)
	}
	r := reservedFor(a, host)
	if to.AtHost && r.why != ownAddress { // of a rule host:ADDRESS, and the host lost it since
		return deny(policy.Flow{}, "its address %s is not the host's any more", a)
	}
	switch {
	case len(hidden) > 0 && r.why == "":
		return g.permitTranslated(a, to, hidden, host)
	case r.why == "" && unknown != nil:
		block, _ := a.Prefix(nat64Lengths[0])
		r = reservation{block, fmt.Sprintf("not judged, because the host's resolver does not say whether the network translates it to IPv4 (%s: %s)", nat64Name, reachError(unknown)), false}
	}
	return g.reserved(a, a, to, r)
}

// denied returns an error if a rule denies an address, or one of those that it hides.
func (g *addressGuard) denied(a netip.Addr, to policy.Flow, hidden []netip.Addr) error {
	for _, b := range slices.Concat([]netip.Addr{a}, hidden) {
		d := g.decide(policy.Flow{Addr: b, Port: to.Port, Proto: to.Proto})
		if d.Allow || d.Rule == nil {
			continue
		}
		return &deniedError{Decision: policy.Decision{Rule: d.Rule, Reason: fmt.Sprintf("its address %s is denied", spelled(a, b))}}
	}
	return nil
}

// permitTranslated judges an address that the network translates to IPv4.
func (g *addressGuard) permitTranslated(a netip.Addr, to policy.Flow, hidden []netip.Addr, host HostNet) error {
	for _, v4 := range hidden {
		if err := g.reserved(a, v4, to, reservedFor(v4, host)); err != nil {
			return err
		}
	}
	return nil
}

// reserved returns an error if an address lies in a reserved block that no rule opens.
// judged is the address itself, or the one that it hides.
func (g *addressGuard) reserved(a, judged netip.Addr, to policy.Flow, r reservation) error {
	if r.why == "" {
		return nil
	}
	own := r.why == ownAddress
	for _, b := range []netip.Addr{a, judged} {
		block := r.prefix
		if b != judged {
			block = itself(b) // a rule about the IPv6 form must name that very address
		}
		d := g.decide(policy.Flow{Addr: b, Port: to.Port, Proto: to.Proto, AtHost: own})
		if d.Allow && d.Prefix.IsValid() && d.Prefix.Bits() >= block.Bits() && block.Overlaps(d.Prefix) {
			return nil
		}
	}
	if own {
		d := g.decide(policy.Flow{Addr: judged, Port: to.Port, Proto: to.Proto, AtHost: true})
		return deny(policy.Flow{}, "its address %s is %s: %s", spelled(a, judged), r.why, d.Reason)
	}
	if r.private && to.Name != "" {
		if g.decide(to).Private {
			return nil
		}
		err := deny(to, "its address %s is %s", spelled(a, judged), r.why)
		err.private = true
		return err
	}
	return deny(policy.Flow{Addr: judged, Port: to.Port, Proto: to.Proto}, "its address %s is %s", spelled(a, judged), r.why)
}

// deny returns the error for an address; missing is the flow that a rule would have to
// allow, or zero.
func deny(missing policy.Flow, format string, args ...any) *deniedError {
	return &deniedError{Decision: policy.Decision{Reason: fmt.Sprintf(format, args...)}, missing: missing}
}

// spelled is an address as a reason shows it, with the one that it hides if that was
// judged.
func spelled(a, judged netip.Addr) string {
	if a == judged {
		return a.String()
	}
	return fmt.Sprintf("%s (which hides %s)", a, judged)
}
