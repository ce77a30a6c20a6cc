// Package netif configures the machine's one network card and its loopback.
package netif

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// Card is the machine's one network card. Its methods must not be called concurrently.
type Card struct {
	link      netlink.Link
	gateways  []string
	addresses []string // given by us, in CIDR notation
}

// Configure brings the card up with the MTU of n, and remembers its gateways. It has no
// addresses until assign. Neither DHCP nor router advertisements are listened to: the
// host states all settings.
func (c *Card) Configure(n *wire.Net) error {
	c.gateways = n.Gateways
	return configureLink(c.link, n)
}

// LoopbackUp brings the loopback interface up.
func LoopbackUp() error {
	link, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

func configureLink(link netlink.Link, n *wire.Net) error {
	name := link.Attrs().Name
	for s, v := range map[string]string{
		"accept_ra": "0", "autoconf": "0", "accept_dad": "0",
		"addr_gen_mode": "1", // no link-local address, which would be the same in all copies of a machine
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

// Assign gives the card the MAC and IP addresses of r in place of those that it had
// from us, and routes everything through the gateways. It does not ask the kernel for
// what the agent knows: under software emulation each kind of question costs a restored
// machine milliseconds.
func (c *Card) Assign(r *wire.Identity) error {
	mac, err := net.ParseMAC(r.MAC)
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if slices.Equal(c.addresses, r.Addresses) && bytes.Equal(c.link.Attrs().HardwareAddr, mac) {
		return nil
	}
	if err := setMAC(c.link, mac); err != nil {
		return err
	}
	if err := dropAddresses(c.link, c.addresses); err != nil {
		return err
	}
	if err := addAddresses(c.link, r.Addresses); err != nil {
		return err
	}
	c.addresses = r.Addresses
	return addRoutes(c.link, c.gateways)
}

// dropAddresses removes addresses from the card. It is no error if one is not there.
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

// FindCard returns the one network card of the machine, or nil. Bridges, the ends of
// containers' networks and tunnels have other link types.
func FindCard() *Card {
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	for _, l := range links {
		if l.Type() == "device" && l.Attrs().Flags&net.FlagLoopback == 0 {
			return &Card{link: l}
		}
	}
	return nil
}

// setMAC sets the card's MAC address. A restored machine's card has its template's.
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

// addRoutes routes everything through the gateways. They are in no network of the card, so
// each needs a route of its own first.
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

// DropConnections ends the TCP connections from addresses that are not in keep (CIDR
// notation), except those on the loopback: they were the original's of this fork, and
// nobody would answer them. Failures are logged.
func DropConnections(keep []string) {
	own := map[string]bool{}
	for _, s := range keep {
		if ip, _, err := net.ParseCIDR(s); err == nil {
			own[ip.String()] = true
		}
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		sockets, err := netlink.SocketDiagTCP(family)
		if err != nil {
			log.Printf("connections: %v", err)
			continue
		}
		for _, s := range sockets {
			if s.ID.Source.IsLoopback() || s.ID.Source.IsUnspecified() || own[s.ID.Source.String()] || s.ID.DestinationPort == 0 {
				continue
			}
			from := &net.TCPAddr{IP: s.ID.Source, Port: int(s.ID.SourcePort)}
			to := &net.TCPAddr{IP: s.ID.Destination, Port: int(s.ID.DestinationPort)}
			if err := netlink.SocketDestroy(from, to); err != nil {
				log.Printf("end the connection to %s: %v", to, err)
			}
		}
	}
}
