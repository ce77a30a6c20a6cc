package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// hostResolver is Go's own resolver, also in a binary that could call the C library's:
// it reads /etc/hosts and /etc/resolv.conf, and takes a name with a final dot for whole.
var hostResolver = &net.Resolver{PreferGo: true}

// hostsFile reads /etc/hosts and asks nobody. It finds a name of one part there, which
// hostResolver finds only without a final dot.
var hostsFile = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("no resolver is asked")
}}

// hostResolve asks the host for the addresses of a name: its /etc/hosts, then its
// resolver. The name is asked for exactly as the rules judged it. The final dot keeps the
// host's search domains from completing it (resolv.conf(5), search and ndots): they would
// make another name of it, which no rule judged, and would be told names that do not exist.
func hostResolve(ctx context.Context, name string) ([]netip.Addr, error) {
	if !strings.Contains(name, ".") {
		if found, err := hostsFile.LookupNetIP(ctx, "ip", name); err == nil {
			return found, nil
		}
	}
	found, err := hostResolver.LookupNetIP(ctx, "ip", name+".")
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound && !strings.Contains(name, ".") {
		return nil, fmt.Errorf("%w (no search domain completes it: use the full name)", err)
	}
	return found, err
}

// withHosts returns a resolver that answers for some names itself.
func withHosts(hosts map[string][]netip.Addr, resolve func(context.Context, string) ([]netip.Addr, error)) func(context.Context, string) ([]netip.Addr, error) {
	return func(ctx context.Context, name string) ([]netip.Addr, error) {
		if found := hosts[name]; len(found) > 0 {
			return found, nil
		}
		return resolve(ctx, name)
	}
}
