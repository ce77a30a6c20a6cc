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

	"bawn.dev/bawn/internal/policy"
)

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
	cfg     Config // with its defaults
	names   *names
	res     *resolver
	dialer  *dialer
	limiter *limiter
	ctx     context.Context
	cancel  context.CancelFunc
	current atomic.Pointer[policy.Set] // the policy in force; nil lets nothing pass
	nextID  atomic.Uint64
	dnsTCP  atomic.Int32
	dnsUDP  atomic.Int32
	traffic atomic.Int64  // bytes that passed, both ways
	asked   chan struct{} // a place for each question without an answer
	journal *journal      // nil without Config.Process
	wg      sync.WaitGroup

	firstBytesTime time.Duration // tests shorten it

	mu      sync.Mutex
	flows   map[*flow]struct{}
	udpOpen int      // of the flows, those of UDP
	denials []Denial // the latest last
	closed  bool
}

// New makes a gateway. Close it when the sandbox stops.
func New(c Config) *Gateway {
	c = c.withDefaults()
	g := &Gateway{
		cfg: c, names: newNames(c.Pool4, c.Pool6), limiter: newLimiter(c.Limits),
		firstBytesTime: firstBytesTime, flows: map[*flow]struct{}{},
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.dialer = &dialer{resolve: c.Resolve, dial: c.Dial, guard: addressGuard{hostAddrs: c.HostAddrs, pools: pools(c), decide: g.decide}}
	g.res = &resolver{
		names:    g.names,
		resolves: g.resolves,
		info:     infoAddrs(c.Info),
		seen:     func(q dns.Question, name string, allowed bool) { g.sawQuery(q, name, allowed, nil) },
	}
	if c.Process != nil {
		g.asked, g.journal = make(chan struct{}, maxWho), newJournal(c.Log)
	}
	g.SetPolicy(c.Policy)
	return g
}

// pools lists the ranges of synthetic addresses.
func pools(c Config) (list []netip.Prefix) {
	for _, p := range []netip.Prefix{c.Pool4, c.Pool6} {
		if p.IsValid() {
			list = append(list, p.Masked())
		}
	}
	return list
}

// infoAddrs lists the addresses that InfoName has.
func infoAddrs(list []netip.AddrPort) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, a.Addr())
	}
	return out
}

// SetPolicy puts another policy in force at once, and cuts the flows that it
// forbids. nil lets nothing pass. A flow that begins meanwhile is judged by one or
// the other and by the new one at last: it is in the list before it asks for the
// policy.
func (g *Gateway) SetPolicy(set *policy.Set) {
	g.current.Store(set)
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := range g.flows {
		f.recheck()
	}
	g.denials = nil // what was denied may be allowed now, and is asked anew
}

// decide asks the policy in force.
func (g *Gateway) decide(f policy.Flow) policy.Decision {
	if set := g.current.Load(); set != nil {
		return set.Decide(f)
	}
	return policy.Decision{Reason: "no policy is loaded"}
}

// resolves says whether the policy in force gives a name an address.
func (g *Gateway) resolves(name string) bool {
	set := g.current.Load()
	return set != nil && set.Resolves(name)
}

// suggest returns the rule that would allow a flow; empty if none would.
func (g *Gateway) suggest(f policy.Flow) string {
	if set := g.current.Load(); set != nil {
		return set.Suggest(f)
	}
	return ""
}

// ruleTexts lists the rules in force, for the agent to read.
func (g *Gateway) ruleTexts() []string {
	list := []string{}
	if set := g.current.Load(); set != nil {
		for _, r := range set.Rules() {
			list = append(list, r.String())
		}
	}
	return list
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

// Dropped logs what the link layer did not let through: protocols other than TCP
// and UDP, spoofed addresses, malformed frames.
func (g *Gateway) Dropped(proto string, dst netip.Addr, why string) {
	g.deny(Entry{Proto: proto, Addr: dst}, policy.Decision{Reason: why}, "", nil)
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
		g.cfg.Log.Write(e)
		return
	}
	g.journal.write(e, w)
}

// deny logs a denial and adds it to the list of recent denials. suggest is the rule
// that would allow the flow, or empty.
func (g *Gateway) deny(e Entry, d policy.Decision, suggest string, w *who) {
	e = e.denied(d, suggest)
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

// Why a flow is denied before the rules are asked: destinations inside bawn's own
// networks that lead nowhere, and the limits.
var (
	errNoName      = errors.New("no name has this address: ask bawn's DNS first")
	errMapped      = errors.New("an IPv4 address in the form of IPv6: connect to the IPv4 address")
	errGateway     = errors.New("bawn's gateway offers names and its page, nothing else")
	errTooManyNew  = errors.New("too many new connections a second")
	errTooManyOpen = errors.New("too many open connections")
)

// admit begins a flow from the guest to dst; nil if it may not even be judged,
// which is logged then. The caller ends the flow.
func (g *Gateway) admit(w *who, dst netip.AddrPort, proto policy.Proto) *flow {
	to, release, err := g.flowTo(dst, proto)
	if err == nil && !g.limiter.flows.Allow() {
		err = errTooManyNew
	}
	if err == nil {
		if f := g.begin(to, release, w); f != nil {
			return f
		}
		err = errTooManyOpen
	}
	release()
	g.deny(entryOf(to, policy.Decision{}), policy.Decision{Reason: err.Error()}, "", w)
	return nil
}

// flowTo finds what a guest's destination stands for. release ends the hold on
// the name; it is never nil.
func (g *Gateway) flowTo(dst netip.AddrPort, proto policy.Proto) (to policy.Flow, release func(), err error) {
	to = policy.Flow{Addr: dst.Addr(), Port: dst.Port(), Proto: proto}
	release = func() {}
	if to.Addr.Is4In6() {
		return to, release, errMapped
	}
	for _, own := range slices.Concat(g.cfg.DNS, g.cfg.Info) {
		if own.Addr() == to.Addr {
			return to, release, errGateway
		}
	}
	if g.names.contains(to.Addr) {
		if to.Name, release = g.names.hold(to.Addr); to.Name == "" {
			return to, release, errNoName
		}
		to.Addr, to.Host = netip.Addr{}, to.Name == HostName
	}
	return to, release, nil
}

// flow is one connection or UDP association from its first packet to its end.
type flow struct {
	g     *Gateway
	id    uint64
	to    policy.Flow
	who   *who
	start time.Time

	release func() // ends the hold on the name's address

	sent atomic.Int64
	got  atomic.Int64

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	d      policy.Decision // if judged
	judged bool
	app    string
	dialed netip.Addr
	opened bool
	also   string // for a flow to an address: the name that the guest gave
	conns  []net.Conn
	why    string // it was cut
}

// begin lists a flow; nil when there are too many. release is called when the flow
// ends.
func (g *Gateway) begin(to policy.Flow, release func(), w *who) *flow {
	f := &flow{g: g, id: g.nextID.Add(1), to: to, release: release, who: w, start: time.Now()}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || len(g.flows) >= g.limiter.conns || to.Proto == policy.UDP && g.udpOpen >= maxUDP {
		return nil
	}
	if to.Proto == policy.UDP {
		g.udpOpen++
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
	if f.to.Proto == policy.UDP {
		f.g.udpOpen--
	}
	f.g.mu.Unlock()
	f.release()
	f.g.wg.Done()
}

// entry is what every line about the flow has. f.mu is held.
func (f *flow) entry() Entry {
	e := entryOf(f.to, f.d)
	e.Flow, e.App = f.id, f.app
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
	f.g.deny(e, d, suggest, f.who)
}

// refused logs a denial by the gateway itself, which no rule decided.
func (f *flow) refused(reason string) {
	f.deny(policy.Decision{Reason: reason}, "")
}

// recheck cuts the flow if the rules now in force forbid it, or want to look at
// bytes that went by unseen.
func (f *flow) recheck() {
	f.mu.Lock()
	judged, old, dialed, also := f.judged, f.d, f.dialed, f.also
	f.mu.Unlock()
	if !judged {
		return // it asks after this
	}
	d := f.g.decide(f.to)
	switch {
	case !d.Allow:
		f.cut("the rules changed: " + d.Reason)
	case old.Raw && !d.Raw:
		f.cut("the rules changed: no longer raw")
	case also != "" && !f.g.decide(policy.Flow{Name: also, Port: f.to.Port, Proto: f.to.Proto}).Allow:
		f.cut("the rules changed: " + also + " is not allowed")
	case dialed.IsValid() && !f.to.Host && f.g.dialer.guard.permit(dialed, f.to) != nil:
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
// which is logged already, or the network's.
func (f *flow) connect() (net.Conn, error) {
	c, addr, err := f.g.dialer.connect(f.ctx, f.to)
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

// suggestFor returns the rule that would have let a denied dial through; empty if
// none would.
func (g *Gateway) suggestFor(d *deniedError) string {
	if d.missing == (policy.Flow{}) {
		return ""
	}
	return g.suggest(d.missing)
}

// failed logs why a dial did not succeed.
func (f *flow) failed(e Entry, err error) {
	if d, ok := asDenied(err); ok {
		f.g.deny(e, d.Decision, f.g.suggestFor(d), f.who)
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
