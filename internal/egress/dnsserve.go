package egress

import (
	"context"
	"time"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/egress/audit"
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
// alone. nil is no answer.
func (g *Gateway) reply(query []byte, h *processHint) []byte {
	if !g.limiter.dns.Allow() {
		if len(query) < dnsHeader || query[2]&0x80 != 0 {
			return nil
		}
		g.write(audit.Entry{Verdict: audit.Denied, Proto: "dns", Reason: "too many queries a second"}, h)
		return bareReply(query, dns.RcodeRefused)
	}
	res := *g.res // one that knows the process that asks
	res.seen = func(q dns.Question, name string, allowed bool) { g.sawQuery(q, name, allowed, h) }
	return res.answer(query)
}

// sawQuery logs a query.
func (g *Gateway) sawQuery(q dns.Question, name string, allowed bool, h *processHint) {
	e := audit.Entry{Verdict: audit.Allowed, Proto: "dns", App: dns.TypeToString[q.Qtype], Name: name}
	if allowed {
		g.write(e, h)
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
	g.deny(e, d, suggest, h)
}

// serveDNS answers queries over TCP (RFC 7766).
func (g *Gateway) serveDNS(h *processHint, req TCPRequest) {
	defer g.dnsTCP.Add(-1)
	if g.dnsTCP.Add(1) > maxResolverTCP || !g.enter() {
		req.Reject()
		return
	}
	defer g.wg.Done()
	c, err := req.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(g.ctx, func() { c.Close() })()
	framed := dns.Conn{Conn: c}
	query := make([]byte, maxQuery)
	for {
		_ = c.SetDeadline(time.Now().Add(dnsIdle))
		n, err := framed.Read(query) // a query that is longer is an error
		if err != nil || n < dnsHeader {
			return
		}
		out := g.reply(query[:n], h)
		if out == nil {
			return
		}
		if _, err := framed.Write(out); err != nil {
			return
		}
	}
}

// serveDNSPackets answers queries over UDP; each Read is one.
func (g *Gateway) serveDNSPackets(h *processHint, req UDPRequest) {
	defer g.dnsUDP.Add(-1)
	if g.dnsUDP.Add(1) > maxResolverUDP || !g.enter() {
		req.Reject()
		return
	}
	defer g.wg.Done()
	c, err := req.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(g.ctx, func() { c.Close() })()
	buf := make([]byte, maxQuery+1)
	for g.ctx.Err() == nil {
		_ = c.SetReadDeadline(time.Now().Add(dnsUDPIdle))
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if out := g.reply(buf[:n], h); out != nil {
			if _, err := c.Write(out); err != nil {
				return
			}
		}
	}
}
