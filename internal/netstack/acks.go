package netstack

import (
	"encoding/binary"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Delayed acknowledgements. The stack acknowledges each segment at once, in a frame
// of its own. Most often an answer follows that carries the same acknowledgement, and
// each frame costs the guest an interrupt and two processes a system call. So a bare
// acknowledgement is held for a moment, and dropped if another frame of the
// connection carries it (RFC 1122, section 4.2.3.2, allows 500 ms, and wants one for
// every second segment).
//
// Two are sent at once: one that acknowledges nothing new, since it is about the
// window or a loss, and the second while one is held.

const (
	// ackDelay is how long an acknowledgement may wait: longer than a server of
	// this host takes to answer, and much shorter than the user notices.
	ackDelay = 5 * time.Millisecond
)

// ackKey is a connection, of which one end is always the guest.
type ackKey struct {
	addr          [16]byte
	port, guestPt uint16
}

// ackFlow is the last acknowledgement on a connection.
type ackFlow struct {
	key  ackKey
	ack  uint32
	held []byte // the frame that is held; empty: none
}

// acks holds acknowledgements back. Not safe for concurrent use.
type acks struct {
	flows   map[int]*ackFlow
	waiting int // flows that hold a frame
}

// hold is called with each frame to the guest, with its length before it. held
// means that acks has kept a copy, and the frame is not to be sent. other is a held
// frame of another connection that must be sent now, if there is one.
func (a *acks) hold(frame []byte) (held bool, other []byte) {
	key, tcp, payload, ok := ackOf(frame[lengthLen:])
	if !ok {
		return false, nil
	}
	f := a.flow(key)
	ack, flags := tcp.AckNumber(), tcp.Flags()
	switch {
	case flags&header.TCPFlagSyn != 0: // a new connection takes the place
		if f.key != key {
			other = f.held
		}
		a.drop(f)
		f.key, f.ack = key, ack
		return false, other
	case f.key == key && flags&header.TCPFlagRst != 0:
		a.drop(f) // the connection ends
		return false, nil
	case f.key != key || flags&header.TCPFlagAck == 0 || int32(ack-f.ack) < 0:
		return false, nil
	case ack != f.ack && payload == 0 && flags == header.TCPFlagAck && len(f.held) == 0:
		f.ack, f.held = ack, append(f.held, frame...)
		a.waiting++
		return true, nil
	}
	f.ack = ack
	a.drop(f) // this frame acknowledges it, too
	return false, nil
}

// flow returns the place of a connection in the table, which may hold another's.
func (a *acks) flow(k ackKey) *ackFlow {
	h := binary.BigEndian.Uint32(k.addr[12:]) ^ uint32(k.port)<<16 ^ uint32(k.guestPt)
	h *= 0x9e3779b1 // 2^32 divided by the golden ratio, which spreads well
	i := int(h >> 22)
	f := a.flows[i]
	if f == nil {
		if a.flows == nil {
			a.flows = map[int]*ackFlow{}
		}
		f = &ackFlow{}
		a.flows[i] = f
	}
	return f
}

func (a *acks) drop(f *ackFlow) {
	if len(f.held) > 0 {
		f.held = f.held[:0]
		a.waiting--
	}
}

// releaseAll appends all held frames to out, and holds none.
func (a *acks) releaseAll(out []byte) []byte {
	if a.waiting == 0 {
		return out
	}
	for _, f := range a.flows {
		out = append(out, f.held...)
		a.drop(f)
	}
	return out
}

// ackOf finds the TCP header in a frame of our own stack's; not ok for others.
func ackOf(frame []byte) (k ackKey, tcp header.TCP, payload int, ok bool) {
	p := frame[header.EthernetMinimumSize:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case ethTypeIPv4:
		ip := header.IPv4(p)
		if len(p) < header.IPv4MinimumSize || !ip.IsValid(len(p)) || ip.Protocol() != protoTCP {
			return k, nil, 0, false
		}
		copy(k.addr[12:], p[12:16])
		tcp = header.TCP(ip.Payload())
	case ethTypeIPv6:
		ip := header.IPv6(p)
		if len(p) < header.IPv6MinimumSize || !ip.IsValid(len(p)) || ip.NextHeader() != protoTCP {
			return k, nil, 0, false
		}
		copy(k.addr[:], p[8:24])
		tcp = header.TCP(ip.Payload())
	}
	if len(tcp) < header.TCPMinimumSize || int(tcp.DataOffset()) < header.TCPMinimumSize || int(tcp.DataOffset()) > len(tcp) {
		return k, nil, 0, false
	}
	k.port, k.guestPt = tcp.SourcePort(), tcp.DestinationPort()
	return k, tcp, len(tcp) - int(tcp.DataOffset()), true
}
