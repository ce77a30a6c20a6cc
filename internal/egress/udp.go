package egress

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// udpIdle ends an association that both sides have left alone (RFC 4787,
	// REQ-5, wants two minutes at least).
	udpIdle = 2 * time.Minute
	// maxDatagram is the longest UDP payload, in bytes.
	maxDatagram = 65507
	// maxUDP bounds the associations: each holds two buffers of maxDatagram.
	maxUDP = 256
)

// packetAcceptor is a UDP association that the guest begins
// (netstack.UDPRequest).
type packetAcceptor interface {
	Accept() (net.Conn, error)
	Reject()
}

// udp serves one association. Nothing but DNS passes without a rule for UDP.
func (g *Gateway) udp(w *who, dst netip.AddrPort, req packetAcceptor) {
	if slices.Contains(g.set.dns, dst) {
		g.serveDNSPackets(w, req)
		return
	}
	t, release, err := g.targetOf(dst, "udp")
	defer release()
	e := Entry{Proto: "udp", Name: t.name, Port: t.port}
	if t.name == "" {
		e.Addr = t.addr
	}
	refuse := func(reason string) {
		g.deny(t, e, verdict{reason: reason}, false, w)
		req.Reject()
	}
	switch {
	case err != nil:
		refuse(err.Error())
		return
	case !g.limiter.flows.Allow():
		refuse("too many new connections a second")
		return
	}
	defer g.udpOpen.Add(-1)
	f := (*flow)(nil)
	if g.udpOpen.Add(1) <= maxUDP {
		f = g.begin(t, w)
	}
	if f == nil {
		refuse("too many open connections")
		return
	}
	defer f.end()
	if v := f.judge(); !v.allow {
		f.deny(v, true)
		req.Reject()
		return
	}
	up, err := f.connect()
	if err != nil {
		req.Reject()
		return
	}
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	f.relayPackets(c, up)
}

// relayPackets copies datagrams both ways until both sides are silent.
func (f *flow) relayPackets(c, up net.Conn) {
	var both sync.WaitGroup
	copyPackets := func(dst, src net.Conn) {
		buf := make([]byte, maxDatagram)
		for {
			n, err := src.Read(buf)
			if err != nil {
				break
			}
			// Either direction keeps both alive.
			until := time.Now().Add(udpIdle)
			_ = dst.SetReadDeadline(until)
			_ = src.SetReadDeadline(until)
			if _, err := dst.Write(buf[:n]); err != nil {
				break
			}
		}
		c.Close()
		up.Close()
	}
	until := time.Now().Add(udpIdle)
	_ = c.SetReadDeadline(until)
	_ = up.SetReadDeadline(until)
	both.Go(func() { copyPackets(c, up) })
	copyPackets(up, c)
	both.Wait()
}
