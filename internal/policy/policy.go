// Package policy decides which hosts, addresses and ports a guest may reach. It is
// pure: rules are parsed (parse.go), made into a Set that decides (set.go), and
// nothing here touches the network. docs/policy.md is the reference for users.
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

// Action is the effect of a rule.
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

// PortRange is the ports from First to Last.
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

// defaultPorts are the ports of an allow rule that names none: HTTPS and HTTP.
var defaultPorts = []PortRange{{443, 443}, {80, 80}}

// Source is the position of a rule in a file.
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

// SyntaxError is a rule that cannot be parsed or can never match.
type SyntaxError struct {
	Source
	Text string // the rule
	Msg  string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%srule %q: %s", e.Source, e.Text, e.Msg) }

// Rule is one rule. It must not change once it is part of a Set.
type Rule struct {
	Action Action
	Text   string // its canonical form, without the action
	Source Source
	Preset string // the preset it comes from, if any

	proto   Proto // empty: any (a deny rule without ports)
	raw     bool
	ech     bool
	private bool
	ports   []PortRange

	labels []string     // of a name; "*" and "**" as written
	prefix netip.Prefix // of addresses
	host   bool         // the host's own loopback
	atHost bool         // with a prefix: an address of the host's own interfaces

	request *request // of a rule about requests; nil: the rule is about connections
}

// AboutGlobalIPv6 reports whether the rule is about global IPv6 addresses, of which a network
// may translate some to IPv4 (Host).
func (r *Rule) AboutGlobalIPv6() bool {
	return r.prefix.IsValid() && within(r.prefix, netip.MustParsePrefix("2000::/3"))
}

func (r *Rule) String() string { return r.Action.String() + " " + r.Text }

// covers reports whether the rule is about a port.
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

// aboutGit reports whether the rule is about repositories of git that are served at a port, also over SSH.
func (r *Rule) aboutGit(port uint16) bool {
	return r.request != nil && r.request.git != nil && port != schemes["http"] && r.covers(TCP, port)
}

// Flow is the target of a guest's traffic: a name, a bare address, or a service on the
// host's own loopback. Rules are matched against it. It is comparable.
//
// A host gets and loses addresses (DHCP, a bridge of Docker), so a rule about an address
// means other machines, unless it says that it means the host: AtHost tells them apart.
type Flow struct {
	// Name is in lower case without a final dot, and empty for a bare address. Of
	// a Host flow it is only how the guest spelled it: no rule looks at it.
	Name string
	// Addr is the address of a flow without a name. An IPv4 address mapped into
	// IPv6 is judged by the rules about the IPv4 address.
	Addr  netip.Addr
	Port  uint16
	Proto Proto
	Host  bool // a service on the host's own loopback
	// AtHost means that Addr is at present one of the host's interfaces. Only rules
	// host:ADDRESS allow it, and they allow nothing else.
	AtHost bool
}

func (f Flow) target() string {
	a := f.Addr.Unmap()
	switch {
	case f.Host:
		return "host"
	case f.Name != "":
		return f.Name
	case a.Is6():
		return "[" + a.String() + "]"
	}
	return a.String()
}

func (f Flow) String() string {
	s := fmt.Sprintf("%s:%d", f.target(), f.Port)
	if f.Proto == UDP {
		s = "udp:" + s
	}
	return s
}

// Suggest returns the narrowest rule, in the syntax users type, that allows the
// flow; a flow without a port is one of which only the name is known, and gets the usual
// ports. It is empty for a flow that no rule can allow; for a name that would mean
// something else as a rule (a guest asks DNS for any bytes, "**" and "host:5432" among
// them); and for an address that nobody is to be asked about: the host's loopback, the
// cloud's metadata, link-local, hidden and reserved addresses, and AtHost. Whoever wants one
// of these writes the rule.
func Suggest(f Flow) string {
	if f.AtHost {
		return ""
	}
	if name, ok := CleanName(f.Name); !f.Host && f.Name != "" && (!ok || name != f.Name || isHost(name)) {
		return ""
	}
	text := f.String()
	if f.Port == 0 {
		text = strings.Trim(f.target(), "[]")
	}
	rules, err := ParseRule(Allow, text)
	if err != nil || len(rules) != 1 {
		return ""
	}
	if e := rules[0].Exposure(Host{}); !f.Host && e.Kinds&^KindPrivate != 0 {
		return ""
	}
	return text
}

// Unreachable returns why no rule can allow the flow, or nil.
func (f Flow) Unreachable() error {
	r := Rule{host: f.Host}
	switch {
	case f.Host:
		return nil
	case f.Name != "":
		r.labels = strings.Split(f.Name, ".")
	default:
		a := f.Addr.Unmap()
		r.prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return r.checkMatchable()
}

// Decision is the answer to a Flow, by a Set or by the checks that no rule can change. The
// zero value denies.
type Decision struct {
	Allow bool
	Rule  *Rule // the rule that decided; nil if none did
	Raw   bool  // a rule wants the bytes not to be inspected
	// ECH permits Encrypted Client Hello, Private the private addresses of a network.
	ECH, Private bool
	// Requests means that a rule is about requests on this connection: each of them has to be
	// judged (DecideRequest), and nothing may pass that is not judged so. A denied flow may
	// have it, too.
	Requests bool
	// SSH means that Requests holds also for what sessions of git over SSH ask (SSHRequest): a
	// connection that begins as one of SSH is ended here.
	SSH bool
	// Push, of an allowed request that pushes to a repository, judges what is in its body, which
	// may pass only then. nil: every push may pass.
	Push *PushRules
	// Body, of an allowed request, says what its body has to be, and only then it may pass. nil: anything.
	Body      *BodyRules
	Malformed bool   // of a request: it can be read in different ways
	Reason    string // why it is denied or allowed, for users
	// Prefix is the narrowest block of addresses by which the flow is allowed; not
	// valid for a name.
	Prefix netip.Prefix
}

// RuleText returns the deciding rule with its action, or "" if no rule decided.
func (d Decision) RuleText() string {
	if d.Rule == nil {
		return ""
	}
	return d.Rule.String()
}
