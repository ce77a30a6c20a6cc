package egress

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/relay"
)

// flow is one connection or UDP association from its first packet to its end.
type flow struct {
	g     *Gateway
	id    uint64
	to    policy.Flow
	hint  *processHint
	start time.Time

	release func() // ends the hold on the name's address

	sent atomic.Int64
	got  atomic.Int64

	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	d       policy.Decision // if judged
	judged  bool
	app     string     // what the bytes look like: tls, http, http2, raw
	dialed  netip.Addr // the server's address, once connected; zero if a proxy was asked for the name
	via     string     // the proxy's host and port, once connected through one
	opened  bool       // the log has its EventOpen
	usedECH bool       // a ClientHello with ECH passed
	also    []string   // of a flow to an address: the names that the client gave
	conns   []net.Conn // to end with the flow
	why     string     // why it was cut; empty if it was not
	gone    bool       // the guest's side was reset
	// requests are those under way that were judged; unlisted: there are others.
	requests map[*openRequest]struct{}
	unlisted bool
	idle     *time.Timer // cuts the flow when it is half-closed and idle; nil before
}

// end takes a flow off the list and writes its last line.
func (f *flow) end() {
	f.cancel()
	f.endRequests()
	f.mu.Lock()
	conns, opened, why := f.conns, f.opened, f.why
	if f.idle != nil {
		f.idle.Stop()
	}
	e := f.entry()
	f.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	if opened {
		e.Verdict, e.Event, e.Reason = audit.Allowed, audit.EventClose, why
		e.Sent, e.Got, e.Lasted = f.sent.Load(), f.got.Load(), time.Since(f.start)
		f.g.write(e, f.hint)
	}
	f.g.mu.Lock()
	delete(f.g.flows, f)
	if f.to.Proto == policy.UDP {
		f.g.udpOpen--
	}
	f.g.mu.Unlock()
	f.release()
	f.g.wg.Done()
}

// entry returns what every line about the flow has. f.mu is held.
func (f *flow) entry() audit.Entry {
	e := audit.EntryOf(f.to, f.d)
	e.Flow, e.App, e.Via = f.id, f.app, f.via
	if f.dialed.IsValid() {
		e.Addr = f.dialed
	}
	return e
}

// judge asks the rules about the flow.
func (f *flow) judge() policy.Decision {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Under the lock: recheck must find either no judgement or this one.
	f.d, f.judged = f.g.decide(f.to), true
	return f.d
}

// deny logs a denial of the flow. suggest is the rule that would allow it, or
// empty.
func (f *flow) deny(d policy.Decision, suggest string) {
	f.mu.Lock()
	e := f.entry()
	f.mu.Unlock()
	f.g.deny(e, d, suggest, f.hint)
}

// refused logs a denial by the gateway itself, which no rule decided.
func (f *flow) refused(reason string) {
	f.deny(policy.Decision{Reason: reason}, "")
}

// fault logs what is wrong on the host with a flow that is refused. The guest does not read it, as it may name files and
// addresses of the host: refused tells it that much as it may know.
func (f *flow) fault(reason string) {
	f.mu.Lock()
	e := f.entry()
	f.mu.Unlock()
	f.g.write(e.Deny(policy.Decision{Reason: reason}, ""), f.hint)
}

// recheck cuts the flow if the rules now in force forbid it, or want bytes inspected
// that have passed uninspected.
func (f *flow) recheck() {
	f.mu.Lock()
	judged, old, dialed, also, usedECH := f.judged, f.d, f.dialed, slices.Clone(f.also), f.usedECH
	requests, unlisted := slices.Collect(maps.Keys(f.requests)), f.unlisted
	f.mu.Unlock()
	if !judged {
		return // it asks the rules later
	}
	d := f.g.decide(f.to)
	switch {
	case !d.Allow:
		f.cut("the rules changed: " + d.Reason)
	case old.Raw && !d.Raw:
		f.cut("the rules changed: the rule no longer has raw:")
	case d.Requests && (!old.Requests || unlisted):
		f.cut("the rules changed: they are about requests on this connection now")
	case usedECH && !d.ECH && !d.Raw:
		f.cut("the rules changed: the rule no longer has ech:")
	case dialed.IsValid() && !f.to.Host && f.g.dialer.guard.permit(dialed, f.to) != nil:
		f.cut("the rules changed: its address is not allowed")
	}
	for _, r := range requests {
		if why := f.forbidsNow(r); why != "" {
			f.cut("the rules changed: " + why)
			return
		}
	}
	for _, name := range also {
		if !f.decideHere(name).Allow {
			f.cut("the rules changed: " + name + " is not allowed")
			return
		}
	}
}

// forbidsNow returns why the rules in force forbid a request that is under way; empty if they allow it.
func (f *flow) forbidsNow(r *openRequest) string {
	d := f.g.decideRequest(r.q, r.also)
	switch {
	case !d.Allow:
		return r.q.String() + ": " + d.Reason
	case r.rule.Push == nil && d.Push != nil:
		return r.q.String() + " is a push, and they are about its refs now"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for ref, d := range f.g.deniedChanges(r) {
		return "push to " + ref + ": " + d.Reason
	}
	if why := r.apiForbidden(d); why != "" {
		return r.q.String() + ": " + why
	}
	return ""
}

// decideHere asks the rules about a name in place of the flow's address. A name with rules about
// its requests is denied here: they are judged on connections to the name only.
func (f *flow) decideHere(name string) policy.Decision {
	d := f.g.decide(policy.Flow{Name: name, Port: f.to.Port, Proto: f.to.Proto})
	d.Allow = d.Allow && !d.Requests
	return d
}

// cut ends the flow at once, with resets.
func (f *flow) cut(why string) {
	f.mu.Lock()
	if f.why == "" {
		f.why = why
	}
	conns := slices.Clone(f.conns)
	f.mu.Unlock()
	f.cancel()
	for _, c := range conns {
		abort(c)
	}
}

// add gives the flow a connection to end when it is cut; false if it was.
func (f *flow) add(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.why != "" || f.gone {
		abort(c)
		return false
	}
	f.conns = append(f.conns, c)
	if r, ok := c.(resetter); ok {
		r.OnReset(f.reset)
	}
	return true
}

// setApp sets the protocol that the log shows.
func (f *flow) setApp(app string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.app = app
}

// connect dials the flow's target and counts what passes. Errors: *deniedError,
// which is logged already, or the network's.
func (f *flow) connect() (net.Conn, error) {
	c, addr, err := f.g.dialer.connect(f.ctx, f.to)
	f.mu.Lock()
	if err == nil {
		f.dialed, f.via, f.opened = addr, f.g.dialer.via(f.to, addr), true
	}
	e := f.entry()
	f.mu.Unlock()
	if err != nil {
		f.failed(e, err)
		return nil, err
	}
	counted := &countedConn{Conn: c, f: f}
	if !f.add(counted) {
		return nil, context.Canceled
	}
	// The rules may have changed between the judgement of the address and now.
	f.recheck()
	e.Verdict, e.Event = audit.Allowed, audit.EventOpen
	f.g.write(e, f.hint)
	return counted, nil
}

// suggestFor returns the rule that would have let a denied dial through; empty if
// none would.
func (g *Gateway) suggestFor(d *deniedError) string {
	set := g.current.Load()
	switch {
	case d.missing == (policy.Flow{}) || set == nil:
		return ""
	case d.private:
		return set.SuggestPrivate(d.missing)
	}
	return g.suggest(d.missing)
}

// failed logs why a dial did not succeed.
func (f *flow) failed(e audit.Entry, err error) {
	if d, ok := asDenied(err); ok {
		f.g.deny(e, d.Decision, f.g.suggestFor(d), f.hint)
		return
	}
	e.Verdict, e.Event, e.Reason = audit.Allowed, audit.EventClose, "not reached: "+err.Error()
	f.g.write(e, f.hint)
}

// countedConn counts and throttles what passes to and from the server.
type countedConn struct {
	net.Conn
	f *flow
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.f.got.Add(int64(n))
	c.f.g.got.Add(int64(n))
	if werr := c.f.g.limiter.wait(c.f.ctx, n); werr != nil && err == nil {
		err = werr
	}
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	if err := c.f.g.limiter.wait(c.f.ctx, len(b)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	c.f.sent.Add(int64(n))
	c.f.g.sent.Add(int64(n))
	return n, err
}

// CloseWrite passes on that the guest ended its half.
func (c *countedConn) CloseWrite() error {
	c.f.halfClosed()
	return relay.CloseWrite(c.Conn)
}

func (c *countedConn) Abort() { abort(c.Conn) }
