package egress

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/nameserver"
	"bawn.dev/bawn/internal/policy"
)

const (
	// dnsIdle bounds how long a DNS client over TCP may be silent.
	dnsIdle = 10 * time.Second
	// maxDNSTCP bounds the open DNS connections over TCP.
	maxDNSTCP = 64
	// dnsUDPIdle is how long a port of the guest that asked over UDP is
	// remembered. Most ask once or twice, and never again.
	dnsUDPIdle = 2 * time.Second
	// maxDNSUDP bounds those ports.
	maxDNSUDP = 1024
)

// answerFunc is Resolver.Answer or AnswerStream.
type answerFunc func(query []byte, seen func(nameserver.Question, bool)) []byte

// reply answers a query within the rate; beyond it, REFUSED from the header alone.
// nil is no answer.
func (g *Gateway) reply(query []byte, h *processHint, answer answerFunc) []byte {
	if g.limiter.dns.Allow() {
		return answer(query, func(q nameserver.Question, allowed bool) { g.sawQuery(q, allowed, h) })
	}
	out := nameserver.Refuse(query)
	if out != nil {
		g.write(audit.Entry{Verdict: audit.Denied, Proto: "dns", Reason: "too many queries a second"}, h)
	}
	return out
}

// sawQuery logs a query.
func (g *Gateway) sawQuery(q nameserver.Question, allowed bool, h *processHint) {
	e := audit.Entry{Verdict: audit.Allowed, Proto: "dns", App: q.Type, Name: q.Name}
	if allowed {
		e.Reason = q.Note
		g.write(e, h)
		return
	}
	to := policy.Flow{Name: q.Name, Port: 443, Proto: policy.TCP}
	d, suggest := g.decide(to), ""
	if d.Allow || d.Rule == nil {
		d = policy.Decision{Reason: "no rule allows this name"}
		if e.WantsHost() {
			suggest = g.suggest(policy.Flow{Name: q.Name, Proto: policy.TCP})
		}
	}
	g.deny(e, d, suggest, h)
}

// serveDNSStream answers queries over TCP.
func (g *Gateway) serveDNSStream(h *processHint, req TCPRequest) {
	g.serveDNS(req, &g.dnsTCP, maxDNSTCP, func(c net.Conn) {
		nameserver.ServeStream(c, dnsIdle, func(query []byte) []byte { return g.reply(query, h, g.dns.AnswerStream) })
	})
}

// serveDNSPackets answers queries over UDP.
func (g *Gateway) serveDNSPackets(h *processHint, req UDPRequest) {
	g.serveDNS(req, &g.dnsUDP, maxDNSUDP, func(c net.Conn) {
		nameserver.ServePackets(c, dnsUDPIdle, func(query []byte) []byte { return g.reply(query, h, g.dns.Answer) })
	})
}

// serveDNS accepts a DNS client, of which limit may be open, and serves it until it
// or the gateway ends.
func (g *Gateway) serveDNS(req TCPRequest, open *atomic.Int32, limit int32, serve func(net.Conn)) {
	if !g.enter() {
		req.Reject()
		return
	}
	defer g.wg.Done()
	defer open.Add(-1)
	if open.Add(1) > limit {
		req.Reject()
		return
	}
	c, err := req.Accept()
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(g.ctx, func() { c.Close() })()
	serve(c)
}
