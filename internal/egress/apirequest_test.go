package egress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/egress/apibody"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/secret"
)

const (
	graphQLURL = "https://api.github.com/graphql"
	notesURL   = "https://gitlab.com/api/v4/projects/own%2Fapp/issues/7/notes"
	mergeURL   = "https://gitlab.com/api/v4/projects/own%2Fapp/merge_requests/7"
	gitLabURL  = "https://gitlab.com/api/graphql"
	ourProject = `{"query":"query($path: ID!) { project(fullPath: $path) { issues(first: 5) { nodes { iid title author { username } } } } }", "variables": {"path":"own/app"}}`
	ourQuery   = `{"query":"query($owner: String!) { repository(owner: $owner, name: \"app\") { issue(number: 7) { title } } }", "variables": {"owner":"own"}}`
)

// apiServer stands for api.github.com and gitlab.com. It keeps what it gets, and answers when its
// gate is open.
type apiServer struct {
	*counter
	mu   sync.Mutex
	got  []string
	gate chan struct{} // nil: open
	// nodes are those that it answers questions about (answerNodes); nil: it answers all with {}.
	nodes map[string][2]string
	// before is called with each such question, if it is not nil, and after after each other request was answered.
	before func(w http.ResponseWriter, question string) (answered bool)
	after  func(w http.ResponseWriter, r *http.Request)
	heads  []http.Header
	// answers makes the answer to a body; nil: {}.
	answers func(body string) string
}

// set changes a field.
func (s *apiServer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *apiServer) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.got = append(s.got, strings.Join([]string{r.Method, r.RequestURI, r.Header.Get("Content-Encoding"), r.Header.Get("Authorization"), string(b)}, " "))
	s.heads = append(s.heads, r.Header.Clone())
	nodes, before, after, answers := s.nodes, s.before, s.after, s.answers
	s.mu.Unlock()
	if s.gate != nil {
		_ = http.NewResponseController(w).Flush()
		select {
		case <-s.gate:
		case <-r.Context().Done():
		}
	}
	if nodes != nil && isQuestion(string(b)) {
		if before == nil || !before(w, string(b)) {
			answerNodes(w, b, nodes)
		}
		return
	}
	answer := "{}"
	if answers != nil {
		answer = answers(string(b))
	}
	_, _ = io.WriteString(w, answer)
	if after != nil {
		after(w, r)
	}
}

// certificateFor returns a certificate that its key has signed.
func certificateFor(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newAPILab(t *testing.T, s *secrets, gate chan struct{}, rules ...string) (*lab, *apiServer, *http.Client) {
	server := &apiServer{counter: &counter{}, gate: gate}
	server.Server = httptest.NewUnstartedServer(server)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificateFor(t, "api.github.com", "gitlab.com", "code.corp.example")}}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	if s == nil {
		s = &secrets{list: []secret.Bound{}}
	}
	l, authority := newInspectedLab(t, s, server.counter, nil)
	l.SetPolicy(rulesFrom(t, rules...))
	l.serve("api.github.com", "203.0.113.7:443", server.addr())
	l.serve("gitlab.com", "203.0.113.8:443", server.addr())
	return l, server, l.trusting(authority)
}

// apiRequest is a request with a JSON body, to POST if the URL has no method before it; header has more fields and
// their values.
func apiRequest(t *testing.T, url, body string, header ...string) *http.Request {
	t.Helper()
	method := http.MethodPost
	if m, rest, ok := strings.Cut(url, " "); ok {
		method, url = m, rest
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = strings.Split(header[i+1], "|")
	}
	return r
}

// TestAPIOfCodeHosts: what is about the repository passes, byte by byte as it was judged, over HTTP/1.1 and
// HTTP/2, with the rule in the log.
func TestAPIOfCodeHosts(t *testing.T) {
	note := `{ "body": "it works: /usr/bin/x" }`
	for _, http1 := range []bool{false, true} {
		l, server, client := newAPILab(t, nil, nil, "allow github:own/app", "allow gitlab:own/app")
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = !http1
		for _, r := range []*http.Request{
			apiRequest(t, graphQLURL, ourQuery),
			apiRequest(t, graphQLURL, ourQuery, "Content-Type", "application/json"),
			apiRequest(t, graphQLURL, gzipped(ourQuery), "Content-Encoding", "gzip"),
			apiRequest(t, "GET https://api.github.com/repos/own/app/issues?page=2", ""),
			apiRequest(t, gitLabURL, ourProject),
			apiRequest(t, notesURL, note),
			apiRequest(t, strings.Replace(notesURL, "%2F", "%2f", 1), note),
			apiRequest(t, "DELETE "+notesURL+"/3", "", "Content-Type", "application/x-www-form-urlencoded|"),
			apiRequest(t, "GET https://gitlab.com/api/v4/projects/own%2Fapp/repository/files/a%2Fb/raw?ref=main", ""),
			apiRequest(t, "GET "+mergeURL+"?include_rebase_in_progress=html", ""),
		} {
			if r.Method == http.MethodDelete {
				r.Header.Del("Content-Type")
			}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if status, page := answered(t, res); status != http.StatusOK || page != "{}" {
				t.Errorf("%s %s: %d %s", r.Method, r.URL, status, page)
			}
		}
		want := []string{
			"POST /graphql   " + ourQuery, "POST /graphql   " + ourQuery, "POST /graphql   " + ourQuery, "GET /repos/own/app/issues?page=2   ", "POST /api/graphql   " + ourProject,
			"POST /api/v4/projects/own%2Fapp/issues/7/notes   " + note, "POST /api/v4/projects/own%2fapp/issues/7/notes   " + note,
			"DELETE /api/v4/projects/own%2Fapp/issues/7/notes/3   ", "GET /api/v4/projects/own%2Fapp/repository/files/a%2Fb/raw?ref=main   ",
			"GET /api/v4/projects/own%2Fapp/merge_requests/7?include_rebase_in_progress=html   ",
		}
		if got := server.seen(); !slices.Equal(got, want) {
			t.Errorf("HTTP/1.1: %v, the server got\n%s", http1, strings.Join(got, "\n"))
		}
		l.Close()
		var rules []string
		for _, e := range readAll(t, l.path) {
			if e.Event == audit.EventRequest && e.Method != http.MethodGet {
				rules = append(rules, e.Rule)
			}
		}
		if slices.Sort(rules); strings.Join(slices.Compact(rules), ", ") != "allow github:own/app:graphql, allow gitlab:own/app:graphql, allow gitlab:own/app:write" {
			t.Errorf("log: %q", rules)
		}
	}
}

// TestAttackAPIRequests: nothing of a request that is not about the repository reaches the server, and the
// guest is told what may pass.
func TestAttackAPIRequests(t *testing.T) {
	query := func(text string) string { return fmt.Sprintf(`{"query":%q}`, text) }
	for _, http1 := range []bool{false, true} {
		_, server, client := newAPILab(t, nil, nil, "allow github:own/app", "allow gitlab:own/app")
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = !http1
		for name, step := range map[string]struct {
			r      *http.Request
			status int
			say    string
		}{
			"another repository":         {apiRequest(t, graphQLURL, query(`{ repository(owner: "evil", name: "app") { id } }`)), 403, `the repository "evil/app", and the rules are about own/app`},
			"a search":                   {apiRequest(t, graphQLURL, query(`{ search(query: "x", type: ISSUE) { issueCount } }`)), 403, `write repo:own/app is:open`},
			"a node":                     {apiRequest(t, graphQLURL, query(`{ nodes(ids: ["x"]) { id } }`)), 403, `"nodes" is refused`},
			"a mutation":                 {apiRequest(t, graphQLURL, query(`mutation { mergePullRequest(input: {pullRequestId: "x"}) { clientMutationId } }`)), 403, `"mergePullRequest" is refused`},
			"gzip":                       {apiRequest(t, graphQLURL, gzipped(query(`{ nodes(ids: ["x"]) { id } }`)), "Content-Encoding", "gzip"), 403, `"nodes" is refused`},
			"gzip that is none":          {apiRequest(t, graphQLURL, ourQuery, "Content-Encoding", "gzip"), 403, "cannot be decoded"},
			"gzip in two members":        {apiRequest(t, graphQLURL, gzipped(ourQuery, query("{ node }")), "Content-Encoding", "gzip"), 403, "one JSON object"},
			"a bomb":                     {apiRequest(t, graphQLURL, gzipped(strings.Repeat(" ", 1<<24)+ourQuery), "Content-Encoding", "gzip"), 403, "longer than"},
			"deflate":                    {apiRequest(t, graphQLURL, ourQuery, "Content-Encoding", "deflate"), 415, ""},
			"two codings":                {apiRequest(t, graphQLURL, ourQuery, "Content-Encoding", "gzip|br"), 415, ""},
			"too long":                   {apiRequest(t, graphQLURL, ourQuery+strings.Repeat(" ", apibody.MaxBody)), 403, "longer than 65536 bytes"},
			"no body":                    {apiRequest(t, graphQLURL, ""), 403, "one JSON object"},
			"several in an array":        {apiRequest(t, graphQLURL, "["+ourQuery+"]"), 403, "one by one"},
			"another type":               {apiRequest(t, graphQLURL, ourQuery, "Content-Type", "application/graphql"), 403, "send JSON"},
			"a form":                     {apiRequest(t, graphQLURL, "query=x", "Content-Type", "application/x-www-form-urlencoded"), 403, "send JSON"},
			"two types":                  {apiRequest(t, graphQLURL, ourQuery, "Content-Type", "application/json|application/x-www-form-urlencoded"), 403, "send JSON"},
			"no type":                    {apiRequest(t, graphQLURL, ourQuery, "Content-Type", ""), 403, "send JSON"},
			"another character set":      {apiRequest(t, graphQLURL, ourQuery, "Content-Type", "application/json; charset=utf-7"), 403, "send JSON"},
			"an upgrade":                 {apiRequest(t, graphQLURL, ourQuery, "Connection", "Upgrade", "Upgrade", "websocket"), 403, "upgrade"},
			"GET":                        {apiRequest(t, "GET "+graphQLURL+"?query=%7Bviewer%7Blogin%7D%7D", ""), 403, "a rule github:OWNER/REPO allows POST"},
			"a query beside the body":    {apiRequest(t, graphQLURL+"?query=%7Bviewer%7Blogin%7D%7D", ourQuery), 403, "only without a query"},
			"as another method":          {apiRequest(t, graphQLURL, ourQuery, "X-Http-Method-Override", "POST"), 403, "is of one method"},
			"as a method that may":       {apiRequest(t, "GET https://api.github.com/user", "", "X-Http-Method-Override", "POST"), 403, "POST"},
			"GitHub's query to GitLab":   {apiRequest(t, gitLabURL, ourQuery), 403, `ask for project(fullPath: "own/app")`},
			"GitLab's query to GitHub":   {apiRequest(t, graphQLURL, ourProject), 403, `"project" is refused`},
			"another project":            {apiRequest(t, gitLabURL, query(`{ project(fullPath: "evil/app") { id } }`)), 403, `the project "evil/app", and the rules are about own/app`},
			"a project in another case":  {apiRequest(t, gitLabURL, query(`{ project(fullPath: "Own/App") { id } }`)), 403, "written just so"},
			"two projects":               {apiRequest(t, gitLabURL, query(`{ a: project(fullPath: "own/app") { id } b: project(fullPath: "evil/app") { id } }`)), 403, "evil/app"},
			"a group of GitLab":          {apiRequest(t, gitLabURL, gzipped(query(`{ group(fullPath: "own") { id } }`)), "Content-Encoding", "gzip"), 403, "glab api projects/own%2Fapp/"},
			"a mutation of GitLab":       {apiRequest(t, gitLabURL, query(`mutation { createNote(input: {noteableId: "x", body: "/merge"}) { errors } }`)), 403, "glab api -X POST projects/own%2Fapp/issues/IID/notes"},
			"a quote in a comment":       {apiRequest(t, gitLabURL, query("{ projects # \"\n : project(fullPath: \"own/app\") # \"\n { nodes: issues { nodes { id } } } }")), 403, "a comment in the query has a quote"},
			"GitLab, several":            {apiRequest(t, gitLabURL, "["+ourProject+"]"), 403, "one by one"},
			"GitLab, by its hash":        {apiRequest(t, gitLabURL, `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}`), 403, "extensions"},
			"GitLab, an upload":          {apiRequest(t, gitLabURL, "--x--", "Content-Type", "multipart/form-data; boundary=x"), 403, "send JSON"},
			"GitLab, GET":                {apiRequest(t, "GET "+gitLabURL+"?query=%7Bprojects%7Bnodes%7Bid%7D%7D%7D", ""), 403, "allows POST of queries of GraphQL about one project"},
			"GitLab, a query beside":     {apiRequest(t, gitLabURL+"?query=%7Bprojects%7Bnodes%7Bid%7D%7D%7D", ourProject), 403, "only without a query"},
			"GitLab, an encoded path":    {apiRequest(t, "https://gitlab.com/api/%67raphql?x", ourProject), 403, "only without a query"},
			"as a coding to some":        {apiRequest(t, graphQLURL, ourQuery, "Content_Encoding", "gzip"), 403, "read as a hyphen"},
			"as a type to some":          {apiRequest(t, notesURL, `{"body":"x"}`, "Content_Type", "application/x-www-form-urlencoded"), 403, "read as a hyphen"},
			"issues that refer to one":   {apiRequest(t, "GET https://api.github.com/repos/own/app/issues/7/timeline", ""), 403, "no rule allows"},
			"an issue above one":         {apiRequest(t, "GET https://api.github.com/repos/own/app/issues/7/parent", ""), 403, "no rule allows"},
			"titles of other projects":   {apiRequest(t, "GET "+mergeURL+"?render_html=true", ""), 403, "ask for HTML"},
			"titles, encoded":            {apiRequest(t, "GET "+mergeURL+"?page=1&render%5Fhtm%6C[]=1", ""), 403, "ask for HTML"},
			"titles, behind a semicolon": {apiRequest(t, "GET "+mergeURL+"?page=1;Render_HTML=1", ""), 403, "ask for HTML"},
			"titles, malformed":          {apiRequest(t, "GET "+mergeURL+"?%zzrender", ""), 403, "ask for HTML"},
			"titles by a form":           {apiRequest(t, "GET "+mergeURL, "render_html=true", "Content-Type", "application/x-www-form-urlencoded"), 403, "fields of a query"},
			"titles by JSON":             {apiRequest(t, "GET "+mergeURL, `{"render_html":true}`), 403, "fields of a query"},
			"a command of GitLab":        {apiRequest(t, notesURL, `{"body":"x\n/move evil/app"}`), 403, "quick action"},
			"a merge request elsewhere":  {apiRequest(t, "https://gitlab.com/api/v4/projects/own%2Fapp/merge_requests", `{"title":"x","target_project_id":7}`), 403, "target_project_id"},
			"a form to GitLab":           {apiRequest(t, notesURL, "body=%2Fmerge", "Content-Type", "application/x-www-form-urlencoded"), 403, "send JSON"},
			"fields in the query":        {apiRequest(t, notesURL+"?body=%2Fmerge", `{}`), 403, "as JSON in the body"},
			"a project by its number":    {apiRequest(t, "https://gitlab.com/api/v4/projects/7/issues/7/notes", `{"body":"x"}`), 403, "a project's number does not say"},
			"a project in two segments":  {apiRequest(t, "https://gitlab.com/api/v4/projects/own/app/issues/7/notes", `{"body":"x"}`), 403, "no rule allows"},
			"a project, encoded twice":   {apiRequest(t, strings.Replace(notesURL, "%2F", "%252F", 1), `{"body":"x"}`), 400, "twice"},
			"dots in a project":          {apiRequest(t, strings.Replace(notesURL, "own%2F", "own%2F..%2Fevil%2F", 1), `{"body":"x"}`), 400, "different ways"},
			"a project and more":         {apiRequest(t, "https://gitlab.com/api/v4/projects/own%2Fapp%2F7/issues", `{"title":"x"}`), 403, "no rule allows"},
		} {
			if step.r.Header.Get("Content-Type") == "" {
				step.r.Header.Del("Content-Type")
			}
			if step.r.Header.Get("Upgrade") != "" && !http1 {
				continue // HTTP/2 has none
			}
			res, err := client.Do(step.r)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if status, page := answered(t, res); status != step.status || !strings.Contains(page, step.say) || res.Header.Get("X-Bawn") != "denied" || len(server.seen()) > 0 {
				t.Errorf("HTTP/1.1: %v, %s: %d %q; the server got %q", http1, name, status, page, server.seen())
			}
		}
	}
}

// TestAPIWithASecret: the token is put into the header of a request that is judged, and another one is refused.
func TestAPIWithASecret(t *testing.T) {
	s := &secrets{list: []secret.Bound{{
		Secret: secret.Secret{Name: "GH_TOKEN", For: []secret.Host{{Name: "api.github.com", Port: 443}}}, Placeholder: testStandIn,
		Value: func(context.Context) (string, error) { return testSecret, nil },
	}}}
	_, server, client := newAPILab(t, s, nil, "allow github:own/app:graphql")
	for token, status := range map[string]int{testStandIn: http.StatusOK, "ghp_another": http.StatusForbidden} {
		res, err := client.Do(apiRequest(t, graphQLURL, ourQuery, "Authorization", "bearer "+token))
		if err != nil {
			t.Fatal(err)
		}
		if got, page := answered(t, res); got != status {
			t.Errorf("%s: %d %s", token, got, page)
		}
	}
	if got := server.seen(); !slices.Equal(got, []string{"POST /graphql  bearer " + testSecret + " " + ourQuery}) {
		t.Errorf("the server got %q", got)
	}
}

// TestChangedRulesCutAPIRequests that are about a repository which the rules no longer name, and those that
// nobody judged.
func TestChangedRulesCutAPIRequests(t *testing.T) {
	l, server, client := newAPILab(t, nil, make(chan struct{}), "allow github:own/app", "allow github:own/lib")
	begin := func() io.ReadCloser {
		n := len(server.seen())
		res, err := client.Do(apiRequest(t, graphQLURL, ourQuery))
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the request", func() bool { return len(server.seen()) > n })
		return res.Body
	}
	body := begin()
	l.SetPolicy(rulesFrom(t, "allow github:own/app:read"))
	if l.open() == 0 {
		t.Error("a request that is allowed was cut")
	}
	l.SetPolicy(rulesFrom(t, "allow github:own/lib"))
	if _, err := io.ReadAll(body); err == nil {
		t.Error("a request that is forbidden now ended as if it were whole")
	}
	l.SetPolicy(rulesFrom(t, "allow api.github.com", "deny https://api.github.com/x"))
	body = begin()
	l.SetPolicy(rulesFrom(t, "allow github:own/app"))
	if _, err := io.ReadAll(body); err == nil {
		t.Error("a request that was not judged goes on")
	}
}

// TestAttackManyBodies: the bodies of a bounded number of requests are held.
func TestAttackManyBodies(t *testing.T) {
	l, server, client := newAPILab(t, nil, nil, "allow github:own/app")
	ends := make(chan error, maxBodies)
	var bodies []*io.PipeWriter
	for range maxBodies {
		body, rest := io.Pipe()
		bodies = append(bodies, rest)
		r := apiRequest(t, graphQLURL, "")
		r.Body, r.ContentLength = body, -1
		go func() {
			res, err := client.Do(r)
			if err == nil {
				err = res.Body.Close()
			}
			ends <- err
		}()
	}
	waitFor(t, "the requests", func() bool { return len(l.bodies) == maxBodies })
	ask := func() (int, string) {
		res, err := client.Do(apiRequest(t, graphQLURL, ourQuery))
		if err != nil {
			t.Fatal(err)
		}
		return answered(t, res)
	}
	if status, page := ask(); status != http.StatusForbidden || !strings.Contains(page, "try again") || len(server.seen()) > 0 {
		t.Errorf("%d %s", status, page)
	}
	for _, b := range bodies {
		b.CloseWithError(io.ErrUnexpectedEOF)
	}
	for range bodies {
		<-ends
	}
	waitFor(t, "the places", func() bool { return len(l.bodies) == 0 })
	if status, page := ask(); status != http.StatusOK {
		t.Errorf("%d %s", status, page)
	}
}
