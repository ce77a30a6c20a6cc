package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Rules about requests: [METHOD,... ][private:]SCHEME://HOST[:PORT]PATH, and those about
// repositories of git (git.go).
//
// Theory of operation. A rule about requests stands among the rules about names. Set.Decide
// judges the connection: an allow rule about some requests lets it begin, and Decision.Requests
// says that each request on it has to be judged by Set.DecideRequest, and that nothing may pass
// that is no request. There, as everywhere, deny wins; an allow rule without a URL allows every
// request that none denies.

// request is the part of a rule that is about requests.
type request struct {
	scheme  string
	methods []string // in order; none: any
	path    []string // decoded segments; "*" and "**" as written
	git     *gitRule // of a rule about the repository at path; else nil
	// judged is that of a rule about requests that are judged by their bodies, too (codehost.go), and which
	// stand in it; else nil.
	judged *judgedRequests
}

// schemes are those of rules about requests, with their ports.
var schemes = map[string]uint16{"https": 443, "http": 80}

// defaultPort returns the port of a URL that names none.
func defaultPort(scheme string) uint16 {
	if scheme == sshScheme {
		return sshPort
	}
	return schemes[scheme]
}

// maxMethod bounds the name of a method, in bytes.
const maxMethod = 32

// isRequestRule reports whether a text is meant as a rule about requests.
func isRequestRule(text string) bool { return strings.Contains(text, "://") }

// cutMethods splits METHODS from the URL behind them.
func cutMethods(text string) (methods, url string) {
	if methods, url, ok := strings.Cut(strings.TrimSpace(text), " "); ok {
		return methods, strings.TrimLeft(url, " ")
	}
	return "", text
}

// setRequest reads a rule about requests into r.
func (r *Rule) setRequest(text string) error {
	methods, url := cutMethods(text)
	q := &request{}
	var err error
	if q.methods, err = parseMethods(methods); err != nil {
		return err
	}
	r.proto = TCP
	if rest, ok := cutWord(url, "private:"); ok && r.Action == Allow {
		r.private, url = true, rest
	}
	var authority, path string
	if q.scheme, authority, path, err = cutURL(url); err != nil {
		return err
	}
	if r.labels, r.ports, err = requestTarget(q.scheme, authority); err != nil {
		return err
	}
	if q.path, err = parsePattern(path); err != nil {
		return err
	}
	r.request = q
	return nil
}

// parseMethods reads a list of methods; none is every method.
func parseMethods(text string) (list []string, err error) {
	if text == "" {
		return nil, nil
	}
	for m := range strings.SplitSeq(text, ",") {
		if !isMethod(m) {
			return nil, fmt.Errorf("%q is not a method: write GET,HEAD https://HOST/PATH", m)
		}
		list = append(list, strings.ToUpper(m))
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

func isMethod(m string) bool {
	return m != "" && len(m) <= maxMethod && strings.Trim(strings.ToUpper(m), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// cutURL splits a URL. Only the schemes of requests, no user, query or fragment; the path is
// as it is written.
func cutURL(url string) (scheme, authority, path string, err error) {
	scheme, rest, _ := strings.Cut(url, "://")
	scheme = strings.ToLower(scheme)
	switch {
	case schemes[scheme] != 0:
	case scheme == "wss" || scheme == "ws":
		return "", "", "", fmt.Errorf("a WebSocket begins as an HTTP request: write %s://", strings.Replace(scheme, "ws", "http", 1))
	default:
		return "", "", "", fmt.Errorf("%q is not a scheme of a request rule: write [METHODS ][private:]https://HOST[:PORT]/PATH", scheme)
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		slash = len(rest)
	}
	authority, path = rest[:slash], rest[slash:]
	switch {
	case strings.Contains(authority, "@"):
		return "", "", "", errors.New("a rule has no user name")
	case authority == "":
		return "", "", "", errors.New("the URL names no host")
	case strings.ContainsAny(rest, "?#"):
		return "", "", "", errors.New("a rule is about the path, not about the query: leave out what follows it")
	}
	return scheme, authority, path, nil
}

// requestTarget reads HOST[:PORT] of a request rule.
func requestTarget(scheme, authority string) ([]string, []PortRange, error) {
	if strings.HasPrefix(authority, "[") {
		return nil, nil, errors.New("a request rule is about a name: a rule for an address is ADDRESS[:PORTS], about connections")
	}
	host, portText, hasPort := strings.Cut(authority, ":")
	port := defaultPort(scheme)
	if hasPort {
		var err error
		if port, err = parsePort(portText); err != nil {
			return nil, nil, err
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil, nil, errors.New("a request rule is about a name: a rule for an address is ADDRESS[:PORTS], about connections")
	}
	labels, err := parseName(host, true)
	if err != nil {
		return nil, nil, err
	}
	if len(labels) == 1 && isHost(labels[0]) {
		return nil, nil, errors.New("requests to services of the host are not inspected: write host:PORT")
	}
	return labels, []PortRange{{port, port}}, nil
}

// parsePattern reads the path of a rule.
func parsePattern(path string) ([]string, error) {
	if path == "" {
		return nil, errors.New("a request rule has a path: write /** for all of them, or only HOST for connections that are not inspected")
	}
	segments, err := parsePath(path)
	if err != nil {
		return nil, fmt.Errorf("%w: servers read such paths in different ways, and requests with them are refused", err)
	}
	for i, raw := range strings.Split(strings.Trim(path, "/"), "/") {
		if strings.Contains(raw, "*") && raw != "*" && raw != "**" {
			return nil, fmt.Errorf("%q: a wildcard must be a whole segment of the path (%%2A is the character)", raw)
		}
		if strings.Contains(strings.ToLower(raw), "%2a") && (segments[i] == "*" || segments[i] == "**") {
			return nil, fmt.Errorf("%q cannot be told from a wildcard", raw)
		}
	}
	return segments, nil
}

// requestText returns the canonical form of a rule about requests.
func (r *Rule) requestText() string {
	switch {
	case r.request.git != nil:
		return r.gitText()
	case r.request.judged != nil:
		return r.request.judged.text()
	}
	var b strings.Builder
	if len(r.request.methods) > 0 {
		b.WriteString(strings.Join(r.request.methods, ",") + " ")
	}
	b.WriteString(r.keywords() + r.requestURL())
	return b.String()
}

// requestURL returns the URL of a rule about requests.
func (r *Rule) requestURL() string {
	return urlOf(r.request.scheme, strings.Join(r.labels, "."), r.ports[0].First, escapePath(r.request.path))
}

// urlOf returns a URL, without the port that its scheme has anyway.
func urlOf(scheme, host string, port uint16, path string) string {
	if port != defaultPort(scheme) {
		host += ":" + strconv.Itoa(int(port))
	}
	return scheme + "://" + host + path
}

// Request is a request of HTTP, or of git over SSH (SSHRequest), as a rule sees it.
type Request struct {
	Method string
	Scheme string // https, http or ssh
	Name   string // of the host, as in Flow
	Port   uint16
	Path   string // percent-encoded as it is sent on, without the query
	Query  string // as it is sent on; only rules about repositories, and at APIs of code hosts, look at it
}

// Flow returns the connection that the request needs.
func (q Request) Flow() Flow { return Flow{Name: q.Name, Port: q.Port, Proto: TCP} }

func (q Request) String() string {
	return q.Method + " " + urlOf(q.Scheme, q.Name, q.Port, q.Path)
}

// ParseRequest reads what `bawn policy check` is given: [METHOD ]URL, with GET where there is
// no method, or [fetch |push ]ssh://[USER@]HOST[:PORT]/PATH of git over SSH. The fragment of the URL is
// left out. ok is false if the text is no URL.
func ParseRequest(text string) (q Request, ok bool, err error) {
	if !isRequestRule(text) {
		return q, false, nil
	}
	method, url := cutMethods(text)
	if _, ssh := cutWord(url, sshScheme+"://"); ssh {
		if q, err = parseSSHRequest(method, url); err != nil {
			err = fmt.Errorf("%q: %w", text, err)
		}
		return q, true, err
	}
	url, _, _ = strings.Cut(url, "#")
	url, q.Query, _ = strings.Cut(url, "?")
	q.Method = cmp.Or(method, "GET")
	if !isMethod(q.Method) {
		return q, true, fmt.Errorf("%q is not a method", q.Method)
	}
	var authority string
	if q.Scheme, authority, q.Path, err = cutURL(url); err != nil {
		return q, true, fmt.Errorf("%q: %w", text, err)
	}
	labels, ports, err := requestTarget(q.Scheme, authority)
	if err != nil {
		return q, true, fmt.Errorf("%q: %w", text, err)
	}
	if q.Name, q.Port, q.Path = strings.Join(labels, "."), ports[0].First, cmp.Or(q.Path, "/"); strings.Contains(q.Name, "*") {
		return q, true, fmt.Errorf("%q matches several hosts: write one", text)
	}
	return q, true, nil
}

// DecideRequest returns whether a request may pass, and why. It decides about its connection as
// well. A path that servers may read in different ways is refused on a connection whose requests
// are judged: Malformed is set then.
func (s *Set) DecideRequest(q Request) Decision {
	d := s.Decide(q.Flow())
	if !d.Allow || !d.Requests {
		return d
	}
	path, err := parsePath(q.Path)
	if err != nil {
		return Decision{Requests: true, Malformed: true, Reason: err.Error() + ", which servers read in different ways: it is refused where rules are about requests"}
	}
	allow, deny, push, body := s.rulesAbout(q, path)
	d.Rule, d.Allow = cmp.Or(deny, allow), deny == nil && allow != nil
	if d.Rule == nil && body.rule != nil {
		d.Rule, d.Allow, d.Body = body.rule, true, body
		d.Reason = fmt.Sprintf("the rule %q allows it if its body is %s", body.rule, body.Condition())
		return d
	}
	if d.Allow && !push.empty() && (push.any == nil || len(push.deny) > 0) {
		d.Push = push
	}
	switch {
	case deny != nil:
		d.Reason = fmt.Sprintf("the rule %q denies it", deny)
	case allow != nil:
		d.Reason = fmt.Sprintf("the rule %q allows it", allow)
	default:
		d.Reason = cmp.Or(s.whyNotCodeHost(q, path), q.whyNotGit())
	}
	return d
}

// rulesAbout returns the first rule that allows a request and the first that denies it, nil if there
// is none, the rules about the refs of a push, and those about its body.
func (s *Set) rulesAbout(q Request, path []string) (allow, deny *Rule, push *PushRules, body *BodyRules) {
	push, body = &PushRules{}, &BodyRules{}
	s.about(q.Flow(), func(r *Rule) {
		switch {
		case !r.covers(TCP, q.Port):
		case r.request.judgesPush(r.Action, q, path):
			push.add(r)
		case r.request.judgesBody(q, path):
			body.add(r)
		case r.Action == Deny && deny == nil && r.request.matches(r.Action, q, path):
			deny = r
		case r.Action == Allow && allow == nil && r.lets(q, path):
			allow = r
		}
	})
	if push.any = allow; allow == nil && len(push.allow) > 0 {
		allow = push.allow[0]
	}
	return allow, deny, push, body
}

// lets reports whether an allow rule lets a request pass. A rule about connections opens no repository over SSH
// (git.go).
func (r *Rule) lets(q Request, path []string) bool {
	if r.request == nil {
		return q.Scheme != sshScheme
	}
	return r.request.matches(Allow, q, path)
}

// matches reports whether a rule is about a request. An allow rule compares exactly; a deny
// rule in any case, and with each way in which a server may read the path.
func (m *request) matches(a Action, q Request, path []string) bool {
	switch {
	case m.judged != nil:
		return false // judgesBody
	case m.git != nil && a == Deny:
		return m.deniesGit(q, path)
	case m.git != nil:
		return m.allowsGit(q)
	case m.scheme != q.Scheme:
		return false
	}
	if a == Allow {
		return (len(m.methods) == 0 || slices.Contains(m.methods, q.Method)) &&
			matchPath(m.path, path, func(a, b string) bool { return a == b })
	}
	if len(m.methods) > 0 && !slices.Contains(m.methods, strings.ToUpper(q.Method)) {
		return false
	}
	return slices.ContainsFunc(readings(path), func(read []string) bool { return matchPath(m.path, read, strings.EqualFold) })
}

// AboutRequests reports whether a rule of the set is about requests over TLS, for which guests
// have to trust bawn's certificate.
func (s *Set) AboutRequests() bool {
	return slices.ContainsFunc(s.rules, func(r Rule) bool { return r.request != nil && r.request.scheme == "https" })
}

// maxSuggested bounds a rule that is suggested for a request, in bytes.
const maxSuggested = 256

// SuggestRequest returns the narrowest rule that allows a request; empty if none can, if a rule
// denies it, or if the rule would be longer than a person reads.
func (s *Set) SuggestRequest(q Request) string {
	path, err := parsePath(q.Path)
	if err != nil {
		return ""
	}
	_, graphQL := s.service(q, path)
	if d := s.DecideRequest(q); d.Allow || d.Rule != nil || d.Malformed || graphQL || Suggest(q.Flow()) == "" {
		return ""
	}
	if rule, ok := s.suggestGit(q); ok {
		return rule
	}
	rules, err := ParseRule(Allow, q.String())
	if err != nil || len(rules) != 1 || len(rules[0].Text) > maxSuggested || slices.ContainsFunc(rules[0].request.path, func(seg string) bool { return seg[0] == '*' }) {
		return ""
	}
	// A rule's methods are in upper case: none allows a method that is not. And one about a request that
	// another rule judges would have it pass unjudged.
	if !rules[0].request.matches(Allow, q, path) || s.judgedBare(q, path) != nil {
		return ""
	}
	return rules[0].Text
}

// ProposeRequests returns a small list of allow rules for requests that the set does not allow:
// the methods of a path together, and three or more segments in one place as *.
func (s *Set) ProposeRequests(list []Request) []string {
	type place struct{ methods, parent string }
	methods := map[string][]string{} // by URL
	var out []string
	for _, q := range list {
		rule := s.SuggestRequest(q)
		if isGitRule(rule) {
			out = append(out, rule)
			continue
		}
		method, url := cutMethods(rule)
		if url != "" && !slices.Contains(methods[url], method) {
			methods[url] = append(methods[url], method)
		}
	}
	beside := map[place][]string{}
	for url, m := range methods {
		slices.Sort(m)
		p := place{strings.Join(m, ","), url[:strings.LastIndexByte(url, '/')+1]}
		beside[p] = append(beside[p], url)
	}
	for p, urls := range beside {
		if len(urls) >= siblings && !s.judgesBeside(p.parent) {
			urls = []string{p.parent + "*"}
		}
		for _, url := range urls {
			out = append(out, p.methods+" "+url)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// judgesBeside reports whether what a request does is judged by its body at some path of a URL's host, so that
// a rule with * for a segment could have it pass unjudged.
func (s *Set) judgesBeside(url string) bool {
	q, _, err := ParseRequest(url)
	if err != nil {
		return true
	}
	service, _ := s.service(q, nil)
	judges := service != nil
	s.about(q.Flow(), func(r *Rule) {
		judges = judges || r.request != nil && (r.request.judged != nil || r.request.git != nil)
	})
	return judges
}
