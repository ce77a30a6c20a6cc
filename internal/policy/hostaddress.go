package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rules host:ADDRESS:PORTS, about services of the host at an address of its interfaces.
//
// A host gets and loses addresses, by DHCP or by a bridge of Docker. A rule for 10.0.0.5 that
// was harmless when a person approved it would open the host on the day when the host is
// 10.0.0.5. So rules about addresses never open those of the host, but for its loopback,
// which is always the host; these rules do, and nothing else.

// cutHostAddress removes "host:" from before an address. "host:5432" has none.
func cutHostAddress(s string) (rest string, ok bool) {
	rest, ok = cutWord(s, "host:")
	if !ok || !strings.ContainsAny(rest, ".[") {
		return s, false
	}
	return rest, true
}

// checkHostAddress returns an error if the target of a rule host:ADDRESS is not an address
// that the host's interfaces may have, or if the rule is no allow rule.
func (r *Rule) checkHostAddress() error {
	switch a := r.prefix.Addr(); {
	case !r.atHost:
		return nil
	case r.Action == Deny:
		return errors.New("a deny rule takes no \"host:\" before an address: it holds for the host's own addresses too")
	case !r.prefix.IsValid() || !r.prefix.IsSingleIP():
		return errors.New("host: is followed by one port, or by one address and a port: write host:PORT or host:ADDRESS:PORT")
	case a.IsLoopback():
		return errors.New("write host:PORT for a service on the host's loopback")
	case slices.ContainsFunc(metadataAddresses, func(m netip.Addr) bool { return m == a }):
		return fmt.Errorf("%s is the cloud's metadata service, not the host", a)
	}
	if v4, ok := hiddenIPv4(r.prefix); ok {
		return fmt.Errorf("%s hides the address %s: write host:%s:PORT", r.prefix.Addr(), v4.Addr(), v4.Addr())
	}
	return nil
}
