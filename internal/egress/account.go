package egress

import "bawn.dev/bawn/internal/sys/budget"

// Account adds the limits of the gateway and of its log to a sandbox's account.
func (g *Gateway) Account(a *budget.Account) {
	locked := func(count func() int) func() int64 {
		return func() int64 {
			g.mu.Lock()
			defer g.mu.Unlock()
			return int64(count())
		}
	}
	a.Add("flows", int64(g.limiter.conns), locked(func() int { return len(g.flows) }))
	a.Add("UDP flows", maxUDP, locked(func() int { return g.udpOpen }))
	a.Add("recent denials", maxDenials, locked(func() int { return len(g.denials) }))
	a.Add("access requests", maxAsks, locked(func() int { return len(g.asks) }))
	a.Add("DNS clients over TCP", maxDNSTCP, func() int64 { return int64(g.dnsTCP.Load()) })
	a.Add("DNS clients over UDP", maxDNSUDP, func() int64 { return int64(g.dnsUDP.Load()) })
	a.Add("large copy buffers", maxLarge, func() int64 { return int64(largeInUse.Load()) })
	a.Add("connections of git over SSH", maxSSH, func() int64 { return int64(len(g.ssh)) })
	a.Add("objects to be signed", maxSigning, func() int64 { return int64(len(g.signing.places)) })
	if g.pending != nil {
		a.Add("questions about processes", maxHints, func() int64 { return int64(len(g.asked)) })
		a.Add("log lines that wait for a process", pendingQueue, func() int64 { return int64(len(g.pending.lines)) })
	}
	g.cfg.Log.Account(a)
}
