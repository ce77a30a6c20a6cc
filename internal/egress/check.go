package egress

import (
	"fmt"

	"bawn.dev/bawn/internal/policy"
)

// Check decides on a flow as a gateway with these rules would, without any
// traffic: the rules' decision, together with what holds whatever they say (the
// page that the gateway serves itself, targets that lead nowhere, the reserved
// ranges). To where a name leads is not looked up: its addresses are judged when it
// is dialled.
func Check(set *policy.Set, f policy.Flow) policy.Decision {
	if ownPage(f) {
		return policy.Decision{Allow: true, Reason: "bawn's own page, which every guest may read"}
	}
	hosts := new(hostNets)
	f.AtHost = f.Addr.IsValid() && hosts.get().owns(f.Addr)
	d := set.Decide(f)
	err := f.Unreachable()
	if !d.Allow {
		if err != nil && d.Rule == nil { // no rule would help
			d.Reason = err.Error()
		}
		return d
	}
	if err == nil {
		err = checkAddress(set, hosts, f)
	}
	if err != nil {
		d.Allow, d.Reason = false, fmt.Sprintf("%v, although the rule %q matches", err, d.Rule)
	}
	return d
}

// CheckRequest is Check for a request.
func CheckRequest(set *policy.Set, q policy.Request) policy.Decision {
	if d := Check(set, q.Flow()); !d.Allow {
		return d
	}
	return set.DecideRequest(q)
}

// checkAddress returns why the reserved ranges forbid a bare address; nil for a name
// and for the host's loopback.
func checkAddress(set *policy.Set, hosts *hostNets, f policy.Flow) error {
	if f.Name != "" || f.Host {
		return nil
	}
	guard := addressGuard{hostNet: hosts.get, decide: set.Decide}
	if err := guard.permit(f.Addr, f); err != nil {
		return fmt.Errorf("%w (only a rule that names the address allows it)", err)
	}
	return nil
}

// ownPage reports whether a flow goes to the page that the gateway serves itself.
func ownPage(f policy.Flow) bool {
	at := f.Name == policy.InfoName || f.Addr == policy.Gateway4.Addr() || f.Addr == policy.Gateway6.Addr()
	return at && f.Port == 80 && f.Proto == policy.TCP
}
