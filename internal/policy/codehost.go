package policy

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Rules about one repository at the API of a service: NAME:OWNER/REPO[:read|:MODE].
//
// Theory of operation. Such a rule stands for a list of rules, which is data (codeHosts). Most are
// rules about requests, as a person could write them. For some requests, method and path do not say
// what they do: a query of GraphQL names the repository in its body, and a comment on GitLab can be a
// command (/move) that acts on another project. Those of a service that are alike are one rule, with a
// MODE of its own, and Decision.Body says what their bodies have to be: package egress reads and judges
// them before anything is sent on. They have no query, in which servers read the same fields. Reading from
// GitLab is judged so, too: it renders texts on demand, with the titles of what they refer to, in any
// project that the token may read, and the agent writes the texts. So texts are given out as they are only: such a
// request has no body, in which GitLab reads the fields of a query, and its query asks for no HTML.

// codeHost is the set of rules about one repository at the API of a service.
type codeHost struct {
	name    string
	summary string
	written string // what a rule without :read writes
	form    string // how a repository is named
	below   string // the URL before a repository
	repo    func(path string) (inURL string, err error)
	read    []string // rules about requests, with {repo} for what repo returns
	write   []string // those that :read leaves out
	judged  []judgedMode
}

// judgedMode is the part of the rules whose requests are judged by their bodies.
type judgedMode struct {
	mode     string
	body     BodyKind
	writes   bool // :read leaves it out
	words    string
	requests []string // as codeHost.read, all of one host
}

// BodyKind is what the body of a request has to be.
type BodyKind int

// The kinds of bodies.
const (
	// GraphQLQuery is a query of GraphQL about some repositories of GitHub.
	GraphQLQuery BodyKind = iota + 1
	// GitLabText is what is written about an issue or merge request of GitLab, without commands.
	GitLabText
	// NoBody is none.
	NoBody
)

// codeHosts name the requests that are needed to work on a repository with its issues and pull
// requests. Whatever opens another way to its commits (contents, git/refs, merges), to others
// (forks, invitations, keys, hooks) or speaks for the user (reviews) is not among them. What may be read
// is listed, too: below a repository's path are issues of others that refer to one of its issues (timeline,
// events, sub_issues, dependencies), with their whole text, and variables and tokens.
var codeHosts = []codeHost{{
	name:    "github",
	summary: "GitHub's API (REST, and queries of GraphQL) for one repository",
	written: "its issues and pull requests",
	form:    "OWNER/REPO",
	below:   "https://api.github.com/repos/",
	repo:    gitHubRepository,
	read: []string{
		"GET,HEAD https://api.github.com/user",
		"GET,HEAD https://api.github.com/repos/{repo}",
		"GET,HEAD https://api.github.com/repos/{repo}/actions/artifacts/**",
		"GET,HEAD https://api.github.com/repos/{repo}/actions/cache/**",
		"GET,HEAD https://api.github.com/repos/{repo}/actions/caches",
		"GET,HEAD https://api.github.com/repos/{repo}/actions/jobs/**",
		"GET,HEAD https://api.github.com/repos/{repo}/actions/runs/**",
		"GET,HEAD https://api.github.com/repos/{repo}/actions/workflows/**",
		"GET,HEAD https://api.github.com/repos/{repo}/assignees/**",
		"GET,HEAD https://api.github.com/repos/{repo}/branches/**",
		"GET,HEAD https://api.github.com/repos/{repo}/check-runs/**",
		"GET,HEAD https://api.github.com/repos/{repo}/check-suites/**",
		"GET,HEAD https://api.github.com/repos/{repo}/code-scanning/**",
		"GET,HEAD https://api.github.com/repos/{repo}/codeowners/**",
		"GET,HEAD https://api.github.com/repos/{repo}/collaborators/**",
		"GET,HEAD https://api.github.com/repos/{repo}/comments/**",
		"GET,HEAD https://api.github.com/repos/{repo}/commits/**",
		"GET,HEAD https://api.github.com/repos/{repo}/community/**",
		"GET,HEAD https://api.github.com/repos/{repo}/compare/**",
		"GET,HEAD https://api.github.com/repos/{repo}/contents/**",
		"GET,HEAD https://api.github.com/repos/{repo}/contributors",
		"GET,HEAD https://api.github.com/repos/{repo}/dependabot/alerts/**",
		"GET,HEAD https://api.github.com/repos/{repo}/dependency-graph/**",
		"GET,HEAD https://api.github.com/repos/{repo}/deployments/**",
		"GET,HEAD https://api.github.com/repos/{repo}/environments",
		"GET,HEAD https://api.github.com/repos/{repo}/environments/*",
		"GET,HEAD https://api.github.com/repos/{repo}/git/**",
		"GET,HEAD https://api.github.com/repos/{repo}/issues",
		"GET,HEAD https://api.github.com/repos/{repo}/issues/*",
		"GET,HEAD https://api.github.com/repos/{repo}/issues/*/comments",
		"GET,HEAD https://api.github.com/repos/{repo}/issues/*/labels",
		"GET,HEAD https://api.github.com/repos/{repo}/issues/*/reactions",
		"GET,HEAD https://api.github.com/repos/{repo}/issues/comments/**",
		"GET,HEAD https://api.github.com/repos/{repo}/labels/**",
		"GET,HEAD https://api.github.com/repos/{repo}/languages",
		"GET,HEAD https://api.github.com/repos/{repo}/license",
		"GET,HEAD https://api.github.com/repos/{repo}/milestones/**",
		"GET,HEAD https://api.github.com/repos/{repo}/pages/**",
		"GET,HEAD https://api.github.com/repos/{repo}/pulls/**",
		"GET,HEAD https://api.github.com/repos/{repo}/readme/**",
		"GET,HEAD https://api.github.com/repos/{repo}/releases/**",
		"GET,HEAD https://api.github.com/repos/{repo}/rules/**",
		"GET,HEAD https://api.github.com/repos/{repo}/rulesets/**",
		"GET,HEAD https://api.github.com/repos/{repo}/secret-scanning/**",
		"GET,HEAD https://api.github.com/repos/{repo}/security-advisories/**",
		"GET,HEAD https://api.github.com/repos/{repo}/stargazers",
		"GET,HEAD https://api.github.com/repos/{repo}/stats/**",
		"GET,HEAD https://api.github.com/repos/{repo}/statuses/**",
		"GET,HEAD https://api.github.com/repos/{repo}/subscribers",
		"GET,HEAD https://api.github.com/repos/{repo}/subscription",
		"GET,HEAD https://api.github.com/repos/{repo}/tags/**",
		"GET,HEAD https://api.github.com/repos/{repo}/tarball/**",
		"GET,HEAD https://api.github.com/repos/{repo}/teams",
		"GET,HEAD https://api.github.com/repos/{repo}/topics",
		"GET,HEAD https://api.github.com/repos/{repo}/traffic/**",
		"GET,HEAD https://api.github.com/repos/{repo}/vulnerability-alerts",
		"GET,HEAD https://api.github.com/repos/{repo}/zipball/**",
	},
	write: []string{
		"POST https://api.github.com/repos/{repo}/issues",
		"PATCH https://api.github.com/repos/{repo}/issues/*",
		"POST https://api.github.com/repos/{repo}/issues/*/comments",
		"PATCH,DELETE https://api.github.com/repos/{repo}/issues/comments/*",
		"POST,PUT,DELETE https://api.github.com/repos/{repo}/issues/*/labels",
		"DELETE https://api.github.com/repos/{repo}/issues/*/labels/*",
		"POST,DELETE https://api.github.com/repos/{repo}/issues/*/assignees",
		"POST https://api.github.com/repos/{repo}/pulls",
		"PATCH https://api.github.com/repos/{repo}/pulls/*",
		"POST https://api.github.com/repos/{repo}/pulls/*/comments",
		"POST https://api.github.com/repos/{repo}/pulls/*/comments/*/replies",
		"PATCH,DELETE https://api.github.com/repos/{repo}/pulls/comments/*",
		"POST,DELETE https://api.github.com/repos/{repo}/pulls/*/requested_reviewers",
	},
	judged: []judgedMode{{
		mode: "graphql", body: GraphQLQuery,
		words:    "queries of GraphQL about it",
		requests: []string{"POST https://api.github.com/graphql"},
	}},
}, {
	name:    "gitlab",
	summary: "GitLab.com's REST API for one project",
	written: "its issues and merge requests",
	form:    "GROUP[/SUBGROUP...]/PROJECT",
	below:   "https://gitlab.com/api/v4/projects/",
	repo:    gitLabProject,
	judged: []judgedMode{{
		mode: modeRead, body: NoBody,
		words: "to read it",
		requests: []string{
			"GET,HEAD https://gitlab.com/api/v4/user",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/issues",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/issues/*",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/issues/*/notes/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/issues/*/discussions/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/issues_statistics",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/notes/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/discussions/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/commits",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/changes",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/diffs",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/raw_diffs",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/versions/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/pipelines",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/approvals",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/labels/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/milestones/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/members/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/releases/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/languages",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/pipelines",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/pipelines/*",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/pipelines/*/jobs",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/pipelines/*/test_report",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/jobs",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/jobs/*",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/jobs/*/trace",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/tree",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/blobs/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/branches/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/commits/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/contributors",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/files/**",
			"GET,HEAD https://gitlab.com/api/v4/projects/{repo}/repository/tags/**",
		},
	}, {
		mode: "write", body: GitLabText, writes: true,
		words: "to write its issues and merge requests",
		requests: []string{
			"POST https://gitlab.com/api/v4/projects/{repo}/issues",
			"PUT https://gitlab.com/api/v4/projects/{repo}/issues/*",
			"POST https://gitlab.com/api/v4/projects/{repo}/issues/*/notes",
			"PUT,DELETE https://gitlab.com/api/v4/projects/{repo}/issues/*/notes/*",
			"POST https://gitlab.com/api/v4/projects/{repo}/issues/*/discussions",
			"POST https://gitlab.com/api/v4/projects/{repo}/issues/*/discussions/*/notes",
			"PUT,DELETE https://gitlab.com/api/v4/projects/{repo}/issues/*/discussions/*/notes/*",
			"POST https://gitlab.com/api/v4/projects/{repo}/merge_requests",
			"PUT https://gitlab.com/api/v4/projects/{repo}/merge_requests/*",
			"POST https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/notes",
			"PUT,DELETE https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/notes/*",
			"POST https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/discussions",
			"PUT https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/discussions/*",
			"POST https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/discussions/*/notes",
			"PUT,DELETE https://gitlab.com/api/v4/projects/{repo}/merge_requests/*/discussions/*/notes/*",
		},
	}},
}}

// Limits of GitHub for the names of owners and repositories, and of GitLab for each part of a path,
// in bytes.
const (
	maxOwner = 39
	maxRepo  = 100
	maxGroup = 255
)

// gitHubRepository checks OWNER/REPO and returns it as it is in a URL.
func gitHubRepository(path string) (string, error) {
	owner, name, _ := strings.Cut(path, "/")
	if !isRepoName(owner, maxOwner, "-_") || !isRepoName(name, maxRepo, "-_.") {
		return "", fmt.Errorf("%q is no OWNER/REPO", path)
	}
	return path, nil
}

// gitLabProject checks GROUP[/SUBGROUP...]/PROJECT and returns it as it is in a URL: one segment.
func gitLabProject(path string) (string, error) {
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if len(parts) < 2 || !isRepoName(p, maxGroup, "-_.") || p[0] == '-' {
			return "", fmt.Errorf("%q is no GROUP[/SUBGROUP...]/PROJECT", path)
		}
	}
	if len(parts) > 2 && strings.Contains(parts[0], ".") {
		return "", fmt.Errorf("%q looks like a host: gitlab: is about gitlab.com; for another server, write rules about requests, such as GET https://HOST/api/v4/projects/GROUP%%2FPROJECT/issues/**", parts[0])
	}
	return strings.Join(parts, "%2F"), nil
}

// isRepoName reports whether a text has letters, digits and these characters only, and is the name
// of something.
func isRepoName(s string, limit int, others string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= limit &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"+others) == ""
}

// cutCodeHost splits NAME:OWNER/REPO[:read|:MODE]. github:443 is a rule about a port of a host of
// that name.
func cutCodeHost(text string) (h *codeHost, rest string) {
	for i := range codeHosts {
		if rest, ok := cutWord(text, codeHosts[i].name+":"); ok && strings.Contains(rest, "/") {
			return &codeHosts[i], rest
		}
	}
	return nil, ""
}

// modeRead is the mode of a rule that only reads.
const modeRead = "read"

// repository is what a rule about a code host names.
type repository struct {
	path  string // OWNER/REPO
	inURL string
	mode  string // modeRead, that of a judgedMode, or empty
}

// cutRepository splits OWNER/REPO[:read|:MODE].
func (h *codeHost) cutRepository(text string) (r repository, err error) {
	path, mode, hasMode := strings.Cut(text, ":")
	r.path, r.mode = strings.TrimSuffix(path, gitSuffix), strings.ToLower(mode)
	if hasMode && !slices.Contains(h.modes(), r.mode) {
		return r, fmt.Errorf("a rule about a repository at the API is %s:%s[:%s]", h.name, h.form, strings.Join(h.modes(), "|:"))
	}
	if trimGit(r.path) != r.path {
		return r, fmt.Errorf("%q is no %s", path, h.form)
	}
	r.inURL, err = h.repo(r.path)
	return r, err
}

// modes returns those that a rule may have.
func (h *codeHost) modes() []string {
	list := []string{modeRead}
	for _, j := range h.judged {
		if j.mode != modeRead {
			list = append(list, j.mode)
		}
	}
	return list
}

// expand makes the rules about a repository.
func (h *codeHost) expand(action Action, text string, at Source) ([]Rule, error) {
	repo, err := h.cutRepository(text)
	if err != nil {
		return nil, err
	}
	if action == Deny {
		return nil, fmt.Errorf("it opens some requests: to deny all about a repository, write deny %s%s/**", h.below, repo.inURL)
	}
	var rules []Rule
	for _, t := range h.texts(repo.mode) {
		r, err := parseRule(action, strings.ReplaceAll(t, "{repo}", repo.inURL), at)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	for i := range h.judged {
		j := &h.judged[i]
		if repo.mode == j.mode || repo.mode == "" || repo.mode == modeRead && !j.writes {
			r, err := h.judgedRule(repo, j, at)
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

// judgedRequests is the part of a rule about requests that are judged by their bodies, too.
type judgedRequests struct {
	host *codeHost
	mode *judgedMode
	repo repository
	any  []*request
}

// judgedRule makes the rule about the requests of a judgedMode.
func (h *codeHost) judgedRule(repo repository, mode *judgedMode, at Source) (Rule, error) {
	r := Rule{Action: Allow, Source: at}
	j := &judgedRequests{host: h, mode: mode, repo: repo}
	for _, t := range mode.requests {
		if err := r.setRequest(strings.ReplaceAll(t, "{repo}", repo.inURL)); err != nil {
			return r, err
		}
		j.any = append(j.any, r.request)
	}
	r.request = &request{scheme: j.any[0].scheme, path: j.any[0].path, judged: j}
	r.Text = r.canonical()
	return r, nil
}

// text returns the canonical form of the rule.
func (j *judgedRequests) text() string { return j.host.name + ":" + j.repo.path + ":" + j.mode.mode }

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
	rule         *Rule    // the first
}

// add takes an allow rule about the request into account. The rules about a request are of one kind.
func (b *BodyRules) add(r *Rule) {
	j := r.request.judged
	b.Kind, b.rule = j.mode.body, cmp.Or(b.rule, r)
	if !slices.Contains(b.Repositories, j.repo.path) {
		b.Repositories = append(b.Repositories, j.repo.path)
	}
}

// Covers reports whether a body that is about these repositories may still pass.
func (b *BodyRules) Covers(repositories []string) bool {
	return !slices.ContainsFunc(repositories, func(r string) bool { return !slices.Contains(b.Repositories, r) })
}

// Condition completes "it may pass if its body is ...".
func (b *BodyRules) Condition() string {
	switch b.Kind {
	case GraphQLQuery:
		return "a query of GraphQL about " + strings.Join(b.Repositories, " or ") + " and nothing else"
	case NoBody:
		return "empty"
	}
	return "JSON with the fields of an issue, merge request or comment, without quick actions (lines such as /move)"
}

// graphQL are URLs at which a body can ask for anything that the token may do.
var graphQL = []string{"https://api.github.com/graphql", "https://gitlab.com/api/graphql"}

// isGraphQL reports whether a request goes to one of them, so that no rule about it is suggested.
func (q Request) isGraphQL() bool {
	return slices.Contains(graphQL, strings.TrimSuffix(urlOf(q.Scheme, q.Name, q.Port, q.Path), "/"))
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
	switch {
	case q.isGraphQL() && q.Name == "api.github.com":
		return "no rule allows this request: a rule github:OWNER/REPO allows POST of queries of GraphQL about one repository"
	case q.isGraphQL():
		return "no rule allows this request: GraphQL of GitLab is not judged, and reaches all that the token may; a rule gitlab:GROUP/PROJECT allows the REST API of one project"
	case q.Name == "gitlab.com" && len(path) > 3 && path[0] == "api" && path[2] == "projects" && strings.Trim(path[3], "0123456789") == "":
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
func (h *codeHost) canonical(text string) string {
	repo, _ := h.cutRepository(text)
	if repo.mode != "" {
		repo.path += ":" + repo.mode
	}
	return h.name + ":" + repo.path
}

// words returns in words what a rule opens.
func (h *codeHost) words(text string) string {
	repo, _ := h.cutRepository(text)
	what := "to read it, and to write " + h.written
	if repo.mode == modeRead {
		what = "to read it"
	}
	for _, j := range h.judged {
		if repo.mode == j.mode {
			what = "only " + j.words
		}
	}
	return h.summary + ", " + repo.path + ", " + what + " (inspected on the host)"
}
