package netstack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// verdict is what happens to a frame.
type verdict int

const (
	pass   verdict = iota
	drop           // silently
	refuse         // with an ICMP error
	piece          // a fragment, to be put together with others
)

// filter lets through what a guest with these addresses may send.
type filter struct {
	guestMAC, gatewayMAC []byte
	guest4, gateway4     netip.Addr
	guest6, gateway6     netip.Addr
}

func newFilter(c *Config) filter {
	return filter{
		guestMAC: c.GuestMAC, gatewayMAC: c.GatewayMAC,
		guest4: c.Guest4.Addr(), gateway4: c.Gateway4.Addr(),
		guest6: c.Guest6.Addr(), gateway6: c.Gateway6.Addr(),
	}
}

// Protocol numbers as they stand in a frame. Layouts: Ethernet II; ARP for IPv4 (RFC
// 826); IPv4 (RFC 791); IPv6 (RFC 8200); neighbour discovery (RFC 4861).
const (
	ethTypeIPv4 = uint16(header.IPv4ProtocolNumber)
	ethTypeARP  = uint16(header.ARPProtocolNumber)
	ethTypeIPv6 = uint16(header.IPv6ProtocolNumber)

	protoICMP  = byte(header.ICMPv4ProtocolNumber)
	protoTCP   = byte(header.TCPProtocolNumber)
	protoUDP   = byte(header.UDPProtocolNumber)
	protoICMP6 = byte(header.ICMPv6ProtocolNumber)

	protoFragment = byte(header.IPv6FragmentHeader)
)

// inspect judges a frame of at least an Ethernet header. A Drop with an empty Why is
// not reported: ordinary guests send such frames all the time.
func (f *filter) inspect(frame []byte) (verdict, Drop) {
	dst, src, typ := frame[0:6], frame[6:12], binary.BigEndian.Uint16(frame[12:])
	if !bytes.Equal(src, f.guestMAC) {
		return drop, Drop{Proto: "ethernet", Why: "a source MAC address that is not the guest's"}
	}
	if dst[0]&1 == 0 && !bytes.Equal(dst, f.gatewayMAC) {
		return drop, Drop{Proto: "ethernet", Why: "a destination MAC address that is not the gateway's"}
	}
	packet := frame[header.EthernetMinimumSize:]
	switch typ {
	case ethTypeARP:
		return f.arp(packet)
	case ethTypeIPv4:
		return f.ipv4(packet)
	case ethTypeIPv6:
		return f.ipv6(packet)
	}
	return drop, Drop{Proto: fmt.Sprintf("ethertype %#04x", typ), Why: "neither IPv4, IPv6 nor ARP"}
}

func (f *filter) arp(p []byte) (verdict, Drop) {
	if len(p) < header.ARPSize || !bytes.Equal(p[0:6], []byte{0, 1, 8, 0, 6, 4}) {
		return drop, Drop{Proto: "arp", Why: "malformed"}
	}
	sender, target := netip.AddrFrom4([4]byte(p[14:18])), netip.AddrFrom4([4]byte(p[24:28]))
	if !bytes.Equal(p[8:14], f.guestMAC) || sender != f.guest4 && !sender.IsUnspecified() {
		return drop, Drop{Proto: "arp", Src: sender, Dst: target, Why: "an address that is not the guest's"}
	}
	if target != f.gateway4 {
		return drop, Drop{} // the link has no other machine
	}
	return pass, Drop{}
}

func (f *filter) ipv4(p []byte) (verdict, Drop) {
	if len(p) < header.IPv4MinimumSize || p[0]>>4 != 4 || int(p[0]&0xf)*4 < header.IPv4MinimumSize {
		return drop, Drop{Proto: "ipv4", Why: "malformed"}
	}
	d := Drop{Proto: protoName(p[9]), Src: netip.AddrFrom4([4]byte(p[12:16])), Dst: netip.AddrFrom4([4]byte(p[16:20]))}
	total := int(binary.BigEndian.Uint16(p[2:]))
	fragment := binary.BigEndian.Uint16(p[6:])
	switch {
	case total < header.IPv4MinimumSize || total > len(p):
		d.Why = "malformed"
	case d.Src != f.guest4:
		d.Why = "a source address that is not the guest's"
	case p[0]&0xf != 5:
		d.Why = "IP options"
	case fragment&0x3fff != 0 && p[9] != protoUDP: // more fragments, or an offset
		d.Why = "a fragment"
	case d.Dst.IsMulticast() || d.Dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return drop, Drop{} // service discovery of all sorts
	}
	if d.Why != "" {
		return drop, d
	}
	if fragment&0x3fff != 0 {
		return piece, d
	}
	return f.transport(p[9], p[header.IPv4MinimumSize:total], d)
}

// transport judges by what the packet carries.
func (f *filter) transport(proto byte, body []byte, d Drop) (verdict, Drop) {
	switch proto {
	case protoTCP:
		if len(body) < header.TCPMinimumSize {
			d.Why = "malformed"
			return drop, d
		}
		return pass, Drop{}
	case protoUDP:
		if len(body) < header.UDPMinimumSize {
			d.Why = "malformed"
			return drop, d
		}
		return pass, Drop{}
	case protoICMP:
		if len(body) >= header.ICMPv4MinimumSize && header.ICMPv4(body).Type() == header.ICMPv4Echo {
			if d.Dst == f.gateway4 {
				return pass, Drop{}
			}
			d.Why = "ping beyond the gateway"
			return refuse, d
		}
		if len(body) > 0 && body[0] == byte(header.ICMPv4DstUnreachable) { // about our own packets
			return drop, Drop{}
		}
		d.Why = "ICMP other than echo"
		return drop, d
	}
	d.Why = "neither TCP, UDP nor ICMP"
	return refuse, d
}

func (f *filter) ipv6(p []byte) (verdict, Drop) {
	if len(p) < header.IPv6MinimumSize || p[0]>>4 != 6 {
		return drop, Drop{Proto: "ipv6", Why: "malformed"}
	}
	next := p[6]
	d := Drop{Proto: protoName(next), Src: netip.AddrFrom16([16]byte(p[8:24])), Dst: netip.AddrFrom16([16]byte(p[24:40]))}
	length := int(binary.BigEndian.Uint16(p[4:]))
	if length > len(p)-header.IPv6MinimumSize {
		d.Why = "malformed"
		return drop, d
	}
	body := p[header.IPv6MinimumSize : header.IPv6MinimumSize+length]
	if next == protoICMP6 {
		return f.icmp6(body, d)
	}
	if next == 0 && d.Dst.IsMulticast() {
		return drop, Drop{} // multicast listener reports
	}
	switch {
	case d.Src != f.guest6 && d.Dst.IsMulticast() && d.Src.IsLinkLocalUnicast():
		return drop, Drop{} // service discovery
	case d.Src != f.guest6:
		d.Why = "a source address that is not the guest's"
		return drop, d
	case d.Dst.IsMulticast():
		return drop, Drop{}
	}
	return f.transport6(next, body, d)
}

func (f *filter) transport6(next byte, body []byte, d Drop) (verdict, Drop) {
	switch {
	case next == protoTCP && len(body) >= header.TCPMinimumSize, next == protoUDP && len(body) >= header.UDPMinimumSize:
		return pass, Drop{}
	case next == protoTCP, next == protoUDP:
		d.Why = "malformed"
		return drop, d
	case next == protoFragment && len(body) >= header.IPv6FragmentHeaderSize && body[0] == protoUDP:
		d.Proto = protoName(protoUDP)
		return piece, d
	}
	d.Why = "an extension header or a protocol other than TCP and UDP"
	return refuse, d
}

func (f *filter) icmp6(body []byte, d Drop) (verdict, Drop) {
	if len(body) < header.ICMPv6MinimumSize {
		d.Why = "malformed"
		return drop, d
	}
	switch typ := header.ICMPv6(body).Type(); {
	case typ == header.ICMPv6EchoRequest && d.Src == f.guest6 && d.Dst == f.gateway6:
		return pass, Drop{}
	case typ == header.ICMPv6EchoRequest && d.Src == f.guest6:
		d.Why = "ping beyond the gateway"
		return refuse, d
	case typ == header.ICMPv6NeighborSolicit && len(body) >= 24 && netip.AddrFrom16([16]byte(body[8:24])) == f.gateway6:
		if d.Src == f.guest6 || d.Src.IsLinkLocalUnicast() {
			return pass, Drop{}
		}
		d.Why = "a source address that is not the guest's"
		return drop, d
	case typ < header.ICMPv6EchoRequest, // errors, which a guest may send about its own traffic
		typ >= header.ICMPv6MulticastListenerQuery && typ <= header.ICMPv6NeighborAdvert,
		typ == header.ICMPv6MulticastListenerV2Report:
		return drop, Drop{} // also listener reports, and solicitations for others
	}
	d.Why = "ICMP other than echo"
	return drop, d
}

func protoName(p byte) string {
	switch p {
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case protoICMP, protoICMP6:
		return "icmp"
	}
	return fmt.Sprintf("ip protocol %d", p)
}
