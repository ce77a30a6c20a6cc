package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Set is compiled rules. It does not change, and is safe for concurrent use.
//
// Rules about names stand in a tree of labels, from the last one to the first: a
// look-up goes down by the label and by * at each step, so its cost is that of the
// labels and not of the rules. Rules about addresses are found by prefix, one
// look-up for each length that occurs.
type Set struct {
	rules []Rule
	names node
	nets  map[netip.Prefix][]*Rule
	bits4 []int // lengths of prefixes that occur
	bits6 []int
	host  []*Rule
}

// Compile returns the Set of the rules.
func Compile(rules []Rule) *Set {
	s := &Set{rules: append([]Rule{}, rules...), nets: map[netip.Prefix][]*Rule{}}
	var seen4, seen6 [129]bool
	for i := range s.rules {
		r := &s.rules[i]
		switch {
		case r.host:
			s.host = append(s.host, r)
		case r.prefix.IsValid():
			s.nets[r.prefix] = append(s.nets[r.prefix], r)
			if r.prefix.Addr().Is4() {
				seen4[r.prefix.Bits()] = true
			} else {
				seen6[r.prefix.Bits()] = true
			}
		default:
			s.names.add(r)
		}
	}
	for b := len(seen4) - 1; b >= 0; b-- { // the narrowest first
		if seen4[b] {
			s.bits4 = append(s.bits4, b)
		}
		if seen6[b] {
			s.bits6 = append(s.bits6, b)
		}
	}
	return s
}

// node is the end of a name, from some label on.
type node struct {
	next  map[string]*node // by the label before it, which may be *
	exact []*Rule          // about this name
	below []*Rule          // about this name and all that end so (**)
}

func (n *node) add(r *Rule) {
	for i := len(r.labels) - 1; i >= 0; i-- {
		l := r.labels[i]
		if l == "**" {
			n.below = append(n.below, r)
			return
		}
		if n.next == nil {
			n.next = map[string]*node{}
		}
		if n.next[l] == nil {
			n.next[l] = &node{}
		}
		n = n.next[l]
	}
	n.exact = append(n.exact, r)
}

// about calls use for the rules about a name that ends in the node; rest is the part of the
// name before that.
func (n *node) about(rest string, use func(*Rule)) {
	for _, r := range n.below {
		use(r)
	}
	if rest == "" {
		for _, r := range n.exact {
			use(r)
		}
		return
	}
	dot := strings.LastIndexByte(rest, '.')
	label := rest[dot+1:]
	rest = rest[:max(dot, 0)]
	if k := n.next[label]; k != nil {
		k.about(rest, use)
	}
	if k := n.next["*"]; k != nil && label != "*" {
		k.about(rest, use)
	}
}

// literalEnd returns what follows the last wildcard.
func literalEnd(labels []string) string {
	for i := len(labels) - 1; i >= 0; i-- {
		if labels[i][0] == '*' {
			return strings.Join(labels[i+1:], ".")
		}
	}
	return strings.Join(labels, ".")
}

// about calls use for each rule about a flow's target, whatever the port.
func (s *Set) about(f Flow, use func(*Rule)) {
	switch {
	case f.Host:
		for _, r := range s.host {
			use(r)
		}
	case f.Name != "":
		s.names.about(f.Name, use)
	default:
		a, bits := f.Addr.Unmap(), s.bits4
		if a.Is6() {
			bits = s.bits6
		}
		for _, b := range bits {
			p, err := a.Prefix(b)
			if err != nil {
				continue
			}
			for _, r := range s.nets[p] {
				if r.Action == Deny || r.atHost == f.AtHost {
					use(r)
				}
			}
		}
	}
}

// Decide returns whether a flow may pass, and why. Deny wins over allow; what no rule
// is about is denied.
func (s *Set) Decide(f Flow) Decision {
	var about judged
	s.about(f, func(r *Rule) { about.add(r, f) })
	d := about.decision()
	switch {
	case about.deny != nil:
		return Decision{Rule: about.deny, Requests: d.Requests, SSH: d.SSH, Reason: fmt.Sprintf("the rule %q denies it", about.deny)}
	case about.allow != nil:
		d.Reason = fmt.Sprintf("the rule %q allows it", about.allow) + endedHere(d, f)
		return d
	case about.some != nil && f.Proto == TCP:
		d.Rule, d.Reason = about.some, fmt.Sprintf("the rule %q allows some requests", about.some)+endedHere(d, f)
		return d
	}
	return Decision{Requests: d.Requests, SSH: d.SSH, Reason: s.whyNot(f)}
}

// endedHere says what becomes of a connection of SSH.
func endedHere(d Decision, f Flow) string {
	if d.SSH && f.Port == sshPort {
		return "; bawn ends SSH there, and judges the repository"
	}
	return ""
}

// judged is what the rules about a flow say.
type judged struct {
	allow, deny       *Rule // connections
	some, without     *Rule // allow some requests, deny some requests
	ssh               bool  // some rule is about repositories of git
	raw, ech, private bool
	prefix            netip.Prefix
}

// add takes a rule about f into account. Of the allow rules the first is kept, or the first
// with raw.
func (j *judged) add(r *Rule, f Flow) {
	if r.request != nil {
		j.addRequests(r, f)
		return
	}
	switch {
	case !r.covers(f.Proto, f.Port):
	case r.Action == Deny && j.deny == nil:
		j.deny = r
	case r.Action == Allow:
		if j.allow == nil || r.raw && !j.raw {
			j.allow = r
		}
		if !j.prefix.IsValid() {
			j.prefix = r.prefix
		}
		j.raw, j.ech, j.private = j.raw || r.raw, j.ech || r.ech, j.private || r.private
	}
}

// addRequests takes a rule about requests into account. It counts for UDP too, over which the
// same requests could be made.
func (j *judged) addRequests(r *Rule, f Flow) {
	j.ssh = j.ssh || f.Proto == TCP && r.aboutGit(f.Port)
	switch {
	case !r.covers(TCP, f.Port):
	case r.Action == Deny:
		j.without = r
	default:
		j.some = cmp.Or(j.some, r)
		j.private = j.private || r.private
	}
}

// decision returns what the allow rules open.
func (j *judged) decision() Decision {
	d := Decision{Rule: j.allow, Allow: true, Raw: j.raw && j.without == nil, ECH: j.ech, Private: j.private, Prefix: j.prefix}
	d.Requests = (j.some != nil || j.without != nil) && !d.Raw
	d.SSH = j.ssh && d.Requests
	return d
}

// whyNot says why no rule allows a flow. A rule for the same address may mean another machine.
func (s *Set) whyNot(f Flow) string {
	var other *Rule
	f.AtHost = !f.AtHost
	if f.Addr.IsValid() {
		s.about(f, func(r *Rule) {
			if other == nil && r.Action == Allow && r.covers(f.Proto, f.Port) {
				other = r
			}
		})
	}
	switch {
	case other == nil:
		return "no rule allows it"
	case other.atHost:
		return fmt.Sprintf("the rule %q opens an address of the host only, which %s is not now", other, f.Addr)
	}
	return fmt.Sprintf("the rule %q opens no address of the host, which %s is now: allow %s if the guest is to reach that service of the host", other, f.Addr, hostRule(f))
}

// hostRule returns the rule that opens a service of the host at the address of a flow.
func hostRule(f Flow) string {
	a := f.Addr.Unmap()
	r := Rule{proto: f.Proto, atHost: true, prefix: netip.PrefixFrom(a, a.BitLen()), ports: []PortRange{{f.Port, f.Port}}}
	return r.canonical()
}

// Overruled returns the deny rule that keeps an allow rule from ever taking effect,
// or nil. Only rules about one name, one address or the host are looked at: of what
// a wildcard allows, something may be left.
func (s *Set) Overruled(r *Rule) *Rule {
	f := Flow{Name: strings.Join(r.labels, "."), Host: r.host, Proto: r.proto, AtHost: r.atHost}
	if r.prefix.IsValid() {
		f.Addr = r.prefix.Addr()
	}
	if r.Action != Allow || strings.Contains(f.Name, "*") || r.prefix.IsValid() && !r.prefix.IsSingleIP() {
		return nil
	}
	var by *Rule
	for _, p := range r.ports {
		whole := false
		s.about(f, func(d *Rule) {
			if d.Action == Deny && d.request == nil && d.covers(f.Proto, p.First) && slices.ContainsFunc(d.ports, func(o PortRange) bool {
				return o.First <= p.First && p.Last <= o.Last
			}) {
				by, whole = d, true
			}
		})
		if !whole {
			return nil
		}
	}
	return by
}

// Widened returns the allow rule that lets every request to the host of an allow rule pass, so that
// the latter allows nothing more, and keeps nothing out; nil if there is none, or if the rule is not
// about requests to one host.
func (s *Set) Widened(r *Rule) *Rule {
	if r.Action != Allow || r.request == nil || literalEnd(r.labels) != strings.Join(r.labels, ".") {
		return nil
	}
	var by *Rule
	s.about(Flow{Name: literalEnd(r.labels), Port: r.ports[0].First, Proto: TCP}, func(o *Rule) {
		if by == nil && o.Action == Allow && o.request == nil && o.covers(TCP, r.ports[0].First) {
			by = o
		}
	})
	return by
}

// Suggest returns the result of the package's Suggest, or "" if a rule of the set denies the
// flow: deny wins, so that no other rule helps.
func (s *Set) Suggest(f Flow) string {
	if d := s.Decide(f); d.Rule != nil && !d.Allow {
		return ""
	}
	return Suggest(f)
}

// Resolves reports whether a name may have an address for the guest: some port of it
// is allowed. For HostName that is some port of the host's own loopback.
func (s *Set) Resolves(name string) bool {
	if name == HostName {
		return s.HasHost()
	}
	allowed, denied := s.protos(name)
	return allowed[TCP] && !denied[TCP] || allowed[UDP] && !denied[UDP]
}

// protos returns over which protocols rules allow some port of a name, and over which they
// deny all.
func (s *Set) protos(name string) (allowed, denied map[Proto]bool) {
	allowed, denied = map[Proto]bool{}, map[Proto]bool{}
	s.about(Flow{Name: name}, func(r *Rule) {
		switch {
		case r.Action == Allow:
			allowed[r.proto] = true
		case len(r.ports) == 1 && r.ports[0] == allPorts:
			for _, p := range []Proto{TCP, UDP} {
				if r.proto == "" || r.proto == p {
					denied[p] = true
				}
			}
		}
	})
	return allowed, denied
}

// HasHost reports whether a service of the host's own loopback is allowed.
func (s *Set) HasHost() bool {
	for _, r := range s.host {
		if r.Action == Allow {
			return true
		}
	}
	return false
}

// Rules returns all rules, in their order. The slice is the caller's.
func (s *Set) Rules() []Rule { return append([]Rule{}, s.rules...) }
