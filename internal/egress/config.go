package egress

import (
	"context"
	"net"
	"net/netip"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/gitssh"
	"bawn.dev/bawn/internal/egress/nameserver"
	"bawn.dev/bawn/internal/egress/tunnel"
	"bawn.dev/bawn/internal/inspect"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// Config is what a Gateway governs, and by what means. The pools and DNS must be set.
type Config struct {
	Policy       *policy.Set      // nil denies everything
	Pool4, Pool6 netip.Prefix     // synthetic addresses handed out for names
	DNS          []netip.AddrPort // gateway addresses on which the guest asks
	Info         []netip.AddrPort // gateway addresses of the page for the agent

	// Hosts are the addresses of names that the resolver is not asked about.
	Hosts map[string][]netip.Addr
	// Resolve asks the host for the addresses of exactly this name; the default
	// honours its /etc/hosts. Mapped IPv4 addresses are taken as IPv4. It may run
	// concurrently.
	Resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	// Records asks for records; the default asks the host's resolver.
	Records nameserver.AskFunc
	// Dial connects on the host; addr is always a literal address and a port. It
	// may run concurrently.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Inspect ends TLS for the hosts that have a secret; nil: none has.
	Inspect *inspect.Inspector
	// SSH ends git over SSH where rules are about repositories; nil: such connections are denied.
	SSH *gitssh.Server
	// Sign signs commits and tags of the guest; nil: none are signed.
	Sign *Signer
	// HostNet tells the host's networks, to which no name may lead. It may run
	// concurrently.
	HostNet func() HostNet

	// Proxies are those by which this host reaches others: see viaproxy.go. nil: none.
	Proxies *proxyenv.Settings
	// Tunnel connects through a proxy to a target, a host and port. The default is that of
	// package tunnel. It may run concurrently.
	Tunnel func(ctx context.Context, p *proxyenv.Proxy, target string) (net.Conn, error)

	Log    *audit.Log // nil: no audit log; the caller closes it after the gateway
	Limits Limits
	// Process names the process that began a flow, for the log alone: see
	// attribution.go. nil: the log has no process names.
	Process ProcessFunc
}

// withDefaults fills in the functions that the caller left out.
func (c Config) withDefaults() Config {
	if c.Resolve == nil {
		c.Resolve = hostResolve
	}
	if c.Records == nil {
		c.Records = nameserver.AskHost
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Tunnel == nil {
		c.Tunnel = new(tunnel.Dialer).Connect
	}
	if c.HostNet == nil {
		c.HostNet = new(hostNets).get
	}
	return c
}

// TCPRequest is a connection that the guest wants: exactly one of the methods
// is called. The connection should have CloseWrite, and Abort or SetLinger; the
// gateway closes it.
type TCPRequest interface {
	Accept() (net.Conn, error)
	Reject() // with a reset
}

// UDPRequest is the first datagram of an association: exactly one of the methods
// is called. The connection gives and takes whole datagrams, the first one
// included; the gateway closes it.
type UDPRequest interface {
	Accept() (net.Conn, error)
	Reject() // with an ICMP error
}
