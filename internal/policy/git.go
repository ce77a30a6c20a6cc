package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rules about repositories of git: [private:]git:HOST[:PORT]/PATH[:read|:push=REFS[:delete]].
//
// Theory of operation. Such a rule is about requests over TLS, those of git's smart HTTP
// (gitprotocol-http(5)) for one repository, whose URL may end in .git or not:
//
//	GET  PATH/info/refs?service=git-upload-pack    POST PATH/git-upload-pack    fetch
//	GET  PATH/info/refs?service=git-receive-pack   POST PATH/git-receive-pack   push
//
// An allow rule compares method, path and query byte by byte with what git sends, so another
// spelling is refused. A deny rule sees every reading of the path (path.go), also of requests in the
// clear, to port 80 too unless it names a port other than 443: a rule that allows the host opens that.
//
// It is also about git over SSH: a connection to one of the rule's ports that begins as one of SSH is
// ended by the gateway (Decision.SSH), and what each of its sessions asks is a Request of the scheme
// ssh (SSHRequest), whose method is fetch or push. There, a rule that opens the host's port opens no
// repository: it was written for bytes that nobody looks into, and the gateway logs in as the person. So a
// deny rule never lends that login.
//
// Which refs a push changes is in the body of its request, so it is decided in two steps:
// DecideRequest returns PushRules, and the caller passes the body on only after
// PushRules.Judge has allowed each change in it.

// gitRule is the part of a rule that is about a repository. Its path is that of the request.
type gitRule struct {
	push   [][]string // patterns of full names of refs, by segment; nil: fetch only
	delete bool       // the refs may be deleted
}

// The methods of requests over SSH, and their scheme.
const (
	gitFetch  = "fetch"
	gitPush   = "push"
	sshScheme = "ssh"
	sshPort   = 22
)

const (
	gitSuffix   = ".git"
	infoRefs    = "/info/refs"
	uploadPack  = "git-upload-pack"  // fetch
	receivePack = "git-receive-pack" // push
	service     = "service="
	heads       = "refs/heads/"
)

// isGitRule reports whether a text is meant as a rule about a repository. git:443 is a rule about
// ports of a host of that name.
func isGitRule(text string) bool {
	text, _ = cutWord(text, "private:")
	rest, ok := cutWord(text, "git:")
	return ok && strings.Trim(rest, "0123456789,-*") != ""
}

// GitRemote takes apart a rule that names a remote of the project's repository instead of its URL:
// git:NAME[:read|:push=REFS[:delete]]. ParseRule does not take such a rule.
func GitRemote(text string) (name string, ok bool) {
	if !isGitRule(text) {
		return "", false
	}
	_, rest := cutGit(text)
	i := strings.IndexAny(rest, "/:")
	switch {
	case i < 0:
		return rest, true
	case rest[i] == '/':
		return "", false
	}
	_, read := cutWord(rest[i+1:], "read")
	_, push := cutWord(rest[i+1:], "push=")
	return rest[:i], i > 0 && (read || push)
}

// WithRepository returns a rule of GitRemote's form with HOST[:PORT]/PATH in place of the remote.
func WithRepository(text, repository string) string {
	private, rest := cutGit(text)
	_, mode, has := strings.Cut(rest, ":")
	if has {
		repository += ":" + mode
	}
	return private + "git:" + repository
}

// cutGit removes the keywords before a repository.
func cutGit(text string) (private, rest string) {
	if after, ok := cutWord(text, "private:"); ok {
		private, text = "private:", after
	}
	rest, _ = cutWord(text, "git:")
	return private, rest
}

var errRepository = errors.New("a rule about a repository is git:HOST/OWNER/REPO[:read|:push=REFS[:delete]]")

// setGit reads a rule about a repository into r.
func (r *Rule) setGit(text string) error {
	if name, ok := GitRemote(text); ok {
		return fmt.Errorf("%q is a remote of the project's repository, which is not known here: write git:HOST/OWNER/REPO", name)
	}
	private, rest := cutGit(text)
	if r.private = private != ""; r.private && r.Action == Deny {
		return errors.New("private: has no meaning in a deny rule; leave it out")
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return errRepository
	}
	authority, path := rest[:slash], rest[slash:]
	path, mode, hasMode := strings.Cut(path, ":")
	q := &request{scheme: "https", git: &gitRule{}}
	r.proto = TCP
	var err error
	if r.labels, r.ports, err = requestTarget(q.scheme, authority); err != nil {
		return err
	}
	if r.ports[0].First == schemes["https"] { // the canonical form leaves :443 out
		r.ports = append(r.ports, PortRange{sshPort, sshPort})
		if r.Action == Deny {
			r.ports = append(r.ports, PortRange{schemes["http"], schemes["http"]})
		}
	}
	if strings.Contains(authority, "*") || strings.Contains(path, "*") {
		return errors.New("a rule about a repository names one: wildcards are for its refs (push=feature/*)")
	}
	if q.path, err = parseRepository(path); err != nil {
		return err
	}
	if hasMode {
		if err := q.git.setMode(r.Action, mode); err != nil {
			return err
		}
	}
	r.request = q
	return nil
}

// parseRepository returns the segments of a repository's path, without .git at its end.
func parseRepository(path string) ([]string, error) {
	segments, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	if len(segments) == 0 {
		return nil, errRepository
	}
	last := &segments[len(segments)-1]
	*last = strings.TrimSuffix(*last, gitSuffix)
	if *last == "" || trimGit(*last) != *last {
		return nil, fmt.Errorf("%q cannot be told from the name of another repository", path)
	}
	if slices.ContainsFunc(segments, func(s string) bool { return strings.ContainsAny(s, "/:") }) {
		return nil, errors.New("the path of a repository has no encoded slash and no colon")
	}
	return segments, nil
}

// trimGit takes off .git in any case.
func trimGit(name string) string {
	if n := len(name) - len(gitSuffix); n >= 0 && strings.EqualFold(name[n:], gitSuffix) {
		return name[:n]
	}
	return name
}

// setMode reads what follows the repository.
func (g *gitRule) setMode(a Action, mode string) error {
	if strings.EqualFold(mode, "read") {
		if a == Deny {
			return errors.New("a deny rule is about all of a repository, or about pushes (push=REFS): whoever may not read may not push either")
		}
		return nil
	}
	refs, ok := cutWord(mode, "push=")
	if !ok {
		return errRepository
	}
	refs, end, has := strings.Cut(refs, ":")
	switch {
	case has && !strings.EqualFold(end, "delete"):
		return errRepository
	case has && a == Deny:
		return errors.New("a deny rule about pushes is about deletion, too: leave out :delete")
	}
	g.delete = has
	for ref := range strings.SplitSeq(refs, ",") {
		p, err := parseRefs(ref)
		if err != nil {
			return err
		}
		g.push = append(g.push, p)
	}
	slices.SortFunc(g.push, slices.Compare[[]string])
	g.push = slices.CompactFunc(g.push, slices.Equal[[]string])
	return nil
}

// parseRefs reads a pattern of refs: a branch, or a full name (refs/...).
func parseRefs(text string) ([]string, error) {
	switch {
	case text == "":
		return nil, errors.New("push= names the refs: push=main,feature/*")
	case text[0] == '+':
		return nil, fmt.Errorf("%q is a refspec: a rule names the refs on the server only", text)
	}
	full := text
	if !strings.HasPrefix(text, "refs/") {
		full = heads + text
	}
	if err := checkRef(strings.ReplaceAll(full, "*", "x")); err != nil {
		return nil, err
	}
	if !isWritable(full) {
		return nil, fmt.Errorf("%.100q cannot be written in a rule (a comma ends a ref, # begins a comment, and not all characters can be shown): use a wildcard, such as feature/*", text)
	}
	segments := strings.Split(full, "/")
	for _, s := range segments[1:] {
		if strings.Contains(s, "*") && s != "*" && s != "**" {
			return nil, fmt.Errorf("%q: a wildcard must be a whole segment of the ref", text)
		}
	}
	return segments, nil
}

// isWritable reports whether a rule can name a ref. In a file of rules the text behind # is lost, and
// a rule for main#1 would be one for main. The guest chooses names that a person is asked about, so
// these have no character that a terminal obeys or does not show.
func isWritable(ref string) bool {
	return utf8.ValidString(ref) && !strings.ContainsFunc(ref, func(c rune) bool {
		return c == '#' || c == ',' || !unicode.IsPrint(c) || unicode.In(c, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
	})
}

// maxRef bounds the name of a ref, in bytes.
const maxRef = 1024

// checkRef returns why a text is not the full name of a ref (git-check-ref-format(1)).
func checkRef(ref string) error {
	bad := len(ref) > maxRef || !strings.HasPrefix(ref, "refs/") || strings.ContainsAny(ref, " ~^:?*[\\\x7f") ||
		strings.Contains(ref, "..") || strings.Contains(ref, "@{") || strings.HasSuffix(ref, ".") ||
		strings.ContainsFunc(ref, func(c rune) bool { return c < ' ' })
	for part := range strings.SplitSeq(ref, "/") {
		bad = bad || part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock")
	}
	if bad {
		return fmt.Errorf("%.100q is not the name of a ref", ref)
	}
	return nil
}

// shortRef returns a ref as it is written in a rule.
func shortRef(ref string) string {
	if short, ok := strings.CutPrefix(ref, heads); ok && !strings.HasPrefix(short, "refs/") {
		return short
	}
	return ref
}

// gitText returns the canonical form of a rule about a repository.
func (r *Rule) gitText() string {
	text := r.keywords() + "git:" + r.repository()
	g := r.request.git
	if g.push == nil {
		return text
	}
	text += ":push=" + strings.Join(g.refs(), ",")
	if g.delete {
		text += ":delete"
	}
	return text
}

// refs returns the patterns as they are written in a rule.
func (g *gitRule) refs() (list []string) {
	for _, p := range g.push {
		list = append(list, shortRef(strings.Join(p, "/")))
	}
	return list
}

// repository returns that of a rule: HOST[:PORT]/PATH.
func (r *Rule) repository() string { return strings.TrimPrefix(r.requestURL(), "https://") }

// gitWords returns a rule about a repository in words.
func (r *Rule) gitWords() string {
	g := r.request.git
	text := "the git repository " + r.repository() + ", to fetch from it"
	if g.push != nil {
		text += " and push to " + strings.Join(g.refs(), ", ")
	}
	if g.delete {
		text += ", which may be deleted"
	}
	if r.Action == Allow {
		text += ", over SSH with your keys"
	}
	return text + " (inspected on the host)"
}

// gitPart returns what a request asks of the repository at a path, without the path; ok is false
// if it is not about that repository as git writes it.
func (m *request) gitPart(q Request) (part string, ok bool) {
	rest, ok := strings.CutPrefix(q.Path, escapePath(m.path))
	rest = strings.TrimPrefix(rest, gitSuffix)
	return rest, ok && m.scheme == q.Scheme && strings.HasPrefix(rest, "/")
}

// isAbout reports whether a request over SSH is about the repository of an allow rule.
func (m *request) isAbout(q Request) bool {
	rest, ok := strings.CutPrefix(q.Path, escapePath(m.path))
	return ok && (rest == "" || rest == gitSuffix)
}

// allowsGit reports whether an allow rule about a repository allows a request. A push, whose body
// has to be judged, is for judgesPush.
func (m *request) allowsGit(q Request) bool {
	if q.Scheme == sshScheme {
		return q.Method == gitFetch && m.isAbout(q)
	}
	part, ok := m.gitPart(q)
	switch {
	case !ok:
		return false
	case part == infoRefs && q.Method == "GET" && q.Query == service+receivePack:
		return m.git.push != nil
	case part == infoRefs:
		return q.Method == "GET" && q.Query == service+uploadPack
	}
	return part == "/"+uploadPack && q.Method == "POST" && q.Query == ""
}

// judgesPush reports whether a rule is about the refs that a request would change.
func (m *request) judgesPush(a Action, q Request, path []string) bool {
	switch {
	case m == nil || m.git == nil || m.git.push == nil:
		return false
	case q.Scheme == sshScheme:
		return q.Method == gitPush && (a == Allow && m.isAbout(q) || a == Deny && slices.ContainsFunc(readings(path), m.hasBelow))
	case m.scheme != q.Scheme:
		return false
	case a == Allow:
		part, ok := m.gitPart(q)
		return ok && part == "/"+receivePack && q.Method == "POST" && q.Query == ""
	}
	return m.isPush(path)
}

// isPush reports whether a path could be that of a push to the repository of a deny rule, or below it: a
// server may have the repository at PATH/.git.
func (m *request) isPush(path []string) bool {
	return slices.ContainsFunc(readings(path), func(read []string) bool {
		n := len(read) - 1
		return n > 0 && strings.EqualFold(read[n], receivePack) && m.hasBelow(read[:n])
	})
}

// deniesGit reports whether a deny rule is about a request, whatever its refs: one about all of a
// repository is about all that is below it, and one about pushes is about those in the clear, whose
// bodies nobody judges.
func (m *request) deniesGit(q Request, path []string) bool {
	if m.git.push != nil {
		return q.Scheme == "http" && m.isPush(path)
	}
	return slices.ContainsFunc(readings(path), m.hasBelow)
}

// hasBelow reports whether a path leads to the repository of a deny rule, or below it.
func (m *request) hasBelow(path []string) bool {
	last := len(m.path) - 1
	if len(path) <= last || !strings.EqualFold(trimGit(path[last]), m.path[last]) {
		return false
	}
	return slices.EqualFunc(path[:last], m.path[:last], strings.EqualFold)
}

// SSHRequest returns what a session of git over SSH asks of a repository: to fetch, or to push.
func SSHRequest(name string, port uint16, path []string, push bool) Request {
	q := Request{Method: gitFetch, Scheme: sshScheme, Name: name, Port: port, Path: escapePath(path)}
	if push {
		q.Method = gitPush
	}
	return q
}

// parseSSHRequest reads [fetch |push ]ssh://[USER@]HOST[:PORT]/PATH.
func parseSSHRequest(method, url string) (q Request, err error) {
	method = cmp.Or(strings.ToLower(method), gitFetch)
	if method != gitFetch && method != gitPush {
		return q, errors.New("git over SSH fetches or pushes: write 'push ssh://HOST/OWNER/REPO'")
	}
	_, rest, _ := strings.Cut(url, "://")
	authority, path, _ := strings.Cut(rest, "/")
	labels, ports, err := requestTarget(sshScheme, authority[strings.LastIndexByte(authority, '@')+1:])
	if err == nil && strings.Contains(authority, "*") {
		err = errors.New("it matches several hosts: write one")
	}
	if err != nil {
		return q, err
	}
	return Request{Method: method, Scheme: sshScheme, Name: strings.Join(labels, "."), Port: ports[0].First, Path: "/" + strings.TrimRight(path, "/")}, nil
}

// RefChange is what a push does to a ref.
type RefChange struct {
	Ref    string // its full name
	Delete bool   // else it is created or set to another commit
}

// PushRules are the rules about the changes that one push makes.
type PushRules struct {
	repository  string // as in a rule
	allow, deny []*Rule
	any         *Rule // a rule allows every request; only deny counts
}

// add takes a rule about the push into account.
func (p *PushRules) add(r *Rule) {
	if p.repository == "" {
		p.repository = r.repository()
	}
	if r.Action == Deny {
		p.deny = append(p.deny, r)
	} else {
		p.allow = append(p.allow, r)
	}
}

// empty reports whether no rule is about the push.
func (p *PushRules) empty() bool { return len(p.allow)+len(p.deny) == 0 }

// Judge decides about one change. The push may pass if each of its changes is allowed.
func (p *PushRules) Judge(c RefChange) Decision {
	d := Decision{Requests: true}
	if err := checkRef(c.Ref); err != nil {
		d.Reason = err.Error()
		return d
	}
	segments := strings.Split(c.Ref, "/")
	matches := func(same func(a, b string) bool) func(*Rule) bool {
		return func(r *Rule) bool {
			return slices.ContainsFunc(r.request.git.push, func(p []string) bool { return matchPath(p, segments, same) })
		}
	}
	if i := slices.IndexFunc(p.deny, matches(strings.EqualFold)); i >= 0 {
		d.Rule, d.Reason = p.deny[i], fmt.Sprintf("the rule %q denies it", p.deny[i])
		return d
	}
	d.Rule = p.any
	keeps := false // a rule is about the ref, and does not allow to delete it
	for _, r := range p.allow {
		if d.Rule == nil && matches(func(a, b string) bool { return a == b })(r) {
			keeps = true
			if !c.Delete || r.request.git.delete {
				d.Rule = r
			}
		}
	}
	switch {
	case d.Rule != nil:
		d.Allow, d.Reason = true, fmt.Sprintf("the rule %q allows it", d.Rule)
	case keeps:
		d.Reason = "no rule allows to delete it"
	default:
		d.Reason = "no rule allows it"
	}
	return d
}

// Suggest returns the narrowest rule that allows changes that no rule is about; empty if there is
// none, or if it would be longer than a person reads.
func (p *PushRules) Suggest(changes []RefChange) string {
	var refs []string
	end := ""
	for _, c := range changes {
		if d := p.Judge(c); d.Rule != nil || checkRef(c.Ref) != nil || !isWritable(c.Ref) {
			return ""
		}
		if refs = append(refs, shortRef(c.Ref)); c.Delete {
			end = ":delete"
		}
	}
	rules, err := ParseRule(Allow, "git:"+p.repository+":push="+strings.Join(refs, ",")+end)
	if err != nil || len(rules[0].Text) > maxSuggested {
		return ""
	}
	return rules[0].Text
}

// gitURL returns the repository of a request of git, as in a rule, and whether the request
// is about a push. It is for what people are told: no decision depends on it.
func (q Request) gitURL() (repository string, push, ok bool) {
	if q.Scheme == sshScheme {
		repository, ok = gitRepository(q)
		return repository, q.Method == gitPush, ok
	}
	path, found := "", false
	for _, end := range []string{infoRefs, "/" + uploadPack, "/" + receivePack} {
		if path, found = strings.CutSuffix(q.Path, end); found {
			push = q.Query == service+receivePack || end == "/"+receivePack
			break
		}
	}
	if !found || q.Scheme != "https" {
		return "", false, false
	}
	q.Path = path
	repository, ok = gitRepository(q)
	return repository, push, ok
}

// gitRepository returns the repository at the path of a request, as in a rule.
func gitRepository(q Request) (repository string, ok bool) {
	_, rest, _ := strings.Cut(urlOf(q.Scheme, q.Name, q.Port, q.Path), "://")
	rules, err := ParseRule(Allow, "git:"+rest)
	if err != nil || rules[0].request == nil || rules[0].request.git == nil {
		return "", false
	}
	return rules[0].repository(), true
}

// whyNotGit says why no rule allows a request; of git in git's terms.
func (q Request) whyNotGit() string {
	repository, push, ok := q.gitURL()
	switch {
	case !ok:
		return "no rule allows this request"
	case push:
		return fmt.Sprintf("no rule allows pushes to %s: a rule git:%s:push=BRANCH names the branches", repository, repository)
	}
	return "no rule allows to fetch from " + repository
}

// suggestGit returns the rule that lets a request of git's pass, if it fetches. What a push needs
// is known only when its body is judged.
func (s *Set) suggestGit(q Request) (rule string, ok bool) {
	repository, push, ok := q.gitURL()
	if !ok || push {
		return "", ok
	}
	rules, err := ParseRule(Allow, "git:"+repository)
	if err != nil {
		return "", true
	}
	return rules[0].Text, true
}

// Pushes returns an allow rule about a repository by which a push can pass, and which no deny rule keeps from
// taking effect; nil if there is none. A rule that opens a whole host names no repository.
func (s *Set) Pushes() *Rule {
	for i := range s.rules {
		r := &s.rules[i]
		if r.Action != Allow || r.request == nil || r.request.git == nil || r.request.git.push == nil {
			continue
		}
		d := s.DecideRequest(Request{
			Method: "POST", Scheme: r.request.scheme, Name: strings.Join(r.labels, "."), Port: r.ports[0].First,
			Path: escapePath(r.request.path) + "/" + receivePack,
		})
		if !d.Allow || d.Push == nil {
			continue
		}
		for _, p := range r.request.git.push {
			if d.Push.Judge(RefChange{Ref: strings.NewReplacer("**", "any", "*", "any").Replace(strings.Join(p, "/"))}).Allow {
				return r
			}
		}
	}
	return nil
}

// LacksGit reports whether a rule about a repository, as a denial suggests it, would still allow more
// than the set does, and no deny rule keeps that out. ok is false if the text is no such rule.
func (s *Set) LacksGit(text string) (lacks, ok bool) {
	rules, err := ParseRule(Allow, text)
	if err != nil || len(rules) != 1 || rules[0].request == nil || rules[0].request.git == nil {
		return false, false
	}
	r := &rules[0]
	path := escapePath(r.request.path)
	q := Request{Method: "GET", Scheme: r.request.scheme, Name: strings.Join(r.labels, "."), Port: r.ports[0].First, Path: path + infoRefs, Query: service + uploadPack}
	g := r.request.git
	if g.push == nil {
		d := s.DecideRequest(q)
		return !d.Allow && d.Rule == nil, true
	}
	q.Method, q.Path, q.Query = "POST", path+"/"+receivePack, ""
	d := s.DecideRequest(q)
	if d.Push == nil {
		return !d.Allow && d.Rule == nil, true
	}
	for _, p := range g.push {
		one := d.Push.Judge(RefChange{Ref: strings.Join(p, "/"), Delete: g.delete})
		if one.Rule != nil && !one.Allow {
			return false, true
		}
		lacks = lacks || !one.Allow
	}
	return lacks, true
}
