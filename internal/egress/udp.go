package egress

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bawn.dev/bawn/internal/policy"
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

// UDP decides on an association from src to dst and serves it to its end. Nothing
// but DNS passes without a rule for UDP.
func (g *Gateway) UDP(src, dst netip.AddrPort, req UDPRequest) {
	h := g.attribute("udp", src, dst)
	if slices.Contains(g.cfg.DNS, dst) {
		g.serveDNSPackets(h, req)
		return
	}
	f := g.admit(h, dst, policy.UDP)
	if f == nil {
		req.Reject()
		return
	}
	defer f.end()
	f.serveUDP(req)
}

// serveUDP judges an association and serves it.
func (f *flow) serveUDP(req UDPRequest) {
	if d := f.judge(); !d.Allow {
		f.deny(d, f.g.suggest(f.to))
		req.Reject()
		return
	}
	if why := f.uninspected(); why != "" {
		f.refused(why)
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

// movedToHost reports whether the server's address has become one of the host's, which no rule
// opens. A datagram goes wherever the address is when it is sent.
func (f *flow) movedToHost() bool {
	f.mu.Lock()
	at := f.dialed
	f.mu.Unlock()
	return !f.to.Host && f.g.cfg.HostNet().owns(at) && f.g.dialer.guard.permit(at, f.to) != nil
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
			if dst == up && f.movedToHost() {
				f.cut("its address has become the host's own")
				break
			}
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
