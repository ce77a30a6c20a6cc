package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// codeHostText is a rule about a repository at the API of a service, as it is written.
type codeHostText struct {
	*codeHost
	private bool
	rest    string // behind NAME:
}

// cutCodeHost splits [private:]NAME:[HOST[:PORT]/]OWNER/REPO[:read|:MODE]. github:443 is a rule about a port of a host of
// that name.
func cutCodeHost(text string) (t codeHostText, ok bool) {
	text, t.private = cutWord(text, "private:")
	for i := range codeHosts {
		t.codeHost = &codeHosts[i]
		if t.rest, ok = cutWord(text, t.name+":"); ok && strings.Contains(t.rest, "/") {
			return t, true
		}
	}
	return t, false
}

// modeRead is the mode of a rule that only reads.
const modeRead = "read"

// repository is what a rule about a code host names.
type repository struct {
	of      *codeHost
	private bool
	server  string // HOST, or HOST:PORT if that is not 443
	named   bool   // the canonical form has it
	path    string // OWNER/REPO
	inURL   string
	mode    string // modeRead, that of a judgedMode, or empty
}

// repository reads a rule.
func (t codeHostText) repository() (r repository, err error) {
	r = repository{of: t.codeHost, private: t.private, server: t.host}
	rest := t.rest
	if authority, after, ok := cutServer(rest); ok {
		rest = after
		if r.server, err = serverOf(authority); err != nil {
			return r, err
		}
		if api, _ := t.at(t.host); r.server != t.host && api == "https://"+r.server {
			return r, fmt.Errorf("write %s:%s: the name of its API is known", t.name, after)
		}
	}
	if r.private && r.server == t.host {
		return r, fmt.Errorf("private: is for a server of your own: [private:]%s:HOST/%s", t.name, t.form)
	}
	path, mode, hasMode := strings.Cut(rest, ":")
	r.path, r.mode = strings.TrimSuffix(path, gitSuffix), strings.ToLower(mode)
	if hasMode && !slices.Contains(t.modes(), r.mode) {
		return r, fmt.Errorf("a rule about a repository at the API is [private:]%s:[HOST/]%s[:%s]", t.name, t.form, strings.Join(t.modes(), "|:"))
	}
	if trimGit(r.path) != r.path {
		return r, fmt.Errorf("%q is no %s", path, t.form)
	}
	_, _, looks := cutServer(r.path)
	r.named = r.server != t.host || looks
	r.inURL, err = t.repo(r.path)
	return r, err
}

// cutServer splits HOST[:PORT] from the path behind it. A name without a dot and a port is an owner's, and so is one before a single
// name: groups of GitLab may have dots.
func cutServer(text string) (authority, path string, ok bool) {
	first, path, _ := strings.Cut(text, "/")
	if strings.Contains(first, ":") || strings.Contains(first, ".") && strings.Contains(path, "/") {
		return first, path, true
	}
	return "", text, false
}

// serverOf returns the canonical form of HOST[:PORT].
func serverOf(authority string) (string, error) {
	labels, ports, err := requestTarget("https", authority)
	switch {
	case err != nil:
		return "", err
	case strings.Contains(authority, "*"):
		return "", errors.New("a rule about a repository names one server: wildcards have no meaning there")
	}
	server := strings.Join(labels, ".")
	if p := ports[0].First; p != defaultPort("https") {
		server += ":" + strconv.Itoa(int(p))
	}
	return server, nil
}

// modes returns those that a rule may have.
func (h *codeHost) modes() []string {
	list := []string{modeRead}
	for _, j := range h.judged {
		list = append(list, j.mode)
	}
	return list
}

// expand makes the rules about a repository.
func (t codeHostText) expand(action Action, at Source) ([]Rule, error) {
	repo, err := t.repository()
	if err != nil {
		return nil, err
	}
	if action == Deny {
		repo.private = false
		return nil, fmt.Errorf("it opens some requests: to deny all about a repository, write deny %s%s/**", repo.fill(t.below), repo.inURL)
	}
	var rules []Rule
	for _, text := range t.texts(repo.mode) {
		r, err := parseRule(action, repo.fill(text), at)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	for i := range t.judged {
		j := &t.judged[i]
		if repo.mode == j.mode || repo.mode == "" || repo.mode == modeRead && !j.writes {
			r, err := repo.judgedRule(j, at)
			if err != nil {
				return nil, err
			}
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// texts returns the rules about requests of a mode.
func (h *codeHost) texts(mode string) []string {
	switch mode {
	case "":
		return slices.Concat(h.read, h.write)
	case modeRead:
		return h.read
	}
	return nil
}

// fill returns a text of codeHosts for the repository.
func (r *repository) fill(text string) string {
	api, graphQL := r.of.at(r.server)
	if r.private {
		api, graphQL = "private:"+api, "private:"+graphQL
	}
	return strings.NewReplacer("{repo}", r.inURL, "{api}", api, "{graphql}", graphQL).Replace(text)
}

// text returns the canonical form of a rule about the repository, in a mode.
func (r *repository) text(mode string) string {
	s := r.of.name + ":" + r.name()
	if r.private {
		s = "private:" + s
	}
	if mode != "" {
		s += ":" + mode
	}
	return s
}

// name returns [HOST/]OWNER/REPO.
func (r *repository) name() string {
	if r.named {
		return r.server + "/" + r.path
	}
	return r.path
}

// judgedRequests is the part of a rule about requests that are judged by their bodies, too.
type judgedRequests struct {
	mode    *judgedMode
	repo    repository
	any     []*request
	graphQL string // the URL of the server
}

// judgedRule makes the rule about the requests of a judgedMode.
func (r repository) judgedRule(mode *judgedMode, at Source) (Rule, error) {
	rule := Rule{Action: Allow, Source: at}
	j := &judgedRequests{mode: mode, repo: r}
	_, j.graphQL = r.of.at(r.server)
	for _, t := range mode.requests {
		if err := rule.setRequest(r.fill(t)); err != nil {
			return rule, err
		}
		j.any = append(j.any, rule.request)
	}
	if err := cmp.Or(rule.checkMatchable(), rule.checkKeywords()); err != nil {
		return rule, err
	}
	rule.request = &request{scheme: j.any[0].scheme, path: j.any[0].path, judged: j}
	rule.Text = rule.canonical()
	return rule, nil
}

// text returns the canonical form of the rule.
func (j *judgedRequests) text() string { return j.repo.text(j.mode.mode) }

// about reports whether a method and a path are of the rule.
func (j *judgedRequests) about(q Request, path []string) bool {
	return slices.ContainsFunc(j.any, func(one *request) bool { return one.matches(Allow, q, path) })
}

// takes reports whether a query may stand beside the bodies.
func (j *judgedRequests) takes(query string) bool {
	return query == "" || j.mode.body == NoBody && !asksForHTML(query)
}

// judgesBody reports whether a rule is about a request if its body is what the rule says.
func (m *request) judgesBody(q Request, path []string) bool {
	return m != nil && m.judged != nil && m.judged.takes(q.Query) && m.judged.about(q, path)
}

// asksForHTML reports whether a field of a query may ask for texts as HTML (render_html,
// include_html_description). A field is judged by what is in its name, as servers take names apart in
// different ways (render_html[]), and so is one whose name cannot be decoded.
func asksForHTML(query string) bool {
	for field := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(field, "=")
		name, err := url.QueryUnescape(name)
		if name = strings.ToLower(name); err != nil || strings.Contains(name, "html") || strings.Contains(name, "render") {
			return true
		}
	}
	return false
}

// BodyRules say what the body of a request has to be.
type BodyRules struct {
	Kind         BodyKind
	Repositories []string // that it may be about, as in the rules: OWNER/REPO
	Writable     []string // of GraphQL: those in which mutations may change something
	rule         *Rule    // the first
	writing      *Rule    // the first about mutations
}

// add takes an allow rule about the request into account. The rules about a request are of one kind, but where some say that a server
// is a GitHub and some that it is a GitLab.
func (b *BodyRules) add(r *Rule) {
	j := r.request.judged
	kind, list := j.mode.body, &b.Repositories
	if kind == GraphQLMutation {
		kind, b.writing, list = GraphQLQuery, cmp.Or(b.writing, r), &b.Writable
	}
	if b.Kind != 0 && b.Kind != kind {
		kind = ConflictingBodies
	}
	b.Kind, b.rule = kind, cmp.Or(b.rule, r)
	if !slices.Contains(*list, j.repo.path) {
		*list = append(*list, j.repo.path)
	}
}

// RuleFor returns the rule that allows a body; changes: it is or has a mutation.
func (b *BodyRules) RuleFor(changes bool) *Rule {
	if changes && b.writing != nil {
		return b.writing
	}
	return b.rule
}

// Covers reports whether a body that is about these repositories, and changes something in those, may still pass.
func (b *BodyRules) Covers(about, changed []string) bool {
	return isSubset(about, b.Repositories) && isSubset(changed, b.Writable)
}

func isSubset(some, all []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// Condition completes "it may pass if its body is ...".
func (b *BodyRules) Condition() string {
	switch {
	case b.Kind == NoBody:
		return "empty"
	case b.Kind == ConflictingBodies:
		return "known to be for a GitHub or a GitLab, and the rules say both of this server: remove one"
	case b.Kind == GitLabText:
		return "JSON with the fields of an issue, merge request or comment, without quick actions (lines such as /move)"
	case len(b.Writable) == 0:
		return "a query of GraphQL about " + strings.Join(b.Repositories, " or ") + " and nothing else"
	case len(b.Repositories) == 0:
		return "a mutation of GraphQL of issues and pull requests of " + strings.Join(b.Writable, " or ")
	}
	return "a query of GraphQL about " + strings.Join(b.Repositories, " or ") + " and nothing else, or a mutation of issues and pull requests of " + strings.Join(b.Writable, " or ")
}

// service returns the code host at whose API a request aims: by a rule about a repository there, or one of the services of
// codeHosts. graphQL: it goes to where a body can ask for anything that the token may do. Both in any spelling of the path.
func (s *Set) service(q Request, path []string) (h *codeHost, graphQL bool) {
	is := func(one *codeHost, url string) {
		_, authority, at, _ := cutURL(url)
		name, _, _ := strings.Cut(authority, ":")
		if name == q.Name {
			h, graphQL = cmp.Or(h, one), graphQL || strings.EqualFold(strings.Join(path, "/"), strings.Trim(at, "/"))
		}
	}
	s.about(q.Flow(), func(r *Rule) {
		if r.request != nil && r.request.judged != nil {
			is(r.request.judged.repo.of, r.request.judged.graphQL)
		}
	})
	for i := range codeHosts {
		_, url := codeHosts[i].at(codeHosts[i].host)
		is(&codeHosts[i], url)
	}
	return h, graphQL
}

// IsAPI reports whether a request goes to the API of a code host, as far as that is known. Other clients than those of the API, such
// as git, speak to the same host of a GitLab.
func (s *Set) IsAPI(q Request) bool {
	h, _ := s.service(q, nil)
	return h != nil && (strings.HasPrefix(q.Name, "api.") || strings.HasPrefix(q.Path, "/api/"))
}

// whyNotCodeHost says why no rule allows a request to the API of a code host; empty if there is
// nothing to say about it.
func (s *Set) whyNotCodeHost(q Request, path []string) string {
	switch about := s.judgedBare(q, path); {
	case about == nil:
	case about.request.judged.mode.body != NoBody:
		return fmt.Sprintf("the rule %q allows this request only without a query: send what is in it as JSON in the body", about)
	default:
		return fmt.Sprintf("the rule %q allows this request only without fields of the query that ask for HTML, in which other projects are named: leave out what has html or render in its name", about)
	}
	switch h, graphQL := s.service(q, path); {
	case h == nil:
		return ""
	case graphQL && h.name == "github":
		return "no rule allows this request: a rule github:OWNER/REPO allows POST of queries of GraphQL about one repository, and of some mutations"
	case graphQL:
		return "no rule allows this request: a rule gitlab:GROUP/PROJECT allows POST of queries of GraphQL about one project, and the REST API (glab api projects/GROUP%2FPROJECT/issues, .../merge_requests)"
	case h.name == "gitlab" && len(path) > 3 && path[0] == "api" && path[2] == "projects" && strings.Trim(path[3], "0123456789") == "":
		return "no rule allows this request: a project's number does not say which project it is; with a rule gitlab:GROUP/PROJECT, write /projects/GROUP%2FPROJECT"
	}
	return ""
}

// judgedBare returns the first rule that would allow a request without its query, if its body is what the
// rule says; nil if there is none.
func (s *Set) judgedBare(q Request, path []string) (about *Rule) {
	s.about(q.Flow(), func(r *Rule) {
		if about == nil && q.Query != "" && r.covers(TCP, q.Port) && r.request != nil && r.request.judged != nil && r.request.judged.about(q, path) {
			about = r
		}
	})
	return about
}

// canonical returns the canonical form of a rule whose text expand takes.
func (t codeHostText) canonical() string {
	repo, _ := t.repository()
	return repo.text(repo.mode)
}

// words returns in words what a rule about the repository opens, in a mode.
func (r *repository) words(mode string) string {
	what := "to read it, and to write " + r.of.written
	if mode == modeRead {
		what = "to read it"
	}
	for _, j := range r.of.judged {
		if mode == j.mode {
			what = "only " + j.words
		}
	}
	return r.of.summary + ", " + r.name() + ", " + what + " (inspected on the host)"
}
