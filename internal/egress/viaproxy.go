package egress

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/proxyenv"
)

// Theory of operation: a host that reaches the world by a proxy
//
// Where the host's environment names a proxy for a target, bawn connects to the proxy and asks
// it for the target by its name, so that the proxy resolves it: in many companies the host
// itself cannot. All else is as without a proxy: the rules, the server name, the inspection of
// requests and the log are about the name and the bytes, and the tunnel passes the bytes.
//
// What an address is judged by changes. Without a proxy, bawn dials the very address that it
// judged (dial.go). Through a proxy:
//
//   - A literal address is judged as ever, and the proxy is asked for that address. So is a name
//     that the user gave an address (Config.Hosts).
//   - A name is resolved on the host as well, as far as it can. If one of its addresses may not
//     be dialled, the flow is denied: the proxy may be near what the address leads to. The
//     proxy resolves the name again, and may find other addresses.
//   - A name that the host cannot resolve passes by its name alone. Which addresses it has, and
//     whether they are those of the company's inner network, is then for the proxy to judge.
//   - A name that programs may read as an address is denied: proxies do not agree about them.
//
// Never through a proxy: the host's own loopback and addresses, and what NO_PROXY lists. UDP
// does not pass a proxy: it is denied where TCP to that host would go through one.

const (
	// resolveBesideTime bounds resolving a name on the host that goes through a proxy.
	resolveBesideTime = 2 * time.Second
	// unresolvedTTL is how long the host's resolver is not asked again about a name that it
	// did not resolve and that goes through a proxy.
	unresolvedTTL = time.Minute
)

// targetProxy returns the proxy for a flow's target; nil: it is dialled directly.
func (d *dialer) targetProxy(to policy.Flow) *proxyenv.Proxy {
	switch {
	case to.Host || to.AtHost:
		return nil
	case to.Name == "":
		return d.proxies.For(to.Addr.String(), to.Port)
	}
	return d.proxies.For(to.Name, to.Port)
}

// addressProxy returns the proxy for one address of a flow's target; nil: it is dialled
// directly, since NO_PROXY has the address, or the name.
func (d *dialer) addressProxy(to policy.Flow, a netip.Addr) *proxyenv.Proxy {
	if d.targetProxy(to) == nil {
		return nil
	}
	return d.proxies.For(a.String(), to.Port)
}

// via returns the host and port of the proxy of a connection to a target at an address, which
// is the zero Addr if the proxy was asked for the name; empty for a direct one.
func (d *dialer) via(to policy.Flow, a netip.Addr) string {
	p := d.targetProxy(to)
	if p != nil && a.IsValid() {
		p = d.addressProxy(to, a)
	}
	if p == nil {
		return ""
	}
	return p.Address()
}

// given reports whether the user gave a name its addresses.
func (d *dialer) given(name string) bool { return name != "" && len(d.hosts[name]) > 0 }

// connectName asks a proxy for a name. Errors: *deniedError, or the proxy's.
func (d *dialer) connectName(ctx context.Context, p *proxyenv.Proxy, to policy.Flow) (net.Conn, error) {
	if likeAddress(to.Name) {
		return nil, deny(policy.Flow{}, "a proxy may take the name %s for an address: use the address", to.Name)
	}
	if err := d.judgeBeside(ctx, to); err != nil {
		return nil, err
	}
	return d.tunnel(ctx, p, net.JoinHostPort(to.Name, strconv.Itoa(int(to.Port))))
}

// likeAddress reports whether a name ends like an IPv4 address in one of the forms of
// inet_aton(3), all of which have a number as their last part: 10.1, 0x7f000001.
func likeAddress(name string) bool {
	last := strings.TrimSuffix(name, ".")
	last = last[strings.LastIndexByte(last, '.')+1:]
	if rest, ok := strings.CutPrefix(strings.ToLower(last), "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

// judgeBeside denies a name that leads to an address which may not be dialled, as far as the
// host can tell. Errors are *deniedError, or that of ctx.
func (d *dialer) judgeBeside(ctx context.Context, to policy.Flow) error {
	if r, ok := d.recall(to.Name); ok && r.failed {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, resolveBesideTime)
	defer cancel()
	addrs, err := d.lookup(asking, to.Name)
	denied, many := asDenied(err)
	switch {
	case many:
		return denied
	case ctx.Err() != nil: // the flow ended: that says nothing about the name
		return ctx.Err()
	case err != nil:
		d.remember(to.Name, resolved{failed: true, until: time.Now().Add(unresolvedTTL)})
		return nil
	}
	d.guard.prepare(ctx, addrs) // it has a limit of its own, and remembers a failure
	for _, a := range addrs {
		if err := d.guard.permit(a, to); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// refusedUDP denies UDP to a target to which TCP goes through a proxy.
func refusedUDP(p *proxyenv.Proxy) error {
	return deny(policy.Flow{}, "UDP does not pass the proxy that this host has in %s: clients fall back to TCP; the user may list the target in NO_PROXY", p.Variable)
}
