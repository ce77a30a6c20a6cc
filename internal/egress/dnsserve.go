package egress

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// dnsIdle bounds how long a DNS client over TCP may be silent, and how long
	// a UDP one is remembered.
	dnsIdle = 10 * time.Second
)

// reply answers a query within the rate; beyond it, REFUSED from the header
// alone.
func (g *Gateway) reply(query []byte) []byte {
	if !g.limiter.dns.Allow() {
		if len(query) < dnsHeader || query[2]&0x80 != 0 {
			return nil
		}
		g.set.log.Write(Entry{Verdict: Denied, Proto: "dns", Reason: "too many queries a second"})
		return bareReply(query, dns.RcodeRefused)
	}
	return g.res.answer(query)
}

// sawQuery writes a query down.
func (g *Gateway) sawQuery(q dns.Question, name string, allowed bool) {
	e := Entry{Verdict: Allowed, Proto: "dns", App: dns.TypeToString[q.Qtype], Name: name}
	if allowed {
		g.set.log.Write(e)
		return
	}
	t := target{name: name, port: 443, proto: "tcp"}
	g.deny(t, e, verdict{reason: "no rule allows this name"}, true)
}

// serveDNS answers queries over TCP (RFC 7766).
func (g *Gateway) serveDNS(req acceptor) {
	if g.dnsTCP.Add(1) > maxResolverTCP {
		g.dnsTCP.Add(-1)
		req.Reject()
		return
	}
	defer g.dnsTCP.Add(-1)
	c, err := req.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	stop := closeOn(g, c)
	defer stop()
	var size [2]byte
	for {
		_ = c.SetDeadline(time.Now().Add(dnsIdle))
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(size[:]))
		if n < dnsHeader || n > maxQuery {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		out := g.reply(query)
		if out == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// serveDNSPackets answers queries over UDP; each Read is one.
func (g *Gateway) serveDNSPackets(c net.Conn) {
	defer c.Close()
	stop := closeOn(g, c)
	defer stop()
	buf := make([]byte, maxQuery+1)
	for {
		_ = c.SetReadDeadline(time.Now().Add(dnsIdle))
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if out := g.reply(buf[:n]); out != nil {
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}

// closeOn closes a connection when the gateway closes.
func closeOn(g *Gateway, c net.Conn) (stop func()) {
	done := make(chan struct{})
	go func() {
		select {
		case <-g.ctx.Done():
			c.Close()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// isDNS says whether an address is where the guest asks for names.
func (g *Gateway) isDNS(a netip.AddrPort) bool {
	for _, d := range g.set.dns {
		if d == a {
			return true
		}
	}
	return false
}
