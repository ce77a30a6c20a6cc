package egress

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestHostNetworks: the host's own addresses and its neighbours are read from a real
// kernel, by the prefix of an address as well as by a route; what lies behind a router or
// a tunnel, and a default route in two parts, is no neighbour.
func TestHostNetworks(t *testing.T) {
	if !ownNamespaces(t) {
		return
	}
	loopbackUp(t)
	device := func(l netlink.Link, addrs ...string) netlink.Link {
		if err := netlink.LinkAdd(l); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, fs.ErrPermission) { // /dev/net/tun may be for root only
			t.Skip("this host makes no such interfaces:", l.Type(), err)
		} else if err != nil {
			t.Fatal(l.Type(), err)
		}
		for _, a := range addrs {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				t.Fatal(err)
			}
			addr.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(l, addr); err != nil {
				t.Fatal(a, err)
			}
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		return l
	}
	attrs := func(name string) netlink.LinkAttrs { a := netlink.NewLinkAttrs(); a.Name = name; return a }
	eth := device(&netlink.Veth{LinkAttrs: attrs("eth0"), PeerName: "peer"}, "203.0.113.5/27", "192.0.2.9/32", "2001:db8:a::5/64", "2001:db8:b::5/128")
	if peer, err := netlink.LinkByName("peer"); err != nil || netlink.LinkSetUp(peer) != nil {
		t.Fatal("the other end:", err)
	}
	tun := device(&netlink.Tuntap{LinkAttrs: attrs("tun0"), Mode: netlink.TUNTAP_MODE_TUN}, "198.51.100.1/32")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	add := func(l netlink.Link, to, router string, change func(*netlink.Route)) {
		_, dst, err := net.ParseCIDR(to)
		if err != nil {
			t.Fatal(err)
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Gw: net.ParseIP(router)}
		if router == "" {
			r.Scope = netlink.SCOPE_LINK
		}
		if change != nil {
			change(r)
		}
		if err := netlink.RouteAdd(r); err != nil {
			t.Fatal(to, err)
		}
	}
	add(eth, "198.51.100.128/25", "", nil)                                  // by DHCP, without an address in it
	add(eth, "2001:db8:c::/64", "", nil)                                    // by a router advertisement
	add(eth, "192.0.2.64/26", "", func(r *netlink.Route) { r.Table = 100 }) // by a table of its own
	add(eth, "0.0.0.0/1", "", nil)                                          // a default route in two parts
	add(eth, "8.8.0.0/16", "203.0.113.1", nil)                              // behind a router
	add(tun, "9.9.0.0/16", "", nil)                                         // through a tunnel
	add(lo, "198.51.100.64/28", "", func(r *netlink.Route) {                // a block of own addresses
		r.Table, r.Type, r.Scope = unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, netlink.SCOPE_HOST
	})
	host := new(hostNets).get()
	if host.Err != nil {
		t.Fatal(host.Err)
	}
	for text, why := range map[string]string{
		"203.0.113.5": "the host's own address", "192.0.2.9": "the host's own address", "2001:db8:a::5": "the host's own address", "2001:db8:b::5": "the host's own address",
		"198.51.100.1": "the host's own address", "198.51.100.70": "the host's own address",
		"203.0.113.30":   "in a network that this host is connected to (203.0.113.0/27)",
		"2001:db8:a::77": "in a network that this host is connected to (2001:db8:a::/64)",
		"198.51.100.200": "in a network that this host is connected to (198.51.100.128/25)",
		"2001:db8:c::1":  "in a network that this host is connected to (2001:db8:c::/64)",
		"192.0.2.65":     "in a network that this host is connected to (192.0.2.64/26)",
		"203.0.113.40":   "", "192.0.2.10": "", "2001:db8:b::6": "", "198.51.100.2": "", "8.8.8.8": "", "9.9.9.9": "", "1.1.1.1": "", "127.0.0.1": "loopback",
	} {
		if got := reservedFor(netip.MustParseAddr(text), host).why; got != why {
			t.Errorf("%s: %q, want %q", text, got, why)
		}
	}
	if slices.ContainsFunc(host.Own, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		t.Error("everything is the host's own")
	}
}
