package egress

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
)

// Why a flow is denied before the rules are asked: destinations inside bawn's own
// networks that lead nowhere, and the limits.
var (
	errNoName      = errors.New("no name is known for this address: look up the name again with bawn's DNS")
	errMapped      = errors.New("an IPv4 address written as an IPv6 address: connect to the IPv4 address")
	errGateway     = errors.New("bawn's gateway serves only DNS and its own page")
	errTooManyNew  = errors.New("too many new connections a second")
	errTooManyOpen = errors.New("too many open connections")
)

// admit begins a flow from the guest to dst; nil if it may not even be judged,
// which is logged then. The caller ends the flow.
func (g *Gateway) admit(h *processHint, dst netip.AddrPort, proto policy.Proto) *flow {
	to, release, err := g.flowTo(dst, proto)
	if err == nil && !g.limiter.flows.Allow() {
		err = errTooManyNew
	}
	if err == nil {
		if f := g.begin(to, release, h); f != nil {
			return f
		}
		err = errTooManyOpen
	}
	release()
	g.deny(audit.EntryOf(to, policy.Decision{}), policy.Decision{Reason: err.Error()}, "", h)
	return nil
}

// flowTo finds what a guest's destination stands for. release ends the hold on
// the name; it is never nil.
func (g *Gateway) flowTo(dst netip.AddrPort, proto policy.Proto) (to policy.Flow, release func(), err error) {
	to = policy.Flow{Addr: dst.Addr(), Port: dst.Port(), Proto: proto}
	release = func() {}
	if to.Addr.Is4In6() {
		return to, release, errMapped
	}
	for _, own := range slices.Concat(g.cfg.DNS, g.cfg.Info) {
		if own.Addr() == to.Addr {
			return to, release, errGateway
		}
	}
	if g.names.Contains(to.Addr) {
		if to.Name, release = g.names.Hold(to.Addr); to.Name == "" {
			return to, release, errNoName
		}
		to.Addr, to.Host = netip.Addr{}, to.Name == policy.HostName
		return to, release, nil
	}
	to.AtHost = g.cfg.HostNet().owns(to.Addr)
	return to, release, nil
}

// begin lists a flow; nil when there are too many. release is called when the flow
// ends.
func (g *Gateway) begin(to policy.Flow, release func(), h *processHint) *flow {
	f := &flow{g: g, id: g.nextID.Add(1), to: to, release: release, hint: h, start: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(g.flows) >= g.limiter.conns || to.Proto == policy.UDP && g.udpOpen >= maxUDP {
		return nil
	}
	if to.Proto == policy.UDP {
		g.udpOpen++
	}
	f.ctx, f.cancel = context.WithCancel(g.ctx)
	g.flows[f] = struct{}{}
	g.wg.Add(1)
	return f
}
