package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// settings are the Config after its defaults and adapters.
type settings struct {
	pool4, pool6 netip.Prefix
	dns, info    []netip.AddrPort
	resolve      func(ctx context.Context, name string) ([]netip.Addr, error)
	dial         func(ctx context.Context, network, addr string) (net.Conn, error)
	hostAddrs    func() []netip.Addr
	log          *Log
	limits       Limits
	process      ProcessFunc
}

// Denial is a flow or a query that was refused.
type Denial struct {
	Time    time.Time  `json:"time"` // of the last one
	Proto   string     `json:"proto"`
	Name    string     `json:"name,omitempty"`
	Addr    netip.Addr `json:"addr,omitzero"`
	Port    uint16     `json:"port,omitempty"`
	Reason  string     `json:"reason"`
	Rule    string     `json:"rule,omitempty"`    // that denied; empty is the default
	Suggest string     `json:"suggest,omitempty"` // the rule to add, if one would help
	Count   int        `json:"count"`
}

// key tells denials apart.
func (d Denial) key() Denial {
	d.Time, d.Count = time.Time{}, 0
	return d
}

// maxDenials bounds the recent denials that are kept.
const maxDenials = 128

// Gateway decides on every flow of one sandbox. Safe for concurrent use.
type Gateway struct {
	set     settings
	names   *names
	res     *resolver
	dialer  *dialer
	limiter *limiter
	ctx     context.Context
	cancel  context.CancelFunc
	current atomic.Pointer[rules]
	nextID  atomic.Uint64
	dnsTCP  atomic.Int32
	dnsUDP  atomic.Int32
	udpOpen atomic.Int32
	traffic atomic.Int64  // bytes that passed, both ways
	asked   chan struct{} // a place for each question without an answer
	journal *journal      // nil without settings.process
	wg      sync.WaitGroup

	firstBytesTime time.Duration // tests shorten it

	mu      sync.Mutex
	flows   map[*flow]struct{}
	denials []Denial // the latest last
	closed  bool
}

// newGateway makes a gateway; r nil lets nothing pass.
func newGateway(s settings, r rules) *Gateway {
	g := &Gateway{set: s, names: newNames(s.pool4, s.pool6), limiter: newLimiter(s.limits), firstBytesTime: firstBytesTime, flows: map[*flow]struct{}{}}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	if g.set.resolve == nil {
		g.set.resolve = hostResolve
	}
	if g.set.dial == nil {
		g.set.dial = new(net.Dialer).DialContext
	}
	if g.set.hostAddrs == nil {
		g.set.hostAddrs = new(hostAddrs).list
	}
	g.dialer = &dialer{
		resolve: g.set.resolve, dial: g.set.dial, hostAddrs: g.set.hostAddrs,
		decide: func(t target) verdict { return g.rules().decide(t) },
	}
	for _, p := range []netip.Prefix{s.pool4, s.pool6} {
		if p.IsValid() {
			g.dialer.pools = append(g.dialer.pools, p.Masked())
		}
	}
	g.res = &resolver{
		names:    g.names,
		resolves: func(name string) bool { return g.rules().resolves(name) },
		seen:     func(q dns.Question, name string, allowed bool) { g.sawQuery(q, name, allowed, nil) },
	}
	if len(s.info) > 0 {
		g.res.info = func() []netip.Addr {
			var out []netip.Addr
			for _, a := range s.info {
				out = append(out, a.Addr())
			}
			return out
		}
	}
	if s.process != nil {
		g.asked, g.journal = make(chan struct{}, maxWho), newJournal(s.log)
	}
	g.setRules(r)
	return g
}

func (g *Gateway) rules() rules { return *g.current.Load() }

// setRules puts other rules in force and cuts what they forbid. A flow that
// begins meanwhile is judged by one or the other and by the new one at last: it
// is in the list before it asks for the rules.
func (g *Gateway) setRules(r rules) {
	if r == nil {
		r = nothing{}
	}
	g.current.Store(&r)
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := range g.flows {
		f.recheck()
	}
	g.denials = nil // what was denied may be allowed now, and is asked anew
}

// Denials lists the recent denials, the latest first.
func (g *Gateway) Denials() []Denial {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := slices.Clone(g.denials)
	slices.Reverse(out)
	return out
}

// CutAll ends every flow, with resets, for a reason that the log shows.
func (g *Gateway) CutAll(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := range g.flows {
		f.cut(why)
	}
}

// Flows is how many flows there are.
func (g *Gateway) Flows() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.flows)
}

// Traffic is how many bytes have passed to and from the world.
func (g *Gateway) Traffic() int64 { return g.traffic.Load() }

// Names are the names that have synthetic addresses, for a gateway that takes
// this one's place: the guest may keep those addresses.
func (g *Gateway) Names() map[string]uint32 { return g.names.save() }

// SetNames gives names the addresses that they had. It comes before the first
// flow.
func (g *Gateway) SetNames(m map[string]uint32) { g.names.load(m) }

// Close cuts every flow and waits for their ends.
func (g *Gateway) Close() {
	g.mu.Lock()
	g.closed = true
	for f := range g.flows {
		f.cut("the sandbox stops")
	}
	g.mu.Unlock()
	g.cancel()
	g.wg.Wait()
	if g.journal != nil {
		g.journal.close()
	}
}

// Settle returns when the log has all that was decided before, or ctx ends: lines
// wait a moment for the name of their process.
func (g *Gateway) Settle(ctx context.Context) {
	if g.journal != nil {
		g.journal.settle(ctx)
	}
}

// write adds a line to the log; w may tell whose it is.
func (g *Gateway) write(e Entry, w *who) {
	if g.journal == nil {
		g.set.log.Write(e)
		return
	}
	g.journal.write(e, w)
}

// deny writes a denial down, for good and for who asks what was denied lately.
func (g *Gateway) deny(t target, e Entry, v verdict, help bool, w *who) {
	e.Verdict, e.Reason, e.Rule = Denied, v.reason, v.rule
	if help && v.rule == "" { // against a rule that denies no other helps
		e.Suggest = g.rules().suggest(t)
	}
	g.write(e, w)
	g.remember(Denial{Time: time.Now(), Proto: e.Proto, Name: e.Name, Addr: e.Addr, Port: e.Port, Reason: e.Reason, Rule: e.Rule, Suggest: e.Suggest, Count: 1})
}

func (g *Gateway) remember(d Denial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.denials, func(o Denial) bool { return o.key() == d.key() })
	if i >= 0 {
		d.Count += g.denials[i].Count
		g.denials = slices.Delete(g.denials, i, i+1)
	} else if len(g.denials) >= maxDenials {
		g.denials = slices.Delete(g.denials, 0, 1)
	}
	g.denials = append(g.denials, d)
}

// Destinations inside bawn's own networks that lead nowhere.
var (
	errNoName  = errors.New("no name has this address: ask bawn's DNS first")
	errGateway = errors.New("bawn's gateway offers names and its page, nothing else")
)

// targetOf finds what a guest's destination stands for. release ends the hold on
// the name; it is never nil.
func (g *Gateway) targetOf(dst netip.AddrPort, proto string) (t target, release func(), err error) {
	// A mapped address stays one: it is on the floor.
	t = target{addr: dst.Addr(), port: dst.Port(), proto: proto}
	release = func() {}
	for _, own := range slices.Concat(g.set.dns, g.set.info) {
		if own.Addr() == t.addr {
			return t, release, errGateway
		}
	}
	if g.names.contains(t.addr) {
		if t.name, release = g.names.hold(t.addr); t.name == "" {
			return t, release, errNoName
		}
		t.host = t.name == HostName
	}
	return t, release, nil
}

// flow is one connection or UDP association from its first packet to its end.
type flow struct {
	g     *Gateway
	id    uint64
	t     target
	who   *who
	start time.Time
	sent  atomic.Int64
	got   atomic.Int64

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	v      verdict
	judged bool
	app    string
	dialed netip.Addr
	opened bool
	also   string // for a flow to an address: the name that the guest gave
	conns  []net.Conn
	why    string // it was cut
}

// begin lists a flow; nil when there are too many.
func (g *Gateway) begin(t target, w *who) *flow {
	f := &flow{g: g, id: g.nextID.Add(1), t: t, who: w, start: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(g.flows) >= g.limiter.conns {
		return nil
	}
	f.ctx, f.cancel = context.WithCancel(g.ctx)
	g.flows[f] = struct{}{}
	g.wg.Add(1)
	return f
}

// end takes a flow off the list and writes its last line.
func (f *flow) end() {
	f.cancel()
	f.mu.Lock()
	conns, opened, why := f.conns, f.opened, f.why
	e := f.entry()
	f.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	if opened {
		e.Verdict, e.Event, e.Reason = Allowed, EventClose, why
		e.Sent, e.Got, e.Lasted = f.sent.Load(), f.got.Load(), time.Since(f.start)
		f.g.write(e, f.who)
	}
	f.g.mu.Lock()
	delete(f.g.flows, f)
	f.g.mu.Unlock()
	f.g.wg.Done()
}

// entry is what every line about the flow has. f.mu is held.
func (f *flow) entry() Entry {
	e := Entry{Flow: f.id, Proto: f.t.proto, App: f.app, Name: f.t.name, Addr: f.dialed, Port: f.t.port, Rule: f.v.rule}
	if e.Name == "" && !e.Addr.IsValid() {
		e.Addr = f.t.addr
	}
	return e
}

// judge asks the rules about the flow.
func (f *flow) judge() verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Under the lock: recheck must find either no judgement or this one.
	f.v, f.judged = f.g.rules().decide(f.t), true
	return f.v
}

// deny writes a denial of the flow. help: a rule could allow it.
func (f *flow) deny(v verdict, help bool) {
	f.mu.Lock()
	e := f.entry()
	f.mu.Unlock()
	f.g.deny(f.t, e, v, help, f.who)
}

// recheck cuts the flow if the rules now in force forbid it, or want to look at
// bytes that went by unseen.
func (f *flow) recheck() {
	f.mu.Lock()
	judged, old, dialed, also := f.judged, f.v, f.dialed, f.also
	f.mu.Unlock()
	if !judged {
		return // it asks after this
	}
	v := f.g.rules().decide(f.t)
	switch {
	case !v.allow:
		f.cut("the rules changed: " + v.reason)
	case old.raw && !v.raw:
		f.cut("the rules changed: no longer raw")
	case also != "" && !f.g.rules().decide(target{name: also, port: f.t.port, proto: f.t.proto}).allow:
		f.cut("the rules changed: " + also + " is not allowed")
	case dialed.IsValid() && !f.t.host && f.g.dialer.permit(dialed, f.t) != nil:
		f.cut("the rules changed: its address is not allowed")
	}
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
	if f.why != "" {
		abort(c)
		return false
	}
	f.conns = append(f.conns, c)
	return true
}

// setApp says what the bytes look like.
func (f *flow) setApp(app string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.app = app
}

// connect dials the flow's target and counts what passes. Errors: *deniedError,
// which is written down already, or the network's.
func (f *flow) connect() (net.Conn, error) {
	c, addr, err := f.g.dialer.connect(f.ctx, f.t)
	f.mu.Lock()
	if err == nil {
		f.dialed, f.opened = addr, true
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
	e.Verdict, e.Event = Allowed, EventOpen
	f.g.write(e, f.who)
	return counted, nil
}

// failed writes down why a dial did not succeed.
func (f *flow) failed(e Entry, err error) {
	if d, ok := asDenied(err); ok {
		f.g.deny(d.target(f.t), e, verdict{reason: d.reason, rule: d.rule}, d.suggest != target{}, f.who)
		return
	}
	e.Verdict, e.Event, e.Reason = Allowed, EventClose, "not reached: "+err.Error()
	f.g.write(e, f.who)
}

// countedConn counts and throttles what passes to and from the server.
type countedConn struct {
	net.Conn
	f *flow
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.f.got.Add(int64(n))
	c.f.g.traffic.Add(int64(n))
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
	c.f.g.traffic.Add(int64(n))
	return n, err
}

func (c *countedConn) CloseWrite() error { return closeWrite(c.Conn) }

func (c *countedConn) Abort() { abort(c.Conn) }
