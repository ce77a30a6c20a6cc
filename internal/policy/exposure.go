package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What a rule opens.
//
// Theory of operation. People read a rule as text, and texts that look alike open very
// different things: "db.example.org:5432" is one server, "raw:host:5432" is a database of
// this machine, "64:ff9b::a9fe:a9fe" is the cloud's metadata service. So every place that
// shows, proposes or adds a rule asks Exposure, which judges the parsed rule:
//
//   - a rule about names by what follows its last wildcard (publishers.go): a domain of
//     one owner, or one below which anybody gets a name;
//   - a rule about addresses by the special blocks that it lies in (addresses.go), also
//     those that it hides in an IPv6 address, by the networks of this host (Host), and by its
//     width;
//   - "host", host:ADDRESS and the addresses of the loopback as services of the host. A rule
//     for an address that the host has now is judged so too, though it opens nothing there:
//     whoever wrote it may mean the host.
//
// A wide prefix such as 0.0.0.0/0 does not open the special blocks in it (the gateway asks
// for a rule that lies within the block), so it is judged as wide and nothing more.

// Severity is how loudly a front end has to say what a rule opens.
type Severity int

// The severities, in rising order.
const (
	// Ordinary: no more than the hosts that the rule names.
	Ordinary Severity = iota
	// Broad: more than a reader sees in the rule, or a network that is not the Internet.
	// Such a rule is shown in capitals, and added only by a decision about that rule.
	Broad
	// OpensHost: services of this host. Such a rule is asked about twice.
	OpensHost
)

// Kind is a set of what a rule opens.
type Kind uint

// The kinds.
const (
	KindHost       Kind = 1 << iota // services of the host: "host", its loopback, its own addresses
	KindMetadata                    // the cloud's metadata service, which gives out credentials
	KindLinkLocal                   // the link that the host is on
	KindPrivate                     // private networks
	KindHidden                      // an IPv4 address in an IPv6 address
	KindReserved                    // blocks for special purposes
	KindWide                        // a large part of the Internet
	KindAnybody                     // names that anybody can get
	KindRaw                         // connections that are not inspected
	KindNeighbours                  // public addresses of a network that the host is connected to
)

// Host is what is known of this host's networks. The zero value knows nothing.
type Host struct {
	Own        []netip.Addr   // of its interfaces, without the loopback's
	Neighbours []netip.Prefix // networks that it reaches without a router
	Translated []netip.Prefix // that its network translates to IPv4 (NAT64), beside the well-known one
}

// Exposure is what an allow rule opens. The zero value is that of a deny rule.
type Exposure struct {
	Kinds Kind
	// Opens says what needs attention, in capitals, and completes "it opens ...". Empty if
	// the exposure is Ordinary.
	Opens string
	// Text completes "the guest may reach ...": one line, with the rule and what it opens.
	Text string
}

// Severity returns how loudly the exposure has to be shown.
func (e Exposure) Severity() Severity {
	switch {
	case e.Kinds&KindHost != 0:
		return OpensHost
	case e.Kinds != 0:
		return Broad
	}
	return Ordinary
}

// Exposure returns what the rule opens on a host. A rule of a preset is Ordinary: a preset is
// bawn's own list.
func (r *Rule) Exposure(host Host) Exposure {
	if r.Action != Allow {
		return Exposure{}
	}
	if r.Preset != "" {
		return Exposure{Text: r.Text}
	}
	j := judgement{rule: r, at: host}
	switch {
	case r.host:
		j.add(KindHost, "SERVICES OF THE HOST on "+r.portWords())
	case r.atHost:
		j.add(KindHost, "SERVICES OF THE HOST, at its own address on "+r.portWords())
	case r.prefix.IsValid():
		j.addresses(r.prefix)
	default:
		j.names()
	}
	if r.private {
		j.add(KindPrivate, "PRIVATE ADDRESSES, where this name leads to one")
	}
	if r.raw {
		j.add(KindRaw, "WITHOUT INSPECTION of names in TLS and HTTP")
	}
	e := Exposure{Kinds: j.kinds, Opens: strings.Join(j.texts, ", "), Text: r.Text}
	if r.request != nil {
		e.Text = r.requestWords()
	}
	switch {
	case e.Opens == "":
	case r.Text == "host:"+portList(r.ports): // the words say all of the rule
		e.Text = e.Opens
	default:
		e.Text += ", which opens " + e.Opens
	}
	return e
}

// requestWords returns a rule about requests in words.
func (r *Rule) requestWords() string {
	switch j := r.request.judged; {
	case r.request.git != nil:
		return r.gitWords()
	case j != nil:
		return j.repo.words(j.mode.mode)
	}
	what := "requests"
	if m := r.request.methods; len(m) > 0 {
		what = strings.Join(m, ", ") + " requests"
	}
	return r.requestURL() + " by " + what + " (inspected on the host)"
}

// ExposureOf returns the exposure of a rule as text; of a preset, that of its name.
func ExposureOf(text string, host Host) (Exposure, error) {
	rules, err := ParseRule(Allow, text)
	if err != nil {
		return Exposure{}, err
	}
	if name, ok := cutWord(text, "preset:"); ok {
		return Exposure{Text: "preset:" + strings.ToLower(name)}, nil
	}
	if t, ok := cutCodeHost(text); ok {
		repo, err := t.repository()
		e := rules[0].Exposure(host) // all are about one server
		if e.Text = repo.words(repo.mode); e.Opens != "" {
			e.Text += ", which opens " + e.Opens
		}
		return e, err
	}
	return rules[0].Exposure(host), nil
}

// judgement collects what one rule opens.
type judgement struct {
	rule  *Rule
	at    Host
	kinds Kind
	texts []string
}

func (j *judgement) add(k Kind, text string) {
	j.kinds |= k
	if !slices.Contains(j.texts, text) {
		j.texts = append(j.texts, text)
	}
}

// names judges a rule about names.
func (j *judgement) names() {
	if !slices.ContainsFunc(j.rule.labels, func(l string) bool { return l[0] == '*' }) {
		return
	}
	end := literalEnd(j.rule.labels)
	switch owner := ownerOf(end); {
	case end == "":
		j.add(KindWide, "EVERY NAME on the Internet")
	case owner == registry:
		j.add(KindAnybody|KindWide, "EVERY NAME BELOW "+strings.ToUpper(end)+", where anybody can register one")
	case owner == publisher:
		j.add(KindAnybody, "NAMES OF STRANGERS: anybody can get a name below "+end)
	}
}

// addresses judges a rule about a block of addresses.
func (j *judgement) addresses(p netip.Prefix) {
	on := " on " + j.rule.portWords()
	if hidden, ok := hiddenIPv4(p); ok {
		j.add(KindHidden, fmt.Sprintf("IPv4 ADDRESSES HIDDEN IN IPv6 (%s)", hidden))
		p = hidden
	} else if p.Addr().Is6() && p.Bits() >= wide6 && hidesAllIPv4(p) { // a shorter one is wide anyway
		j.add(KindHidden|KindWide, "EVERY IPv4 ADDRESS, HIDDEN IN IPv6")
	} else if hidden, ok := j.translated(p); ok {
		p = hidden
	}
	if p.IsSingleIP() && slices.Contains(j.at.Own, p.Addr()) {
		j.add(KindHost, "SERVICES OF THE HOST if it is written host:"+j.rule.bareTarget()+", and nothing while the host has this address")
		return
	}
	for _, b := range specialBlocks {
		if !within(p, b.prefix) {
			continue
		}
		switch b.kind {
		case KindHost:
			j.add(b.kind, "SERVICES OF THE HOST, at its loopback address"+on)
		default:
			j.add(b.kind, b.what)
		}
	}
	special := j.kinds&^KindHidden != 0
	for _, n := range j.at.Neighbours {
		if !special && within(p, n) { // a wider rule does not open the network
			j.add(KindNeighbours, fmt.Sprintf("NEIGHBOURS OF THIS HOST (in the network %s, which it is connected to)", n))
			break
		}
	}
	for _, a := range metadataAddresses {
		if p.Contains(a) && (special || p.IsSingleIP() || j.kinds&KindHidden != 0) {
			j.add(KindMetadata, "CLOUD METADATA, which gives out credentials ("+a.String()+")")
			break
		}
	}
	j.width(p, special)
}

// translated judges a block as what the host's network translates it to. It returns the block
// of IPv4 addresses, if that is known.
func (j *judgement) translated(p netip.Prefix) (hidden netip.Prefix, ok bool) {
	for _, t := range j.at.Translated {
		switch {
		case within(t, p):
			j.add(KindHidden|KindWide, fmt.Sprintf("EVERY IPv4 ADDRESS, by the NAT64 of this host's network (%s)", t))
			return p, false
		case within(p, t) && (p.IsSingleIP() || t.Bits() == 96):
			hidden = netip.PrefixFrom(EmbeddedIPv4(p.Addr(), t.Bits()), 32)
			if t.Bits() == 96 {
				hidden = netip.PrefixFrom(hidden.Addr(), p.Bits()-96)
			}
			j.add(KindHidden, fmt.Sprintf("IPv4 ADDRESSES by the NAT64 of this host's network (%s)", hidden))
			return hidden, true
		case within(p, t):
			j.add(KindHidden, fmt.Sprintf("IPv4 ADDRESSES by the NAT64 of this host's network (%s)", t))
			return p, false
		}
	}
	return p, false
}

// width judges how many addresses a block has. A special block is known for what it is.
func (j *judgement) width(p netip.Prefix, special bool) {
	switch {
	case p.Bits() == 0:
		j.add(KindWide, "EVERY ADDRESS of the Internet")
	case !special && (p.Addr().Is4() && p.Bits() < wide4 || p.Addr().Is6() && p.Bits() < wide6):
		j.add(KindWide, "A LARGE PART OF THE INTERNET")
	}
}

// Prefixes shorter than these have addresses of many owners: an IPv4 /16 and an IPv6 /32
// are the usual allocations to one provider.
const (
	wide4 = 16
	wide6 = 32
)

// portWords returns the ports of a rule in words.
func (r *Rule) portWords() string {
	var udp string
	if r.proto == UDP {
		udp = "UDP "
	}
	switch n := countPorts(r.ports); {
	case n == int(allPorts.Last):
		return "ALL " + udp + "PORTS"
	case n == 1:
		return udp + "port " + portList(r.ports)
	}
	return udp + "ports " + portList(r.ports)
}

// portList returns ports as they are written in a rule.
func portList(list []PortRange) string {
	var ports []string
	for _, p := range list {
		ports = append(ports, p.String())
	}
	return strings.Join(ports, ",")
}

// CheckHostPorts returns an error if the rule opens more services of the host at once than
// a person thinks of: all of them, or ranges; or if it is for an address that the host has,
// and does not open it.
func (r *Rule) CheckHostPorts(host Host) error {
	n := countPorts(r.ports)
	if r.Action == Allow && !r.atHost && r.prefix.IsValid() && r.prefix.IsSingleIP() && slices.Contains(host.Own, r.prefix.Addr()) {
		return fmt.Errorf("%s is an address of this host, and a rule for it means other machines: write host:%s:PORT for a service of the host", r.prefix.Addr(), r.bareTarget())
	}
	if r.Action != Allow || n <= MaxHostPorts || r.Exposure(host).Kinds&KindHost == 0 {
		return nil
	}
	target := "host:PORT"
	if !r.host {
		target = r.bareTarget() + ":PORT"
	}
	if r.atHost {
		target = "host:" + target
	}
	if n == int(allPorts.Last) {
		return fmt.Errorf("it opens every service of the host; they are allowed one port at a time: write %s", target)
	}
	return fmt.Errorf("%d ports of the host: a rule may allow at most %d; write %s", n, MaxHostPorts, target)
}
