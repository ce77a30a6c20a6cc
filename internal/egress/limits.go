package egress

import (
	"context"

	"golang.org/x/time/rate"
)

// Limits bound what one sandbox may take of the host. Zero is the default.
type Limits struct {
	Conns          int     // open flows; default 4096
	ConnsPerSecond float64 // new flows; default 500, with a burst of 1000
	DNSPerSecond   float64 // queries; default 500, with a burst of 1000
	BytesPerSecond int64   // both ways together; default: no bound
}

const (
	defaultConns  = 4096
	defaultRate   = 500
	burstFactor   = 2
	minBytesBurst = 256 << 10 // bytes; so that short exchanges are quick at any rate
)

// limiter holds the buckets of a sandbox.
type limiter struct {
	conns int
	flows *rate.Limiter
	dns   *rate.Limiter
	asks  *rate.Limiter // access requests
	bytes *rate.Limiter // nil: no bound
}

func newLimiter(l Limits) *limiter {
	bucket := func(perSecond float64) *rate.Limiter {
		if perSecond <= 0 {
			perSecond = defaultRate
		}
		return rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*burstFactor)))
	}
	out := &limiter{conns: l.Conns, flows: bucket(l.ConnsPerSecond), dns: bucket(l.DNSPerSecond), asks: rate.NewLimiter(rate.Every(askEvery), askBurst)}
	if out.conns <= 0 {
		out.conns = defaultConns
	}
	if l.BytesPerSecond > 0 {
		out.bytes = rate.NewLimiter(rate.Limit(l.BytesPerSecond), max(minBytesBurst, int(l.BytesPerSecond)))
	}
	return out
}

// wait takes n bytes out of the bucket, and blocks until they are there or ctx ends.
func (l *limiter) wait(ctx context.Context, n int) error {
	for l.bytes != nil && n > 0 {
		some := min(n, l.bytes.Burst()) // WaitN fails beyond the burst
		if err := l.bytes.WaitN(ctx, some); err != nil {
			return err
		}
		n -= some
	}
	return nil
}
