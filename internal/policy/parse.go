package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Limits of names (RFC 1035 section 2.3.4) and of what is read here.
const (
	maxName  = 253
	maxLabel = 63
	maxRule  = 1024
)

// MaxFile is the size of the largest file of rules that is read, in bytes.
const MaxFile = 4 << 20

// MaxHostPorts is how many services of the host one rule may open: those that the user
// thought of, not all that listen there.
const MaxHostPorts = 64

// ParseRule reads one rule:
//
//	[udp:|raw:|ech:][private:]TARGET[:PORTS]
//	[METHODS ][private:]SCHEME://HOST[:PORT]PATH
//	[private:]git:HOST[:PORT]/PATH[:read|:push=REFS[:delete]]
//
// The second form is about requests: SCHEME is https or http, METHODS a list with commas
// (none: any), and in PATH * is one segment and ** any number. The third one is about a
// repository of git over HTTPS and SSH. [private:]github:[HOST/]OWNER/REPO[:read|:graphql|:mutations] and
// [private:]gitlab:[HOST/]GROUP[/SUBGROUP...]/PROJECT[:read|:rest|:graphql|:write] stand for rules about requests to the API of that
// service (codehost.go).
//
// TARGET is a host name whose labels may be * (one label) or begin with ** (any
// number, none among it), an IP address or network, "host" (the host's own loopback),
// host:ADDRESS (an address of the host's interfaces) or preset:NAME. PORTS is a list of ports and ranges, or *. An allow rule without
// ports is about 443 and 80; a deny rule without ports is about everything. Case
// means nothing. Errors are *SyntaxError.
func ParseRule(action Action, text string) ([]Rule, error) {
	return parseRule(action, text, Source{Line: 1, Column: 1})
}

// Canonical returns the canonical form of a rule. Presets, github: and gitlab: are not expanded.
func Canonical(action Action, text string) (string, error) {
	r, err := ParseRule(action, text)
	if err != nil {
		return "", err
	}
	if name, ok := cutWord(text, "preset:"); ok {
		return "preset:" + strings.ToLower(name), nil
	}
	if t, ok := cutCodeHost(text); ok {
		return t.canonical(), nil
	}
	return r[0].Text, nil
}

// cutWord removes a keyword of the grammar from the beginning.
func cutWord(s, word string) (rest string, ok bool) {
	if len(s) < len(word) || !strings.EqualFold(s[:len(word)], word) {
		return s, false
	}
	return s[len(word):], true
}

func parseRule(action Action, text string, at Source) ([]Rule, error) {
	fail := func(format string, args ...any) ([]Rule, error) {
		short := text
		if len(short) > 100 {
			short = short[:100] + "..."
		}
		return nil, &SyntaxError{at, short, fmt.Sprintf(format, args...)}
	}
	if len(text) > maxRule {
		return fail("longer than %d bytes", maxRule)
	}
	if name, ok := cutWord(text, "preset:"); ok {
		p, err := expand(action, strings.ToLower(name), at)
		if err != nil {
			return fail("%v", err)
		}
		return p, nil
	}
	if t, ok := cutCodeHost(text); ok {
		list, err := t.expand(action, at)
		if err != nil {
			return fail("%v", err)
		}
		return list, nil
	}
	r := Rule{Action: action, Source: at}
	set := r.setConnections
	switch {
	case isGitRule(text):
		set = r.setGit
	case isRequestRule(text):
		set = r.setRequest
	}
	if err := set(text); err != nil {
		return fail("%v", err)
	}
	if err := r.checkMatchable(); err != nil {
		return fail("%v", err)
	}
	if err := r.CheckHostPorts(Host{}); err != nil { // the host's own addresses are not known here
		return fail("%v", err)
	}
	if err := r.checkKeywords(); err != nil {
		return fail("%v", err)
	}
	r.Text = r.canonical()
	if len(r.Text) > maxRule { // it is written into the sandbox's files, and read from there
		return fail("longer than %d bytes once it is percent-encoded", maxRule)
	}
	return []Rule{r}, nil
}

// setConnections reads a rule about connections into r.
func (r *Rule) setConnections(text string) error {
	rest, err := r.takeKeywords(text)
	if err != nil {
		return err
	}
	rest, r.atHost = cutHostAddress(rest)
	target, ports, err := splitPorts(rest)
	if err != nil {
		return err
	}
	if err := r.setTarget(target); err != nil {
		return err
	}
	if err := r.checkHostAddress(); err != nil {
		return err
	}
	return r.setPorts(ports)
}

// splitPorts splits a rule into target and ports. ports is "" when there are none.
func splitPorts(s string) (target, ports string, err error) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		addr, after, ok := strings.Cut(rest, "]")
		switch {
		case !ok:
			return "", "", errors.New("the closing bracket is missing")
		case !strings.Contains(addr, ":"):
			return "", "", fmt.Errorf("%q in brackets: brackets are for IPv6 addresses only", addr)
		case after == "":
			return addr, "", nil
		case strings.HasPrefix(after, "/"): // [2001:db8::]/32:443
			bits, ports, has := strings.Cut(after, ":")
			if has && ports == "" {
				return "", "", errNoPorts
			}
			return addr + bits, ports, nil
		case !strings.HasPrefix(after, ":"):
			return "", "", fmt.Errorf("unexpected %q after the bracket", after)
		case after == ":":
			return "", "", errNoPorts
		}
		return addr, after[1:], nil
	}
	if strings.Count(s, ":") > 1 { // an IPv6 address without brackets has no ports
		return s, "", nil
	}
	target, ports, ok := strings.Cut(s, ":")
	if ok && ports == "" {
		return "", "", errNoPorts
	}
	return target, ports, nil
}

var errNoPorts = errors.New("no port follows the colon")

func (r *Rule) setTarget(s string) error {
	switch {
	case s == "":
		return errors.New("no host name or address")
	case isHost(s):
		r.host = true
		return nil
	case strings.Contains(s, "/"):
		p, err := parsePrefix(s)
		r.prefix = p
		return err
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return errors.New("an address with a zone, such as fe80::1%eth0, cannot be used in a rule")
		}
		a = a.Unmap()
		r.prefix = netip.PrefixFrom(a, a.BitLen())
		return nil
	}
	if strings.Contains(s, ":") {
		return fmt.Errorf("%q is not an IPv6 address; with ports, write [ADDRESS]:PORTS", s)
	}
	labels, err := parseName(s, true)
	if len(labels) == 1 && isHost(labels[0]) { // written with a dot, or in wide letters
		r.host = true
		return nil
	}
	r.labels = labels
	return err
}

// parsePrefix reads ADDRESS/BITS. A network of mapped addresses is the IPv4 one.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil && strings.Count(s, ":") > 1 {
		return p, fmt.Errorf("%q is not a network: write ADDRESS/BITS, or with ports [ADDRESS]/BITS:PORTS", s)
	}
	if err != nil {
		return p, fmt.Errorf("%q is not a network: write ADDRESS/BITS", s)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("%s mixes IPv4 and IPv6 addresses", p)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s has bits set beyond its length: write %s", p, p.Masked())
	}
	return p, nil
}

// isHost reports whether a target is the host's own loopback.
func isHost(s string) bool { return strings.EqualFold(s, "host") }

// profile converts names as browsers do before a look-up (UTS #46), but allows underscores,
// which the names of services have.
var profile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false), idna.CheckHyphens(false))

// dots replaces the other characters that separate labels by a full stop (UTS #46, section
// 2.3).
var dots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// parseName returns the labels of a host name, in the form that DNS has.
func parseName(s string, wildcards bool) ([]string, error) {
	s = strings.TrimSuffix(dots.Replace(s), ".")
	parts := strings.Split(s, ".")
	if slices.Contains(parts, "") {
		return nil, fmt.Errorf("%q is not a host name: a part of it is empty", s)
	}
	var labels []string
	for i, p := range parts {
		if wildcards && (p == "*" || p == "**" && i == 0) {
			labels = append(labels, p)
			continue
		}
		l, err := parseLabel(p)
		if err != nil {
			return nil, err
		}
		labels = append(labels, l)
	}
	if err := checkName(s, labels); err != nil {
		return nil, err
	}
	return labels, nil
}

// parseLabel returns one part of a host name, which is no wildcard, in the form that
// DNS has.
func parseLabel(p string) (string, error) {
	switch {
	case p == "**":
		return "", errors.New("** can stand only at the beginning of a name")
	case strings.Contains(p, "*"):
		return "", fmt.Errorf("%q: a wildcard must be a whole part of the name", p)
	}
	l, err := profile.ToASCII(p)
	if err != nil {
		return "", fmt.Errorf("%q cannot be part of a host name: %w", p, err)
	}
	// The library passes over some mistakes (bytes that are not UTF-8) that it
	// finds in their ASCII form.
	if again, err := profile.ToASCII(l); err != nil || again != l {
		return "", fmt.Errorf("%q cannot be part of a host name", p)
	}
	if l = strings.ToLower(l); !isLabel(l) {
		return "", fmt.Errorf("%q cannot be part of a host name", p)
	}
	return l, nil
}

// checkName refuses names whose labels are valid but that are invalid as a whole.
func checkName(s string, labels []string) error {
	last := labels[len(labels)-1]
	switch n := len(strings.Join(labels, ".")); {
	case last == "*" && slices.ContainsFunc(labels, func(l string) bool { return l[0] != '*' }):
		return fmt.Errorf("%q ends in a wildcard, which would match names that anybody can register", s)
	case len(labels) == 1 && isKeyword(last):
		return fmt.Errorf("%q is a keyword of the rules, not a host", s) // before a colon
	case n > maxName:
		return fmt.Errorf("the host name has %d bytes, more than %d", n, maxName)
	case isNumber(last):
		return fmt.Errorf("%q is neither an address nor a name", s)
	}
	return nil
}

// isNumber reports whether a label at the end would make some programs read the
// whole as an IPv4 address, as inet_aton(3) reads 127.1 and 0x7f.0x1.
func isNumber(l string) bool {
	if hex, ok := strings.CutPrefix(l, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(l, "0123456789") == ""
}

func isLabel(l string) bool {
	if l == "" || len(l) > maxLabel || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	for _, c := range []byte(l) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// CleanName returns a host name in the form that Flow has. ok is false if s is not one.
func CleanName(s string) (name string, ok bool) {
	labels, err := parseName(s, false)
	return strings.Join(labels, "."), err == nil
}

func (r *Rule) setPorts(s string) error {
	switch {
	case s == "" && r.host && r.Action == Allow:
		return errors.New("services of the host are allowed one port at a time: write host:PORT")
	case s == "" && r.atHost:
		return fmt.Errorf("services of the host are allowed one port at a time: write host:%s:PORT", r.bareTarget())
	case s == "" && r.Action == Deny:
		if r.proto == TCP {
			r.proto = "" // everything
		}
		r.ports = []PortRange{allPorts}
		return nil
	case s == "" && r.proto == UDP:
		return errors.New("a UDP rule needs a port: write udp:HOST:PORT")
	case s == "":
		r.ports = defaultPorts
		return nil
	case s == "*":
		r.ports = []PortRange{allPorts}
		return nil
	}
	for part := range strings.SplitSeq(s, ",") {
		p, err := parsePorts(part)
		if err != nil {
			return err
		}
		r.ports = append(r.ports, p)
	}
	r.ports = tidyPorts(r.ports)
	return nil
}

// countPorts returns how many ports a tidy list has.
func countPorts(list []PortRange) (n int) {
	for _, p := range list {
		n += int(p.Last) - int(p.First) + 1
	}
	return n
}

// tidyPorts sorts ports and joins ranges that overlap or touch; the default set keeps
// its own order.
func tidyPorts(list []PortRange) []PortRange {
	slices.SortFunc(list, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	out := list[:1]
	for _, p := range list[1:] {
		last := &out[len(out)-1]
		if int(p.First) > int(last.Last)+1 {
			out = append(out, p)
			continue
		}
		last.Last = max(last.Last, p.Last)
	}
	if slices.Equal(out, []PortRange{{80, 80}, {443, 443}}) {
		return defaultPorts
	}
	return out
}

func parsePorts(s string) (PortRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	a, err := parsePort(first)
	if err != nil || !isRange {
		return PortRange{a, a}, err
	}
	z, err := parsePort(last)
	if err != nil {
		return PortRange{}, err
	}
	if z < a {
		return PortRange{}, fmt.Errorf("the port range %s is empty: write the lower port first", s)
	}
	return PortRange{a, z}, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || s[0] == '+' {
		return 0, fmt.Errorf("%q is not a port: must be 1 to 65535", s)
	}
	return uint16(n), nil
}

// canonical returns the canonical form of the rule.
func (r *Rule) canonical() string {
	if r.request != nil {
		return r.requestText()
	}
	var b strings.Builder
	b.WriteString(r.keywords())
	if r.atHost {
		b.WriteString("host:")
	}
	list := portList(r.ports)
	if r.Action == Allow && list == "443,80" && !r.atHost || r.Action == Deny && r.proto == "" {
		list = ""
	}
	target := strings.Join(r.labels, ".")
	switch {
	case r.host:
		target = "host"
	case r.prefix.IsValid() && list != "":
		target = r.bareTarget()
	case r.prefix.IsSingleIP():
		target = r.prefix.Addr().String()
	case r.prefix.IsValid():
		target = r.prefix.String()
	}
	b.WriteString(target)
	if list != "" {
		b.WriteString(":" + list)
	}
	return b.String()
}

// bareTarget returns the addresses of a rule as they are written before ports.
func (r *Rule) bareTarget() string {
	target := r.prefix.String()
	if r.prefix.IsSingleIP() {
		target = r.prefix.Addr().String()
	}
	if r.prefix.Addr().Is6() {
		addr, bits, has := strings.Cut(target, "/")
		if target = "[" + addr + "]"; has {
			target += "/" + bits
		}
	}
	return target
}

// ParseFile reads a file of rules: one a line, "allow RULE" or "deny RULE"; # and
// what follows is a comment. All errors are returned, joined.
func ParseFile(file string, text []byte) ([]Rule, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, MaxFile)
	}
	var rules []Rule
	var errs []error
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		code, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "#")
		words := strings.Fields(code)
		if len(words) == 0 {
			continue
		}
		at := Source{file, n, strings.Index(code, words[0]) + 1}
		var action Action
		switch words[0] {
		case "allow":
			action = Allow
		case "deny":
		default:
			errs = append(errs, &SyntaxError{at, words[0], "a line must begin with allow or deny"})
			continue
		}
		if len(words) != 2 && (len(words) != 3 || !isRequestRule(words[2])) {
			errs = append(errs, &SyntaxError{at, strings.TrimSpace(code), "a line must have exactly one rule"})
			continue
		}
		behind := at.Column - 1 + len(words[0])
		at.Column = behind + strings.Index(code[behind:], words[1]) + 1
		r, err := parseRule(action, strings.Join(words[1:], " "), at)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		rules = append(rules, r...)
	}
	return rules, errors.Join(errs...)
}

// ParseFlow reads what `bawn policy check` is given: [udp:]HOST[:PORT], with the
// port 443 where there is none. A URL is for ParseRequest.
func ParseFlow(text string) (Flow, error) {
	if isGitRule(text) {
		return Flow{}, fmt.Errorf("%q is a rule, not a target: write 'POST https://HOST/OWNER/REPO/git-receive-pack'", text)
	}
	if isRequestRule(text) {
		return Flow{}, fmt.Errorf("%q: the target of a connection is HOST[:PORT], not a URL", text)
	}
	for _, word := range []string{"raw:", "ech:", "private:", "preset:"} {
		if _, ok := cutWord(text, word); ok {
			return Flow{}, fmt.Errorf("%q is a rule, not a target: write HOST[:PORT] or udp:HOST:PORT", text)
		}
	}
	if strings.ContainsAny(text, "*/,") {
		return Flow{}, fmt.Errorf("%q matches several targets: write one host or address and one port, HOST[:PORT]", text)
	}
	rest, proto := text, TCP
	if s, ok := cutWord(text, "udp:"); ok {
		rest, proto = s, UDP
	}
	target, ports, err := splitPorts(rest)
	if err != nil {
		return Flow{}, fmt.Errorf("%q: %w", text, err)
	}
	f := Flow{Port: 443, Proto: proto}
	if ports != "" {
		if f.Port, err = parsePort(ports); err != nil {
			return Flow{}, fmt.Errorf("%q: %w", text, err)
		}
	}
	if isHost(target) || strings.EqualFold(strings.TrimSuffix(target, "."), HostName) {
		f.Host = true
		return f, nil
	}
	if a, err := netip.ParseAddr(target); err == nil {
		f.Addr = a.Unmap().WithZone("")
		return f, nil
	}
	labels, err := parseName(target, false)
	if err != nil {
		return Flow{}, fmt.Errorf("%q: %w", text, err)
	}
	if f.Name = strings.Join(labels, "."); isHost(f.Name) {
		f.Name, f.Host = "", true
	}
	return f, nil
}
