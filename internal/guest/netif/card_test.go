package netif

import (
	"net"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// TestNetworkCard configures a card in a network namespace of its own.
func TestNetworkCard(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("needs network namespaces:", err)
	}
	mac, err := net.ParseMAC("52:54:00:12:34:56")
	must(t, err)
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "card0"}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(tap); err != nil {
		t.Skip("needs /dev/net/tun:", err)
	}
	must(t, netlink.LinkSetHardwareAddr(tap, mac))
	link, err := netlink.LinkByName("card0")
	must(t, err)
	must(t, configureLink(link, &wire.Net{MTU: 1400}))
	c := &Card{link: link, gateways: []string{"10.1.2.1", "fd00::1"}}
	address := func(addrs ...string) error {
		return c.Assign(&wire.Identity{MAC: mac.String(), Addresses: addrs})
	}
	for _, addrs := range [][]string{{"10.9.2.9/32", "fd09::9/128"}, {"10.9.2.3/32", "fd09::3/128"}, {"10.9.2.3/32", "fd09::3/128"}} {
		must(t, address(addrs...)) // others after a restore
	}
	all, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	must(t, err)
	for _, a := range all {
		if s := a.IPNet.String(); a.Scope == unix.RT_SCOPE_UNIVERSE && s != "10.9.2.3/32" && s != "fd09::3/128" {
			t.Errorf("the card still has %s", s)
		}
	}
	link, err = netlink.LinkByName("card0")
	must(t, err)
	if link.Attrs().MTU != 1400 || link.Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("got %+v", link.Attrs())
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: link.Attrs().Index}, netlink.RT_FILTER_OIF)
	must(t, err)
	var gateways []string
	for _, r := range routes {
		if r.Gw != nil {
			gateways = append(gateways, r.Gw.String())
		}
	}
	slices.Sort(gateways)
	if !slices.Equal(gateways, []string{"10.1.2.1", "fd00::1"}) {
		t.Errorf("gateways %q", gateways)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
	must(t, err)
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_TENTATIVE != 0 && a.IP.Equal(net.ParseIP("fd09::3")) {
			t.Error("the address is tentative: duplicate detection runs")
		}
	}
	if address("10.1.2.3") == nil {
		t.Error("a malformed address was taken")
	}
	c.gateways = []string{"x"}
	if address("10.9.2.4/32") == nil {
		t.Error("a malformed gateway was taken")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
