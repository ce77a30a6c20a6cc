package netstack

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Theory of operation: fragments
//
// The guest's own link carries the longest datagram whole, but a container's has an
// MTU of 1500, and what its kernel cut, the guest's kernel forwards in pieces. So
// fragments of UDP datagrams are put together before the filter sees the whole; the
// stack behind never sees one. Fragments of anything else are dropped: TCP finds the
// path's MTU.
//
// A datagram is given up, with all its fragments, if any two of them overlap (RFC
// 5722), if one reaches beyond the end or past the longest packet, or if it is not
// whole in time. The link loses nothing and keeps the order, so the time is short. Only the
// reader of the link uses the table, and it has no timers: what is late is removed
// when the next fragment comes, and what can wait is bounded.

const (
	// maxFragmented bounds the datagrams that are not whole yet. The oldest gives
	// way.
	maxFragmented = 64
	// maxFragmentBytes bounds what they hold together, in bytes.
	maxFragmentBytes = 1 << 20
	// maxFragments bounds the pieces of one datagram: the longest at the smallest
	// MTU of IPv6 has 53.
	maxFragments = 64
	// fragmentTime is how long a datagram may take to be whole. RFC 8200 allows a
	// minute.
	fragmentTime = 5 * time.Second
	// maxPayload bounds what follows the IP header, in bytes.
	maxPayload = 65535 - header.IPv4MinimumSize
)

// fragmentKey tells datagrams apart (RFC 791, RFC 8200 section 4.5).
type fragmentKey struct {
	dst [16]byte
	id  uint32
	six bool
}

// fragment is one piece of a datagram.
type fragment struct {
	key    fragmentKey
	head   []byte // Ethernet and IP header, without a fragment header
	offset int    // of data in the datagram, in bytes
	more   bool   // others follow
	data   []byte
}

// partial is a datagram that is not whole.
type partial struct {
	begun  time.Time
	pieces []part
	bytes  int    // of all pieces
	cost   int    // what the table holds for it
	total  int    // length of the whole; -1 until the last piece came
	head   []byte // of the first piece
	broken bool   // given up: the rest of it is dropped, too
}

type part struct {
	offset int
	data   []byte
}

// fragments puts datagrams together. Not safe for concurrent use.
type fragments struct {
	table map[fragmentKey]*partial
	bytes int
	held  atomic.Int64 // bytes, for others to read
}

// add takes a fragment and returns the frame of the whole datagram when it is there.
// why is not empty when the datagram was given up. It copies what it keeps.
func (t *fragments) add(f fragment, now time.Time) (whole *buffer.View, why string) {
	defer func() { t.held.Store(int64(t.bytes)) }()
	t.expire(now)
	p := t.table[f.key]
	if p == nil {
		p = t.begin(f.key, now)
	}
	if p.broken {
		return nil, ""
	}
	if why := p.refuses(f); why != "" {
		t.give(p)
		p.broken = true
		return nil, why
	}
	t.keep(f.key, p, f)
	if p.total != p.bytes {
		return nil, ""
	}
	whole = p.frame()
	t.remove(f.key)
	return whole, ""
}

// expire removes what took too long.
func (t *fragments) expire(now time.Time) {
	for k, p := range t.table {
		if now.Sub(p.begun) > fragmentTime {
			t.remove(k)
		}
	}
}

func (t *fragments) begin(k fragmentKey, now time.Time) *partial {
	if t.table == nil {
		t.table = map[fragmentKey]*partial{}
	}
	if len(t.table) >= maxFragmented {
		t.removeOldest(k)
	}
	p := &partial{begun: now, total: -1}
	t.table[k] = p
	return p
}

// removeOldest makes room; except stays.
func (t *fragments) removeOldest(except fragmentKey) {
	var oldest fragmentKey
	var at *partial
	for k, p := range t.table {
		if k != except && (at == nil || p.begun.Before(at.begun)) {
			oldest, at = k, p
		}
	}
	if at != nil {
		t.remove(oldest)
	}
}

func (t *fragments) remove(k fragmentKey) {
	t.give(t.table[k])
	delete(t.table, k)
}

// give gives back what a datagram holds.
func (t *fragments) give(p *partial) {
	t.bytes -= p.cost
	p.cost, p.pieces, p.head = 0, nil, nil
}

// refuses returns why a fragment cannot be part of the datagram.
func (p *partial) refuses(f fragment) string {
	end := f.offset + len(f.data)
	switch {
	case len(f.data) == 0, f.more && len(f.data)%8 != 0, end > maxPayload:
		return "a fragment that is malformed"
	case len(p.pieces) >= maxFragments:
		return "a fragment of too many"
	case p.total >= 0 && (end > p.total || !f.more):
		return "a fragment that contradicts another"
	}
	for _, o := range p.pieces {
		if f.offset < o.offset+len(o.data) && o.offset < end {
			return "a fragment that overlaps another"
		}
		if !f.more && o.offset+len(o.data) > end {
			return "a fragment that contradicts another"
		}
	}
	return ""
}

// keep copies a fragment that is not refused.
func (t *fragments) keep(k fragmentKey, p *partial, f fragment) {
	cost := len(f.data) + datagramCost
	for t.bytes+cost > maxFragmentBytes && len(t.table) > 1 {
		t.removeOldest(k)
	}
	t.bytes += cost
	p.cost += cost
	p.bytes += len(f.data)
	p.pieces = append(p.pieces, part{f.offset, append([]byte(nil), f.data...)})
	if f.offset == 0 {
		p.head = append([]byte(nil), f.head...)
	}
	if !f.more {
		p.total = f.offset + len(f.data)
	}
}

// frame returns the whole datagram in a frame.
func (p *partial) frame() *buffer.View {
	v := buffer.NewViewSize(len(p.head) + p.total)
	b := v.AsSlice()
	at := copy(b, p.head)
	for _, o := range p.pieces {
		copy(b[at+o.offset:], o.data)
	}
	packet := b[header.EthernetMinimumSize:]
	if packet[0]>>4 == 6 {
		header.IPv6(packet).SetPayloadLength(uint16(p.total))
		return v
	}
	ip := header.IPv4(packet)
	ip.SetTotalLength(uint16(len(packet)))
	ip.SetFlagsFragmentOffset(0, 0)
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())
	return v
}

// fragmentOf takes a frame apart for which the filter's verdict is piece. The result
// is part of the frame.
func fragmentOf(frame []byte) fragment {
	if frame[header.EthernetMinimumSize]>>4 == 6 {
		return fragment6(frame)
	}
	return fragment4(frame)
}

// fragment4 takes an IPv4 fragment apart.
func fragment4(frame []byte) fragment {
	const at = header.EthernetMinimumSize
	p := frame[at:]
	bits := binary.BigEndian.Uint16(p[6:])
	f := fragment{
		key:    fragmentKey{id: uint32(binary.BigEndian.Uint16(p[4:]))},
		head:   frame[:at+header.IPv4MinimumSize],
		offset: int(bits&0x1fff) * 8, more: bits&0x2000 != 0,
		data: p[header.IPv4MinimumSize:binary.BigEndian.Uint16(p[2:])],
	}
	copy(f.key.dst[:], p[16:20])
	return f
}

// fragment6 likewise takes an IPv6 fragment apart. Its fragment header (RFC 8200
// section 4.5) follows the IP header at once.
func fragment6(frame []byte) fragment {
	const at = header.EthernetMinimumSize
	p := frame[at:]
	extension := p[header.IPv6MinimumSize:]
	bits := binary.BigEndian.Uint16(extension[2:])
	f := fragment{
		key:    fragmentKey{id: binary.BigEndian.Uint32(extension[4:]), six: true},
		head:   append([]byte(nil), frame[:at+header.IPv6MinimumSize]...),
		offset: int(bits &^ 7), more: bits&1 != 0,
		data: p[header.IPv6MinimumSize+header.IPv6FragmentHeaderSize : header.IPv6MinimumSize+int(binary.BigEndian.Uint16(p[4:]))],
	}
	f.head[at+6] = extension[0] // the next header
	copy(f.key.dst[:], p[24:40])
	return f
}
