package guest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// configureNet sets the one network card up, all but its addresses. The host's
// word is all there is: neither DHCP nor router advertisements are listened to.
func (a *agent) configureNet(n *wire.Net) error {
	link, err := a.awaitCard()
	if err != nil {
		return err
	}
	if err := configureLink(link, n); err != nil {
		return err
	}
	a.net, a.link = n, link
	return errors.Join(
		replaceFile("/etc/resolv.conf", resolvFile(n.DNS), 0o644),
		a.trust(n.CACert),
	)
}

func (a *agent) awaitCard() (netlink.Link, error) {
	var link netlink.Link
	if err := a.events.until(deviceLimit, func() bool { link = card(); return link != nil }); err != nil {
		return nil, fmt.Errorf("network card: %w", err)
	}
	return link, nil
}

func configureLink(link netlink.Link, n *wire.Net) error {
	name := link.Attrs().Name
	for s, v := range map[string]string{
		"accept_ra": "0", "autoconf": "0", "accept_dad": "0",
		"addr_gen_mode": "1", // no link-local address: it would be the same in all copies of a machine
	} {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/"+s, []byte(v), 0)
	}
	if n.MTU > 0 {
		if err := netlink.LinkSetMTU(link, n.MTU); err != nil {
			return fmt.Errorf("network: MTU %d: %w", n.MTU, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	return nil
}

// address gives the card its addresses, instead of those it had. It asks the
// kernel nothing that the agent knows: each kind of question costs a restored
// machine under emulation milliseconds.
func (a *agent) address(r *wire.Identity) error {
	mac, err := net.ParseMAC(r.MAC)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if slices.Equal(a.addresses, r.Addresses) && bytes.Equal(a.link.Attrs().HardwareAddr, mac) {
		return nil
	}
	if err := setMAC(a.link, mac); err != nil {
		return err
	}
	if err := dropAddresses(a.link, a.addresses); err != nil {
		return err
	}
	if err := addAddresses(a.link, r.Addresses); err != nil {
		return err
	}
	a.addresses = r.Addresses
	return addRoutes(a.link, a.net.Gateways)
}

// dropAddresses takes addresses away from the card. Somebody may have done so
// already.
func dropAddresses(link netlink.Link, list []string) error {
	for _, s := range list {
		addr, err := netlink.ParseAddr(s)
		if err == nil {
			err = netlink.AddrDel(link, addr)
		}
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("network: address %s: %w", s, err)
		}
	}
	return nil
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
	if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
		return fmt.Errorf("network: address %s: %w", mac, err)
	}
	link.Attrs().HardwareAddr = mac
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

// addRoutes sends everything through the gateways, which are on no network of
// the card's: nobody else is.
func addRoutes(link netlink.Link, gateways []string) error {
	index := link.Attrs().Index
	for _, s := range gateways {
		gw := net.ParseIP(s)
		if gw == nil {
			return fmt.Errorf("network: gateway %q", s)
		}
		zero, bits := net.IPv4zero, 32
		if gw.To4() == nil {
			zero, bits = net.IPv6zero, 128
		}
		for _, r := range []netlink.Route{
			{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: gw, Mask: net.CIDRMask(bits, bits)}},
			{LinkIndex: index, Gw: gw, Dst: &net.IPNet{IP: zero, Mask: net.CIDRMask(0, bits)}},
		} {
			if err := netlink.RouteReplace(&r); err != nil {
				return fmt.Errorf("network: gateway %s: %w", s, err)
			}
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
