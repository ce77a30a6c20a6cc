// Package policy says which hosts, addresses and ports a guest may reach. It is
// pure: rules are parsed (parse.go), made into a Set that decides (set.go), and
// nothing here touches the network. docs/policy.md is the reference for people.
//
// Default deny: a flow passes when a rule allows it and none denies it. A flow to
// a name is judged by the rules about names, a flow to a bare address by those
// about addresses; neither stands in for the other.
package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Action is what a rule does.
type Action int

// The actions. The zero value denies.
const (
	Deny Action = iota
	Allow
)

func (a Action) String() string {
	if a == Allow {
		return "allow"
	}
	return "deny"
}

// Proto is a transport protocol.
type Proto string

// The protocols that rules can name.
const (
	TCP Proto = "tcp"
	UDP Proto = "udp"
)

// PortRange is some ports in a row.
type PortRange struct{ First, Last uint16 }

func (r PortRange) String() string {
	switch {
	case r == allPorts:
		return "*"
	case r.First == r.Last:
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

var allPorts = PortRange{1, 65535}

// defaultPorts are those of an allow rule that names none: HTTPS and HTTP.
var defaultPorts = []PortRange{{443, 443}, {80, 80}}

// Source is where a rule stands.
type Source struct {
	File         string // empty: the command line
	Line, Column int    // from 1
}

func (s Source) String() string {
	if s.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d: ", s.File, s.Line, s.Column)
}

// SyntaxError is a rule that makes no sense.
type SyntaxError struct {
	Source
	Text string // the rule
	Msg  string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%srule %q: %s", e.Source, e.Text, e.Msg) }

// Rule is one rule.
type Rule struct {
	Action Action
	Text   string // in one way of writing, without the action
	Source Source
	Preset string // the preset it comes from, if any

	proto Proto // empty: any (a deny rule without ports)
	raw   bool
	ports []PortRange

	labels []string     // of a name; "*" and "**" as written
	prefix netip.Prefix // of addresses
	host   bool         // the host's own loopback
}

func (r *Rule) String() string { return r.Action.String() + " " + r.Text }

// covers says whether the rule is about a port.
func (r *Rule) covers(proto Proto, port uint16) bool {
	if r.proto != "" && r.proto != proto {
		return false
	}
	for _, p := range r.ports {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return false
}

// Flow is what a guest wants to reach.
type Flow struct {
	Name  string     // in lower case without a final dot; empty for a bare address
	Addr  netip.Addr // of a flow without a name
	Port  uint16
	Proto Proto
	Host  bool // a service on the host's own loopback
}

func (f Flow) target() string {
	switch {
	case f.Host:
		return "host"
	case f.Name != "":
		return f.Name
	case f.Addr.Is6():
		return "[" + f.Addr.String() + "]"
	}
	return f.Addr.String()
}

func (f Flow) String() string {
	s := fmt.Sprintf("%s:%d", f.target(), f.Port)
	if f.Proto == UDP {
		s = "udp:" + s
	}
	return s
}

// Suggest is the rule that would allow a flow and nothing else of its target's, as
// a person would type it. It is empty for a flow that no rule can allow, and for a
// name that would mean something else as a rule: a guest asks DNS for any bytes,
// "**" and "host:5432" among them.
func Suggest(f Flow) string {
	if name, ok := CleanName(f.Name); f.Name != "" && (!ok || name != f.Name || isHost(name)) {
		return ""
	}
	text := f.String()
	if f.Proto != UDP && !f.Host && (f.Port == 443 || f.Port == 80) {
		text = strings.Trim(f.target(), "[]")
	}
	if _, err := ParseRule(Allow, text); err != nil {
		return ""
	}
	return text
}

// Unreachable says why no rule can allow a flow, or nil.
func (f Flow) Unreachable() error {
	r := Rule{host: f.Host}
	switch {
	case f.Host:
		return nil
	case f.Name != "":
		r.labels = strings.Split(f.Name, ".")
	default:
		r.prefix = netip.PrefixFrom(f.Addr, f.Addr.BitLen())
	}
	return r.matchless()
}

// Decision is what a Set says of a flow.
type Decision struct {
	Allow  bool
	Rule   *Rule // that decided; nil is the default
	Raw    bool  // the rule wants no look at the bytes
	Reason string
	// Prefix is the narrowest block of addresses by which the flow is allowed;
	// not valid for a name.
	Prefix netip.Prefix
}
