package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A name is resolved here, on the host, at the moment of dialling; every address
// is judged, and the very address that was judged is dialled. So an answer that
// changes between a check and a dial (DNS rebinding) has nothing to change.

const (
	// dialTimeout bounds resolving and connecting together.
	dialTimeout = 20 * time.Second
	// eyeballDelay is the head start of each attempt (RFC 8305, section 5).
	eyeballDelay = 250 * time.Millisecond
	// maxAttempts bounds the addresses of a name that are tried.
	maxAttempts = 8
	// resolveTTL is how long an answer of the host's resolver is used again, so
	// that a burst of connections asks once. Each use is judged anew.
	resolveTTL = 5 * time.Second
	// maxResolved bounds the answers kept.
	maxResolved = 1024
)

// deniedError is a dial that the policy or the floor forbids.
type deniedError struct {
	reason  string
	rule    string // that forbade it, if a rule did
	suggest target // what a rule would have to name
}

func (e *deniedError) Error() string { return e.reason }

// dialer connects on the host. Safe for concurrent use.
type dialer struct {
	resolve   func(ctx context.Context, name string) ([]netip.Addr, error)
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	hostAddrs func() []netip.Addr
	pools     []netip.Prefix
	decide    func(target) verdict // of the policy in force now

	mu    sync.Mutex
	cache map[string]resolved
}

type resolved struct {
	addrs []netip.Addr
	until time.Time
}

// connect dials a target. Errors: *deniedError, or the network's.
func (d *dialer) connect(ctx context.Context, t target) (net.Conn, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := d.addresses(ctx, t)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	return d.race(ctx, t, addrs)
}

// addresses gives those that may be dialled, in the order to try.
func (d *dialer) addresses(ctx context.Context, t target) ([]netip.Addr, error) {
	if t.host {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	all := []netip.Addr{t.addr}
	if t.name != "" {
		var err error
		if all, err = d.lookup(ctx, t.name); err != nil {
			return nil, err
		}
	}
	var good []netip.Addr
	var denied error
	for _, a := range all {
		if err := d.permit(a, t); err != nil {
			denied = err
			continue
		}
		good = append(good, a)
	}
	if len(good) == 0 && denied != nil {
		return nil, denied
	}
	if len(good) == 0 {
		return nil, fmt.Errorf("%s has no address", t.name)
	}
	good = interleave(good)
	return good[:min(len(good), maxAttempts)], nil
}

// permit judges one address of a target: a rule that denies it wins, and the
// floor holds unless a rule is about that part of it: "everything" (0.0.0.0/0)
// does not mean the host's loopback.
func (d *dialer) permit(a netip.Addr, t target) error {
	byAddr := target{addr: a, port: t.port, proto: t.proto}
	v := d.decide(byAddr)
	if !v.allow && v.rule != "" {
		return &deniedError{reason: fmt.Sprintf("its address %s is denied", a), rule: v.rule}
	}
	if slices.ContainsFunc(d.pools, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return &deniedError{reason: fmt.Sprintf("its address %s is one of bawn's own", a)}
	}
	block, why := onFloor(a, d.hostAddrs)
	if why == "" || v.allow && v.prefix.IsValid() && v.prefix.Bits() >= block.Bits() && block.Overlaps(v.prefix) {
		return nil
	}
	return &deniedError{reason: fmt.Sprintf("its address %s is %s", a, why), suggest: byAddr}
}

// lookup resolves with a short memory.
func (d *dialer) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	d.mu.Lock()
	known, ok := d.cache[name]
	d.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.addrs, nil
	}
	addrs, err := d.resolve(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("resolve %s on the host: %w", name, err)
	}
	var plain []netip.Addr
	for _, a := range addrs {
		// Resolvers give IPv4 as mapped IPv6: judge what will be dialled.
		if a = a.Unmap(); !slices.Contains(plain, a) {
			plain = append(plain, a)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cache == nil || len(d.cache) >= maxResolved {
		d.cache = map[string]resolved{}
	}
	d.cache[name] = resolved{plain, time.Now().Add(resolveTTL)}
	return plain, nil
}

// interleave puts the families in turn, that of the first address first (RFC
// 8305, section 4).
func interleave(addrs []netip.Addr) []netip.Addr {
	if len(addrs) == 0 {
		return nil
	}
	var first, second, out []netip.Addr
	for _, a := range addrs {
		if a.Is4() == addrs[0].Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	for i := range max(len(first), len(second)) {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) {
			out = append(out, second[i])
		}
	}
	return out
}

// race dials the addresses one after another without waiting for a slow one.
func (d *dialer) race(ctx context.Context, t target, addrs []netip.Addr) (net.Conn, netip.Addr, error) {
	if len(addrs) == 1 { // most often: nobody to race with
		conn, err := d.dial(ctx, t.proto, netip.AddrPortFrom(addrs[0], t.port).String())
		return conn, addrs[0], err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		addr netip.Addr
		err  error
	}
	results := make(chan result, len(addrs))
	start := func(a netip.Addr) {
		conn, err := d.dial(ctx, t.proto, netip.AddrPortFrom(a, t.port).String())
		results <- result{conn, a, err}
	}
	var errs []error
	next, running := 0, 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next < len(addrs) || running > 0 {
		var more <-chan time.Time
		if next < len(addrs) {
			more = timer.C
		}
		select {
		case <-more:
			go start(addrs[next])
			next++
			running++
			timer.Reset(eyeballDelay)
		case r := <-results:
			running--
			if r.err == nil {
				// The losers are cancelled; one that made it all the same is closed.
				go func(n int) {
					for range n {
						if late := <-results; late.conn != nil {
							late.conn.Close()
						}
					}
				}(running)
				return r.conn, r.addr, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0)
		}
	}
	return nil, netip.Addr{}, errors.Join(errs...)
}

// hostResolve asks the host's resolver as any program there would: /etc/hosts,
// nsswitch, search domains, a corporate resolver.
func hostResolve(ctx context.Context, name string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// asDenied finds a deniedError.
func asDenied(err error) (*deniedError, bool) {
	var d *deniedError
	ok := errors.As(err, &d)
	return d, ok
}

// target is what a rule would have to name to allow the dial of t.
func (e *deniedError) target(t target) target {
	if e.suggest != (target{}) {
		return e.suggest
	}
	return t
}
