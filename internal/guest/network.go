package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"brig.dev/brig/internal/wire"
)

// configureNet sets the one network card up. The host's word is all there is:
// neither DHCP nor router advertisements are listened to.
func (a *agent) configureNet(n *wire.Net) error {
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	var link netlink.Link
	err = a.events.until(deviceLimit, func() bool { link = card(); return link != nil })
	if err != nil {
		return fmt.Errorf("network card: %w", err)
	}
	if err := setMAC(link, mac); err != nil {
		return err
	}
	if err := configureLink(link, n); err != nil {
		return err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	return errors.Join(
		replaceFile("/etc/resolv.conf", resolvFile(n.DNS), 0o644),
		replaceFile("/etc/hosts", []byte(hostsFile(hostname, n.Hosts)), 0o644),
		a.trust(n.CACert),
	)
}

func configureLink(link netlink.Link, n *wire.Net) error {
	name := link.Attrs().Name
	for _, s := range []string{"accept_ra", "autoconf", "accept_dad"} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/"+s, []byte("0"), 0) //nolint:gosec // absent without IPv6
	}
	if n.MTU > 0 {
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			return fmt.Errorf("network: MTU %d: %w", n.MTU, err)
		}
	}
	if err := addAddresses(link, n.Addresses); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return addRoutes(link, n.Gateways)
}

// card is the one network card that the machine has; bridges, containers' ends
// and tunnels are of other types.
func card() netlink.Link {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.Type() == "device" && l.Attrs().Flags&net.FlagLoopback == 0 {
			return l
		}
	}
	return nil
}

// setMAC gives the card the sandbox's own address: a restored machine's card
// has its template's.
func setMAC(link netlink.Link, mac net.HardwareAddr) error {
	if link.Attrs().HardwareAddr.String() == mac.String() {
		return nil
	}
	if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("network: address %s: %w", mac, err)
	}
	return nil
}

func addAddresses(link netlink.Link, list []string) error {
	for _, s := range list {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("network: address %s: %w", s, err)
		}
		if addr.IP.To4() == nil {
			addr.Flags |= unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("network: address %s: %w", s, err)
		}
	}
	return nil
}

func addRoutes(link netlink.Link, gateways []string) error {
	for _, s := range gateways {
		gw := net.ParseIP(s)
		if gw == nil {
			return fmt.Errorf("network: gateway %q", s)
		}
		all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
		if gw.To4() == nil {
			all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw, Dst: all}); err != nil {
			return fmt.Errorf("network: gateway %s: %w", s, err)
		}
	}
	return nil
}

func resolvFile(servers []string) []byte {
	var b strings.Builder
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	return []byte(b.String())
}
