package egress

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/policy"
)

// HostNet is what the host's networks are, as far as no name may lead there.
type HostNet struct {
	Own    []netip.Prefix // the host's own addresses, mostly blocks of one
	OnLink []netip.Prefix // networks whose hosts are neighbours: reached without a router
	Err    error          // the networks could not be read: no address is dialled but the loopback's
}

// owns reports whether an address is one of the host's interfaces.
func (h HostNet) owns(a netip.Addr) bool {
	return slices.ContainsFunc(h.Own, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

func (h HostNet) equal(o HostNet) bool {
	return slices.Equal(h.Own, o.Own) && slices.Equal(h.OnLink, o.OnLink)
}

// ThisHost returns what is known of this host's networks, as the gateway knows them.
func ThisHost() policy.Host {
	now := new(hostNets).get()
	h := policy.Host{Neighbours: now.OnLink}
	for _, p := range now.Own {
		if p.IsSingleIP() {
			h.Own = append(h.Own, p.Addr())
		}
	}
	return h
}

// thisNAT64 has the answer of the host's resolver for this process.
var thisNAT64 = &nat64{resolve: hostResolve}

// HostFor is ThisHost for judging a rule. For one about global IPv6 addresses it has the
// prefixes of NAT64 too, which may ask the host's resolver and take two seconds; without an
// answer there are none.
func HostFor(ctx context.Context, r *policy.Rule) policy.Host {
	h := ThisHost()
	if r.Action == policy.Allow && r.AboutGlobalIPv6() {
		thisNAT64.learn(ctx, new(hostNets).get())
		h.Translated = thisNAT64.prefixes()
	}
	return h
}

// hostNetTime is how long a list of the host's networks holds: hosts change
// networks, and a burst of connections is not to ask the kernel each time.
const hostNetTime = time.Second

// Networks that are wider than these are no networks of neighbours, but routes to
// everything (0.0.0.0/1 and 128.0.0.0/1 are a default route in two parts).
const widest4, widest6 = 8, 16

// hostNets reads the host's networks. When that fails, the last answer holds.
type hostNets struct {
	mu   sync.Mutex
	last HostNet
	at   time.Time
}

func (h *hostNets) get() HostNet {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < hostNetTime {
		return h.last
	}
	now, err := readHostNet()
	switch {
	case err == nil:
		h.last, h.at = now, time.Now()
	case h.at.IsZero():
		return HostNet{Err: err}
	}
	return h.last
}

// readHostNet asks the kernel for the addresses of the interfaces and for the routes.
func readHostNet() (HostNet, error) {
	var h HostNet
	links, err := net.Interfaces()
	if err != nil {
		return h, fmt.Errorf("list the network interfaces: %w", err)
	}
	shared := map[int]bool{} // interfaces with neighbours
	for _, l := range links {
		shared[l.Index] = l.Flags&net.FlagBroadcast != 0 && l.Flags&(net.FlagPointToPoint|net.FlagLoopback) == 0
		list, err := l.Addrs()
		if err != nil {
			return h, fmt.Errorf("list the addresses of %s: %w", l.Name, err)
		}
		for _, a := range list {
			h.addAddress(a)
		}
	}
	rib, err := syscall.NetlinkRIB(unix.RTM_GETROUTE, unix.AF_UNSPEC)
	if err != nil {
		return h, fmt.Errorf("list the routes: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(rib)
	if err != nil {
		return h, fmt.Errorf("list the routes: %w", err)
	}
	for _, m := range messages {
		if r, ok := parseRoute(m); ok {
			h.addRoute(r, shared)
		}
	}
	return h, nil
}

// addAddress adds an interface's address and the network around it.
func (h *HostNet) addAddress(a net.Addr) {
	n, ok := a.(*net.IPNet)
	if !ok {
		return
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return
	}
	addr = addr.Unmap()
	h.addOwn(itself(addr))
	if ones, bits := n.Mask.Size(); bits == addr.BitLen() {
		h.addOnLink(netip.PrefixFrom(addr, ones).Masked())
	}
}

// addOwn adds addresses of the host, but for the loopback's, which are reserved anyway.
func (h *HostNet) addOwn(p netip.Prefix) {
	if !p.Addr().IsLoopback() && !slices.Contains(h.Own, p) {
		h.Own = append(h.Own, p)
	}
}

// addOnLink adds a network of neighbours, unless it is one address or everything.
func (h *HostNet) addOnLink(p netip.Prefix) {
	widest := widest6
	if p.Addr().Is4() {
		widest = widest4
	}
	if !p.IsSingleIP() && !p.Addr().IsLoopback() && p.Bits() >= widest && !slices.Contains(h.OnLink, p) {
		h.OnLink = append(h.OnLink, p)
	}
}

// route is a route of the kernel, as far as it matters here.
type route struct {
	to     netip.Prefix
	table  uint32
	kind   byte // rtnetlink(7): RTN_UNICAST and others
	link   int  // the interface, or 0
	router bool // the next hop is a router
}

// addRoute adds a route to the host's own addresses, or to neighbours on a shared
// interface. Tunnels have no neighbours: what is routed into one is the other end's.
func (h *HostNet) addRoute(r route, shared map[int]bool) {
	switch {
	case r.kind == unix.RTN_LOCAL && r.table == unix.RT_TABLE_LOCAL && r.to.Bits() > 0:
		h.addOwn(r.to)
	case r.kind == unix.RTN_UNICAST && !r.router && shared[r.link]:
		h.addOnLink(r.to)
	}
}

// parseRoute reads one route (struct rtmsg of rtnetlink(7)); not ok if the message is
// none, or a route to everything.
func parseRoute(m syscall.NetlinkMessage) (r route, ok bool) {
	if m.Header.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
		return r, false
	}
	bits, flags := int(m.Data[1]), binary.NativeEndian.Uint32(m.Data[8:12])
	r.table, r.kind = uint32(m.Data[4]), m.Data[7]
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil || flags&unix.RTM_F_CLONED != 0 {
		return r, false
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.RTA_DST:
			if addr, ok := netip.AddrFromSlice(a.Value); ok {
				r.to = netip.PrefixFrom(addr, bits)
			}
		case unix.RTA_OIF:
			r.link = int(binary.NativeEndian.Uint32(a.Value))
		case unix.RTA_TABLE:
			r.table = binary.NativeEndian.Uint32(a.Value)
		case unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH:
			r.router = true
		}
	}
	return r, r.to.IsValid()
}
