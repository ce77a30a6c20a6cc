package egress

import (
	"encoding/binary"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/policy"
)

const (
	// dnsIdle bounds how long a DNS client over TCP may be silent.
	dnsIdle = 10 * time.Second
	// dnsUDPIdle is how long a port of the guest that asked over UDP is
	// remembered. Most ask once or twice, and never again.
	dnsUDPIdle = 2 * time.Second
	// maxResolverUDP bounds those ports.
	maxResolverUDP = 1024
)

// reply answers a query within the rate; beyond it, REFUSED from the header
// alone.
func (g *Gateway) reply(query []byte, w *who) []byte {
	if !g.limiter.dns.Allow() {
		if len(query) < dnsHeader || query[2]&0x80 != 0 {
			return nil
		}
		g.write(Entry{Verdict: Denied, Proto: "dns", Reason: "too many queries a second"}, w)
		return bareReply(query, dns.RcodeRefused)
	}
	res := *g.res // which knows whose query it is
	res.seen = func(q dns.Question, name string, allowed bool) { g.sawQuery(q, name, allowed, w) }
	return res.answer(query)
}

// sawQuery logs a query.
func (g *Gateway) sawQuery(q dns.Question, name string, allowed bool, w *who) {
	e := Entry{Verdict: Allowed, Proto: "dns", App: dns.TypeToString[q.Qtype], Name: name}
	if allowed {
		g.write(e, w)
		return
	}
	to := policy.Flow{Name: name, Port: 443, Proto: policy.TCP}
	d, suggest := g.decide(to), ""
	if d.Allow || d.Rule == nil {
		d = policy.Decision{Reason: "no rule allows this name"}
		if e.WantsHost() {
			suggest = g.suggest(to)
		}
	}
	g.deny(e, d, suggest, w)
}

// serveDNS answers queries over TCP (RFC 7766).
func (g *Gateway) serveDNS(w *who, req TCPRequest) {
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
		out := g.reply(query, w)
		if out == nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// serveDNSPackets answers queries over UDP; each Read is one.
func (g *Gateway) serveDNSPackets(w *who, req UDPRequest) {
	defer g.dnsUDP.Add(-1)
	if g.dnsUDP.Add(1) > maxResolverUDP {
		req.Reject()
		return
	}
	c, err := req.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	buf := make([]byte, maxQuery+1)
	for g.ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(dnsUDPIdle))
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if out := g.reply(buf[:n], w); out != nil {
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
