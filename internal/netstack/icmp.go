package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// quoted is how much of a packet an ICMP error repeats after its IP header: the
// ports (RFC 792), and enough for the sender to find its socket.
const quoted = 64

// prohibit sends the guest an ICMP error about a packet that was not let through: "communication
// administratively prohibited" (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1).
func (l *link) prohibit(packet []byte) {
	if len(packet) == 0 {
		return
	}
	switch packet[0] >> 4 {
	case 4:
		l.prohibit4(packet)
	case 6:
		l.prohibit6(packet)
	}
}

func (l *link) prohibit4(packet []byte) {
	quote := packet[:min(len(packet), header.IPv4MinimumSize+quoted)]
	total := header.IPv4MinimumSize + header.ICMPv4MinimumSize + len(quote)
	b := make([]byte, total)
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(total), TTL: 64, Protocol: uint8(header.ICMPv4ProtocolNumber),
		SrcAddr: address(l.cfg.Gateway4.Addr()), DstAddr: address(l.cfg.Guest4.Addr()),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	icmp := header.ICMPv4(b[header.IPv4MinimumSize:])
	icmp.SetType(header.ICMPv4DstUnreachable)
	icmp.SetCode(header.ICMPv4AdminProhibited)
	copy(icmp[header.ICMPv4MinimumSize:], quote)
	icmp.SetChecksum(^checksum.Checksum(icmp, 0))
	l.write(header.IPv4ProtocolNumber, b)
}

func (l *link) prohibit6(packet []byte) {
	quote := packet[:min(len(packet), header.IPv6MinimumSize+quoted)]
	length := header.ICMPv6DstUnreachableMinimumSize + len(quote)
	b := make([]byte, header.IPv6MinimumSize+length)
	src, dst := address(l.cfg.Gateway6.Addr()), address(l.cfg.Guest6.Addr())
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(length), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: 64, SrcAddr: src, DstAddr: dst,
	})
	icmp := header.ICMPv6(b[header.IPv6MinimumSize:])
	icmp.SetType(header.ICMPv6DstUnreachable)
	icmp.SetCode(header.ICMPv6Prohibited)
	copy(icmp[header.ICMPv6DstUnreachableMinimumSize:], quote)
	icmp.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: icmp, Src: src, Dst: dst}))
	l.write(header.IPv6ProtocolNumber, b)
}
