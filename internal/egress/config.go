package egress

import (
	"context"
	"net"
	"net/netip"
)

// Config says what a Gateway governs. Only the pools and DNS must be set.
type Config struct {
	Policy       Policy           // nil: nothing passes
	Pool4, Pool6 netip.Prefix     // synthetic addresses handed out for names
	DNS          []netip.AddrPort // gateway addresses on which the guest asks
	Info         []netip.AddrPort // gateway addresses of the page for the agent

	// Resolve asks the host's resolver; the default honours its /etc/hosts and
	// search domains. Mapped IPv4 addresses are taken as IPv4.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Dial connects on the host; addr is always a literal address and a port.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// HostAddrs lists the host's own addresses, which no name may lead to.
	HostAddrs func() []netip.Addr

	Log    *Log // nil: no audit log
	Limits Limits
	// Process tells whose a flow is, for the log alone: see who.go. nil: nobody
	// is asked.
	Process ProcessFunc
}

// New makes a gateway. Close it when the sandbox stops.
func New(c Config) *Gateway {
	return newGateway(settings{
		pool4: c.Pool4, pool6: c.Pool6, dns: c.DNS, info: c.Info,
		resolve: c.Resolve, dial: c.Dial, hostAddrs: c.HostAddrs,
		log: c.Log, limits: c.Limits, process: c.Process,
	}, adapt(c.Policy))
}

// SetPolicy puts another policy in force at once, and cuts the flows that it
// forbids. nil lets nothing pass.
func (g *Gateway) SetPolicy(p Policy) { g.setRules(adapt(p)) }

// Target is where a flow wants to go: to a name, or to an address.
type Target struct {
	Name  string
	Addr  netip.Addr
	Port  uint16
	Proto string // "tcp", "udp"
	Host  bool   // the host's own loopback, by HostName
}

// Verdict is what a policy says of a target.
type Verdict struct {
	Allow  bool
	Raw    bool   // no look at the bytes
	Rule   string // that decided, as typed; empty is the default denial
	Reason string // of a denial
	// Prefix is the block of addresses that the allowing rule names: what is on
	// the floor wants one that is about the floor. Not valid for a name.
	Prefix netip.Prefix
}

// Policy decides. It must not change: SetPolicy takes another one.
type Policy interface {
	Decide(Target) Verdict
	Resolves(name string) bool // some port of the name is allowed
	Rules() []string           // as typed, for the agent to read
	Suggest(Target) string     // the rule that would allow it
}

// TCPRequest is a connection that the guest wants: exactly one of the methods
// is called. The connection should have CloseWrite, and Abort or SetLinger.
type TCPRequest interface {
	Accept() (net.Conn, error)
	Reject() // with a reset
}

// UDPRequest is the first datagram of an association. The connection gives and
// takes whole datagrams, the first one included.
type UDPRequest interface {
	Accept() (net.Conn, error)
	Reject() // with an ICMP error
}

// TCP decides on a connection from src to dst and serves it to its end.
func (g *Gateway) TCP(src, dst netip.AddrPort, req TCPRequest) {
	g.tcp(g.whose("tcp", src, dst), dst, req)
}

// UDP decides on an association from src to dst and serves it to its end.
func (g *Gateway) UDP(src, dst netip.AddrPort, req UDPRequest) {
	g.udp(g.whose("udp", src, dst), dst, req)
}

// Dropped writes down what the link layer did not let through: protocols other
// than TCP and UDP, spoofed addresses, malformed frames.
func (g *Gateway) Dropped(proto string, dst netip.Addr, why string) {
	g.deny(target{}, Entry{Proto: proto, Addr: dst}, verdict{reason: why}, false, nil)
}

// adapted is a Policy for the rest of the package.
type adapted struct{ p Policy }

func adapt(p Policy) rules {
	if p == nil {
		return nil
	}
	return adapted{p}
}

func (a adapted) decide(t target) verdict {
	v := a.p.Decide(Target{t.name, t.addr, t.port, t.proto, t.host})
	return verdict{v.Allow, v.Raw, v.Rule, v.Reason, v.Prefix}
}

func (a adapted) resolves(name string) bool { return a.p.Resolves(name) }
func (a adapted) list() []string            { return a.p.Rules() }

func (a adapted) suggest(t target) string {
	return a.p.Suggest(Target{t.name, t.addr, t.port, t.proto, t.host})
}
