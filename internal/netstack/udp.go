package netstack

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// Theory of operation: datagrams
//
// The stack has no UDP endpoints: each datagram that passed the filter comes to
// datagram, which puts its payload into the queue of its association. So what waits,
// for an answer of the caller or for a reader, is a copy of the payload and not the
// frame, and all queues of a sandbox together have one bound, which also counts what
// the host spends for an empty datagram.

const (
	// maxUDPWait is how many associations may wait for Accept or Reject.
	maxUDPWait = 1024
	// maxUDPMore is how many more datagrams wait with the first.
	maxUDPMore = 16
	// maxUDPQueue bounds the datagrams that wait in one association, and
	// maxUDPQueues those of all together, in bytes. Each datagram counts its payload
	// and datagramCost. More are dropped, as datagrams may be.
	maxUDPQueue  = 256 << 10
	maxUDPQueues = 8 << 20
	datagramCost = 256
)

// associations are the pairs of addresses between which datagrams pass.
type associations struct {
	mu      sync.Mutex
	byID    map[stack.TransportEndpointID]*association
	waiting int // of them those without an answer
	bytes   int // what is queued
}

// UDPRequest is the first datagram between two addresses. Exactly one of Accept
// and Reject must be called.
type UDPRequest struct {
	Src, Dst netip.AddrPort
	assoc    *association
	head     []byte // the headers of the first datagram
}

// association is an accepted request, or one that waits, as a net.Conn of datagrams.
type association struct {
	stack    *Stack
	id       stack.TransportEndpointID
	src, dst netip.AddrPort // the guest, the world

	// Guarded by the stack's associations.mu.
	changed  *sync.Cond
	waiting  bool // for Accept or Reject
	closed   bool
	queue    [][]byte
	bytes    int
	deadline time.Time
	timer    *time.Timer // wakes readers at the deadline
}

// datagram is called by the reader of the link for each datagram. Those that come
// before the answer wait with the first: a resolver asks for both families at once.
func (s *Stack) datagram(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	head := header.UDP(pkt.TransportHeader().Slice())
	size := int(head.Length()) - header.UDPMinimumSize
	if size < 0 || size > pkt.Data().Size() {
		return true // malformed
	}
	a := &s.udp
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.byID[id]
	if c == nil {
		if a.waiting >= maxUDPWait {
			return true // dropped
		}
		c = &association{
			stack: s, id: id, waiting: true, changed: sync.NewCond(&a.mu),
			src: addrPort(id.RemoteAddress, id.RemotePort), dst: addrPort(id.LocalAddress, id.LocalPort),
		}
		if !c.room(size) {
			return true
		}
		a.byID[id] = c
		a.waiting++
		r := &UDPRequest{Src: c.src, Dst: c.dst, assoc: c}
		r.head = append(append(r.head, pkt.NetworkHeader().Slice()...), head...)
		go s.cfg.UDP(r)
	}
	if c.room(size) {
		c.put(pkt.Data().AsRange().Capped(size).ToSlice())
	}
	return true
}

// room reports whether a datagram of size bytes may be queued. The lock is held.
func (c *association) room(size int) bool {
	if c.waiting && len(c.queue) > maxUDPMore {
		return false
	}
	cost := size + datagramCost
	return c.bytes+cost <= maxUDPQueue && c.stack.udp.bytes+cost <= maxUDPQueues
}

// put queues a datagram. The lock is held.
func (c *association) put(b []byte) {
	c.queue = append(c.queue, b)
	c.account(len(b) + datagramCost)
	c.changed.Signal()
}

func (c *association) account(n int) {
	c.bytes += n
	c.stack.udp.bytes += n
}

// answered ends the wait. The lock is held.
func (c *association) answered() {
	if c.waiting {
		c.waiting = false
		c.stack.udp.waiting--
	}
}

// Accept makes the association. Reads give and writes take whole datagrams, the
// first one included.
func (r *UDPRequest) Accept() (net.Conn, error) {
	a := &r.assoc.stack.udp
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.assoc.closed {
		return nil, fmt.Errorf("netstack: association: %w", net.ErrClosed)
	}
	r.assoc.answered()
	return r.assoc, nil
}

// Reject answers with an ICMP error.
func (r *UDPRequest) Reject() {
	_ = r.assoc.Close()
	r.assoc.stack.link.prohibit(r.head)
}

// Read returns the next datagram; what of it does not fit into b is lost.
func (c *association) Read(b []byte) (int, error) {
	a := &c.stack.udp
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case !c.deadline.IsZero() && !time.Now().Before(c.deadline):
			return 0, os.ErrDeadlineExceeded
		case len(c.queue) > 0:
			d := c.queue[0]
			c.queue[0] = nil
			if c.queue = c.queue[1:]; len(c.queue) == 0 {
				c.queue = nil
			}
			c.account(-len(d) - datagramCost)
			return copy(b, d), nil
		}
		c.changed.Wait()
	}
}

// Write sends one datagram to the guest.
func (c *association) Write(b []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	proto := header.IPv4ProtocolNumber
	if c.dst.Addr().Is6() {
		proto = header.IPv6ProtocolNumber
	}
	route, err := c.stack.stack.FindRoute(nicID, c.id.LocalAddress, c.id.RemoteAddress, proto, false)
	if err != nil {
		return 0, fmt.Errorf("netstack: route: %s", err)
	}
	defer route.Release()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(route.MaxHeaderLength()), Payload: buffer.MakeWithData(b),
	})
	defer pkt.DecRef()
	pkt.TransportProtocolNumber = udp.ProtocolNumber
	head := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	length := uint16(pkt.Size())
	head.Encode(&header.UDPFields{SrcPort: c.dst.Port(), DstPort: c.src.Port(), Length: length})
	sum := route.PseudoHeaderChecksum(udp.ProtocolNumber, length)
	if sum = head.CalculateChecksum(checksum.Combine(sum, pkt.Data().Checksum())); sum != 0xffff {
		sum = ^sum // 0 would mean that there is none (RFC 768)
	}
	head.SetChecksum(sum)
	if err := route.WritePacket(stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: 64}, pkt); err != nil {
		return 0, fmt.Errorf("netstack: send a datagram: %s", err)
	}
	return len(b), nil
}

func (c *association) isClosed() bool {
	c.stack.udp.mu.Lock()
	defer c.stack.udp.mu.Unlock()
	return c.closed
}

// Close ends the association: a later datagram begins another one.
func (c *association) Close() error {
	a := &c.stack.udp
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.answered()
	delete(a.byID, c.id)
	c.account(-c.bytes)
	c.queue = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	c.changed.Broadcast()
	return nil
}

// SetReadDeadline sets when Read gives up; zero is never.
func (c *association) SetReadDeadline(t time.Time) error {
	a := &c.stack.udp
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.deadline = t
	if !t.IsZero() {
		c.wakeAt(time.Until(t))
	}
	c.changed.Broadcast()
	return nil
}

// wakeAt wakes readers after d. The lock is held.
func (c *association) wakeAt(d time.Duration) {
	if c.timer != nil {
		c.timer.Reset(d)
		return
	}
	c.timer = time.AfterFunc(d, func() {
		c.stack.udp.mu.Lock()
		defer c.stack.udp.mu.Unlock()
		c.changed.Broadcast()
	})
}

// SetDeadline is SetReadDeadline: a write does not wait for the guest's programs.
func (c *association) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn; see SetDeadline.
func (c *association) SetWriteDeadline(time.Time) error { return nil }

// LocalAddr returns the address in the world.
func (c *association) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.dst) }

// RemoteAddr returns the guest's address.
func (c *association) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(c.src) }

// closeAll ends all associations.
func (a *associations) closeAll() {
	a.mu.Lock()
	list := make([]*association, 0, len(a.byID))
	for _, c := range a.byID {
		list = append(list, c)
	}
	a.mu.Unlock()
	for _, c := range list {
		_ = c.Close()
	}
}
