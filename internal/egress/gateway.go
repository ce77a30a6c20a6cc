package egress

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/nameserver"
	"bawn.dev/bawn/internal/policy"
)

// Gateway decides on every flow of one sandbox. Safe for concurrent use.
type Gateway struct {
	cfg     Config // with its defaults
	names   *nameserver.Table
	dns     *nameserver.Resolver
	dialer  *dialer
	limiter *limiter
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // what Close waits for: see enter

	current   atomic.Pointer[policy.Set] // the policy in force; nil denies everything
	nextID    atomic.Uint64              // of a flow
	dnsTCP    atomic.Int32               // open DNS connections
	dnsUDP    atomic.Int32               // ports of the guest that ask over UDP
	sent, got atomic.Int64               // bytes that passed, from the guest and to it

	pushes  chan struct{} // a place for each push under way whose list of refs is held
	bodies  chan struct{} // a place for each request whose body is held until it is judged
	ssh     chan struct{} // a place for each connection of SSH that is ended here
	signing *signing
	asked   chan struct{} // a place for each unanswered question about a process
	pending *pendingLog   // nil without Config.Process

	firstBytesTime, graceTime, headTime, halfClosedTime, infoTime time.Duration // tests change them

	mu      sync.Mutex
	flows   map[*flow]struct{}
	udpOpen int      // of the flows, those of UDP
	denials []Denial // the latest last
	asks    []AccessRequest
	closed  bool
}

// New makes a gateway. Close it when the sandbox stops.
func New(c Config) *Gateway {
	c = c.withDefaults()
	g := &Gateway{
		cfg: c, names: nameserver.NewTable(c.Pool4, c.Pool6), limiter: newLimiter(c.Limits),
		firstBytesTime: firstBytesTime, graceTime: graceTime, headTime: headTime, halfClosedTime: halfClosedTime, infoTime: infoTime, flows: map[*flow]struct{}{},
		pushes: make(chan struct{}, maxPushes), bodies: make(chan struct{}, maxBodies), ssh: make(chan struct{}, maxSSH),
		signing: newSigning(),
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	resolve := withHosts(c.Hosts, c.Resolve)
	g.dialer = &dialer{
		resolve: resolve, dial: c.Dial, guard: addressGuard{
			hostNet: c.HostNet, nat64: &nat64{resolve: resolve}, pools: pools(c), decide: g.decide,
		},
		proxies: c.Proxies, tunnel: c.Tunnel, hosts: c.Hosts,
	}
	g.dns = &nameserver.Resolver{Table: g.names, Resolves: g.resolves, IsService: g.isService, Info: infoAddrs(c.Info), Records: nameserver.NewLookup(g.ctx, c.Records, c.Hosts).Records}
	if c.Process != nil {
		g.asked, g.pending = make(chan struct{}, maxHints), newPendingLog(c.Log)
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

// infoAddrs lists the addresses of the page for the agent.
func infoAddrs(list []netip.AddrPort) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, a.Addr())
	}
	return out
}

// SetPolicy puts another policy in force at once, and cuts the flows that it
// forbids. nil denies everything. A flow that begins meanwhile is judged by one or
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
	g.judgeAsks()
}

// decide asks the policy in force.
func (g *Gateway) decide(f policy.Flow) policy.Decision {
	if set := g.current.Load(); set != nil {
		return set.Decide(f)
	}
	return policy.Decision{Reason: "the rules are not loaded, or have a mistake that the user must correct on the host"}
}

// resolves reports whether the policy in force gives a name an address.
func (g *Gateway) resolves(name string) bool {
	set := g.current.Load()
	return set != nil && set.Resolves(name)
}

// isService reports whether the policy in force allows the name of which another one
// names a service.
func (g *Gateway) isService(name string) bool {
	set := g.current.Load()
	return set != nil && set.IsService(name)
}

// suggest returns the rule that would allow a flow; empty if none would, or if nobody is
// to be asked about it (policy.Suggest), as about an address of the host's own.
func (g *Gateway) suggest(f policy.Flow) string {
	own := f.Name == "" && !f.Host && g.cfg.HostNet().owns(f.Addr)
	if set := g.current.Load(); set != nil && !own {
		return set.Suggest(f)
	}
	return ""
}

// suggestECH returns the rule that would permit Encrypted Client Hello on a flow; empty
// if none would.
func (g *Gateway) suggestECH(f policy.Flow) string {
	if set := g.current.Load(); set != nil {
		return set.SuggestECH(f)
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

// CutAll ends every flow, with resets. The log shows why.
func (g *Gateway) CutAll(why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for f := range g.flows {
		f.cut(why)
	}
}

// Traffic returns how many bytes have passed from the guest to the world, and back.
func (g *Gateway) Traffic() (sent, got int64) { return g.sent.Load(), g.got.Load() }

// Names returns the names that have synthetic addresses, for a gateway that takes
// this one's place: the guest may keep those addresses.
func (g *Gateway) Names() map[string]uint32 { return g.names.Save() }

// SetNames gives names the addresses that they had. Call it before the first flow.
func (g *Gateway) SetNames(m map[string]uint32) { g.names.Load(m) }

// enter counts a goroutine that Close waits for; it calls g.wg.Done at its end.
// false: the gateway is closed, and the goroutine may not start.
func (g *Gateway) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

// Close cuts every flow and waits for their ends.
func (g *Gateway) Close() {
	g.mu.Lock()
	g.closed = true
	for f := range g.flows {
		f.cut("the sandbox is stopping")
	}
	g.mu.Unlock()
	g.cancel()
	g.wg.Wait()
	if g.pending != nil {
		g.pending.close()
	}
}

// Dropped logs what the link layer did not let through: protocols other than TCP
// and UDP, spoofed addresses, malformed frames.
func (g *Gateway) Dropped(proto string, dst netip.Addr, why string) {
	g.deny(audit.Entry{Proto: proto, Addr: dst}, policy.Decision{Reason: why}, "", nil)
}

// Settle returns when the log has all that was decided before, or ctx ends: lines
// wait a moment for the name of their process.
func (g *Gateway) Settle(ctx context.Context) {
	if g.pending != nil {
		g.pending.settle(ctx)
	}
}

// write adds a line to the log; h names its process.
func (g *Gateway) write(e audit.Entry, h *processHint) {
	if g.pending == nil {
		g.cfg.Log.Write(e)
		return
	}
	g.pending.write(e, h)
}
