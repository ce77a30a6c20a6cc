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

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// A name is resolved here, on the host, at the moment of dialling; every address
// is judged, and the very address that was judged is dialled. So an answer that
// changes between a check and a dial (DNS rebinding) has nothing to change. Where the
// host has a proxy, viaproxy.go says what differs.

const (
	// dialTimeout bounds resolving and connecting together.
	dialTimeout = 20 * time.Second
	// eyeballDelay is the head start of each attempt (RFC 8305, section 5).
	eyeballDelay = 250 * time.Millisecond
	// maxAttempts bounds the addresses of a name that are tried.
	maxAttempts = 8
	// maxAddresses bounds the addresses of a name that are judged and kept: whoever owns a name chooses how many it has.
	maxAddresses = 256
	// resolveTTL is how long an answer of the host's resolver is used again, so
	// that a burst of connections asks once. Each use is judged anew.
	resolveTTL = 5 * time.Second
	// maxResolved bounds the answers kept.
	maxResolved = 1024
)

// deniedError is a dial that a rule or the reserved ranges forbid.
type deniedError struct {
	policy.Decision
	missing policy.Flow // a rule that allows it would help; zero if none would
	private bool        // the rule has to be one with private:
}

func (e *deniedError) Error() string { return e.Reason }

// asDenied finds a deniedError.
func asDenied(err error) (*deniedError, bool) {
	var d *deniedError
	ok := errors.As(err, &d)
	return d, ok
}

// dialer connects on the host. Safe for concurrent use.
type dialer struct {
	resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	guard   addressGuard

	// proxies are the host's; tunnel connects through one to a host and port (viaproxy.go).
	proxies *proxyenv.Settings
	tunnel  func(ctx context.Context, p *proxyenv.Proxy, target string) (net.Conn, error)
	hosts   map[string][]netip.Addr // names to which the user gave their addresses

	mu    sync.Mutex
	cache map[string]resolved
}

// resolved is an answer of the host's resolver.
type resolved struct {
	addrs  []netip.Addr
	until  time.Time
	failed bool // there was none: only for names that go through a proxy
}

// connect dials a flow's target. The address is the zero Addr if a proxy was asked for the
// target by name. Errors: *deniedError, or the network's.
func (d *dialer) connect(ctx context.Context, to policy.Flow) (net.Conn, netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	p := d.targetProxy(to)
	switch {
	case p != nil && to.Proto == policy.UDP:
		return nil, netip.Addr{}, refusedUDP(p)
	case p != nil && to.Name != "" && !d.given(to.Name):
		c, err := d.connectName(ctx, p, to)
		return c, netip.Addr{}, err
	}
	addrs, err := d.addresses(ctx, to)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	return d.race(ctx, to, addrs)
}

// addresses returns the addresses that may be dialled, in the order to try.
func (d *dialer) addresses(ctx context.Context, to policy.Flow) ([]netip.Addr, error) {
	if to.Host {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	all := []netip.Addr{to.Addr}
	if to.Name != "" {
		var err error
		if all, err = d.lookup(ctx, to.Name); err != nil {
			return nil, err
		}
	}
	d.guard.prepare(ctx, all)
	var good []netip.Addr
	var denied error
	for _, a := range all {
		if err := d.guard.permit(a, to); err != nil {
			denied = err
			continue
		}
		good = append(good, a)
	}
	if len(good) == 0 && denied != nil {
		return nil, denied
	}
	if len(good) == 0 {
		return nil, fmt.Errorf("%s has no address", to.Name)
	}
	good = interleave(good)
	return good[:min(len(good), maxAttempts)], nil
}

// lookup resolves a name, or returns an answer that is at most resolveTTL old. Errors: *deniedError if there are too many
// addresses to judge all of them, or the resolver's.
func (d *dialer) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if r, ok := d.recall(name); ok && !r.failed {
		return r.addrs, nil
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
		if len(plain) > maxAddresses {
			return nil, deny(policy.Flow{}, "%s has more than %d addresses", name, maxAddresses)
		}
	}
	d.remember(name, resolved{addrs: plain, until: time.Now().Add(resolveTTL)})
	return plain, nil
}

// recall returns the answer for a name that remember kept, while it holds.
func (d *dialer) recall(name string) (r resolved, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok = d.cache[name]
	return r, ok && time.Now().Before(r.until)
}

// remember keeps an answer of the host's resolver.
func (d *dialer) remember(name string, r resolved) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cache == nil || len(d.cache) >= maxResolved {
		d.cache = map[string]resolved{}
	}
	d.cache[name] = r
}

// interleave alternates the address families, beginning with that of the first
// address (RFC 8305, section 4).
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

// attempt is the result of one dial.
type attempt struct {
	conn net.Conn
	addr netip.Addr
	err  error
}

// dialOne dials one address of a target.
func (d *dialer) dialOne(ctx context.Context, to policy.Flow, a netip.Addr) attempt {
	if p := d.addressProxy(to, a); p != nil {
		conn, err := d.tunnel(ctx, p, netip.AddrPortFrom(a, to.Port).String())
		return attempt{conn, a, err}
	}
	conn, err := d.dial(ctx, string(to.Proto), netip.AddrPortFrom(a, to.Port).String())
	if err == nil && d.reachedHost(conn, a) {
		conn.Close()
		return attempt{nil, a, deny(policy.Flow{}, "its address %s has become the host's own", a)}
	}
	return attempt{conn, a, err}
}

// reachedHost reports whether a connection ends at this host, though the address was not the
// host's when it was judged: both ends have it then (the kernel takes the destination as the
// source of a local connection). Nothing was sent yet.
func (d *dialer) reachedHost(conn net.Conn, a netip.Addr) bool {
	if a.IsLoopback() || d.guard.hostNet().owns(a) { // judged as that (flow.recheck)
		return false
	}
	return addrOf(conn.LocalAddr()) == a && addrOf(conn.RemoteAddr()) == a
}

// addrOf returns the IP address of one end of a connection, or the zero Addr.
func addrOf(end net.Addr) netip.Addr {
	switch end := end.(type) {
	case *net.TCPAddr:
		return end.AddrPort().Addr().Unmap()
	case *net.UDPAddr:
		return end.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// race dials the addresses one after another without waiting for a slow one, and
// returns the first connection.
func (d *dialer) race(ctx context.Context, to policy.Flow, addrs []netip.Addr) (net.Conn, netip.Addr, error) {
	if len(addrs) == 1 { // most often
		r := d.dialOne(ctx, to, addrs[0])
		return r.conn, r.addr, r.err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan attempt, len(addrs))
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
			a := addrs[next]
			go func() { results <- d.dialOne(ctx, to, a) }()
			next++
			running++
			timer.Reset(eyeballDelay)
		case r := <-results:
			running--
			if r.err == nil {
				go closeLate(results, running)
				return r.conn, r.addr, nil
			}
			errs = append(errs, r.err)
			timer.Reset(0)
		}
	}
	return nil, netip.Addr{}, errors.Join(errs...)
}

// closeLate waits for the n dials that lost the race, which are cancelled, and closes
// the connections of those that succeeded all the same.
func closeLate(results <-chan attempt, n int) {
	for range n {
		if late := <-results; late.conn != nil {
			late.conn.Close()
		}
	}
}
