package egress

import "net/netip"

// target is where a flow wants to go. A flow to a synthetic address has a name;
// one to a raw address has none.
type target struct {
	name  string
	addr  netip.Addr // the guest's destination when there is no name
	port  uint16
	proto string // "tcp", "udp"
	host  bool   // the host's own loopback
}

// verdict is what the rules say of a target.
type verdict struct {
	allow  bool
	raw    bool   // the rule asks for no look at the bytes
	rule   string // that decided; empty is the default denial
	reason string
	prefix netip.Prefix // of the rule that allows an address
}

// rules is what egress needs of a policy. Immutable: a change is another value.
type rules interface {
	decide(target) verdict
	resolves(name string) bool
	list() []string // as typed, for the agent to read
	suggest(target) string
}

// nothing is the policy when there is none: nothing passes.
type nothing struct{}

func (nothing) decide(target) verdict { return verdict{reason: "no policy is loaded"} }
func (nothing) resolves(string) bool  { return false }
func (nothing) list() []string        { return nil }
func (nothing) suggest(target) string { return "" }
