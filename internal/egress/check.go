package egress

import "fmt"

// Floor says why a bare address may not be dialled, whatever rule allows it: it is
// on the floor, and no rule is about that part of it. It makes no traffic. Names
// are judged when they are resolved; nil for them.
func Floor(p Policy, to Target) error {
	if to.Name != "" || to.Host {
		return nil
	}
	var own hostAddrs
	d := dialer{hostAddrs: own.list, decide: adapt(p).decide}
	if err := d.permit(to.Addr, target{addr: to.Addr, port: to.Port, proto: to.Proto}); err != nil {
		return fmt.Errorf("%w (a rule has to name such addresses)", err)
	}
	return nil
}
