package egress

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/secret"
)

// gitHubNodes are those of a stand-in: type and repository by ID.
var gitHubNodes = map[string][2]string{
	"I_app": {"Issue", "own/app"}, "I_lib": {"Issue", "own/lib"}, "I_evil": {"Issue", "evil/app"}, "R_app": {"Repository", "own/app"}, "R_evil": {"Repository", "evil/app"}, "PR_app": {"PullRequest", "own/app"},
}

// isQuestion reports whether a body is bawn's question about nodes.
func isQuestion(body string) bool { return strings.Contains(body, "n0: node(id: $n0)") }

// answerNodes answers bawn's question about nodes.
func answerNodes(w http.ResponseWriter, body []byte, nodes map[string][2]string) {
	var q struct{ Variables map[string]string }
	if err := json.Unmarshal(body, &q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	data := map[string]any{}
	for name, id := range q.Variables {
		data[name] = nil
		if n, ok := nodes[id]; ok {
			data[name] = map[string]any{"__typename": n[0], "nameWithOwner": n[1], "repository": map[string]any{"nameWithOwner": n[1]}}
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}

func newNodesLab(t *testing.T, s *secrets, rules ...string) (*lab, *apiServer, *http.Client) {
	l, server, client := newAPILab(t, s, nil, rules...)
	server.set(func() { server.nodes = gitHubNodes })
	return l, server, client
}

// commentOn is a mutation of a node.
func commentOn(id string) string {
	return fmt.Sprintf(`{"query":"mutation($input: AddCommentInput!) { addComment(input: $input) { commentEdge { node { url } } } }","variables":{"input":{"subjectId":%q,"body":"x"}}}`, id)
}

// headOf returns that of a request that the server got.
func (s *apiServer) headOf(i int) http.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads[i]
}

// changed returns the requests that a server got but for bawn's questions, and how many of these.
func (s *apiServer) changed() (list []string, questions int) {
	for _, r := range s.seen() {
		if isQuestion(r) {
			questions++
			continue
		}
		list = append(list, r)
	}
	return list, questions
}

// TestMutationsOfGitHub: a mutation of what is in the repository passes byte by byte, after bawn has asked where that is; with the
// rule in the log. The question has the token, and what the guest sent beside it has no part in it.
func TestMutationsOfGitHub(t *testing.T) {
	for _, http1 := range []bool{false, true} {
		s := &secrets{list: []secret.Bound{{
			Secret: secret.Secret{Name: "GH_TOKEN", For: []secret.Host{{Name: "api.github.com", Port: 443}}}, Placeholder: testStandIn,
			Value: func(context.Context) (string, error) { return testSecret, nil },
		}}}
		l, server, client := newNodesLab(t, s, "allow github:own/app", "allow github:own/lib:read")
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = !http1
		node := `{"query":"query($id: ID!) { node(id: $id) { ...on Issue { title } } }","variables":{"id":"I_lib"}}`
		for _, body := range []string{commentOn("I_app"), node, ourQuery} {
			res, err := client.Do(apiRequest(t, graphQLURL, body, "Authorization", "token "+testStandIn, "X-Github-Api-Version", "2022-11-28", "Accept-Encoding", "gzip"))
			if err != nil {
				t.Fatal(err)
			}
			if status, page := answered(t, res); status != http.StatusOK || page != "{}" {
				t.Errorf("%d %s", status, page)
			}
		}
		got, questions := server.changed()
		want := []string{}
		for _, body := range []string{commentOn("I_app"), node, ourQuery} {
			want = append(want, "POST /graphql  token "+testSecret+" "+body)
		}
		if !slices.Equal(got, want) || questions != 2 {
			t.Errorf("HTTP/1.1: %v, the server got\n%s\nand %d questions", http1, strings.Join(got, "\n"), questions)
		}
		if h := server.headOf(0); h.Get("Authorization") != "token "+testSecret || h.Get("X-Github-Api-Version") != "" || h.Get("User-Agent") != "bawn" || h.Get("Accept-Encoding") != "" {
			t.Errorf("the head of the question is %v", h)
		}
		l.Close()
		var rules []string
		for _, e := range readAll(t, l.path) {
			if e.Event == audit.EventRequest {
				rules = append(rules, e.Rule)
			}
		}
		if strings.Join(rules, ", ") != "allow github:own/app:mutations, allow github:own/app:graphql, allow github:own/app:graphql" {
			t.Errorf("log: %q", rules)
		}
	}
}

// TestAttackNodesElsewhere: nothing of a request whose nodes are not known to be in the repository reaches the server, whatever the
// server answers, and no answer about them reaches the guest.
func TestAttackNodesElsewhere(t *testing.T) {
	say := func(status int, header, text string) func(http.ResponseWriter, string) bool {
		return func(w http.ResponseWriter, _ string) bool {
			if name, value, ok := strings.Cut(header, ": "); ok {
				w.Header().Set(name, value)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
			return true
		}
	}
	ours := `{"data":{"n0":{"__typename":"Issue","repository":{"nameWithOwner":"own/app"}}}}`
	for name, step := range map[string]struct {
		body   string
		before func(http.ResponseWriter, string) bool
		say    string
	}{
		"elsewhere":             {commentOn("I_evil"), nil, `"I_evil" is not known`},
		"that may only be read": {commentOn("I_lib"), nil, `"I_lib" is not known`},
		"of another kind":       {commentOn("R_app"), nil, `"R_app" is not known`},
		"that is not there":     {commentOn("I_none"), nil, `"I_none" is not known`},
		"in the question":       {commentOn(`I_app"}}}`), nil, "is not known"},
		"a query of one":        {`{"query":"{ node(id: \"I_evil\") { ... on Issue { body } } }"}`, nil, `"I_evil" is not known`},
		"two of which one is":   {`{"query":"mutation { a: addComment(input: {subjectId: \"I_app\", body: \"x\"}) { clientMutationId } b: addComment(input: {subjectId: \"I_evil\", body: \"x\"}) { clientMutationId } }"}`, nil, `"I_evil" is not known`},
		"no permission":         {commentOn("I_app"), say(401, "", ours), "the status 401"},
		"too many requests":     {commentOn("I_app"), say(429, "", ours), "the status 429"},
		"another place":         {commentOn("I_app"), say(302, "Location: https://evil.test/", ours), "the status 302"},
		"an unknown coding":     {commentOn("I_app"), say(200, "Content-Encoding: br", ours), "the status 200"},
		"too long an answer":    {commentOn("I_app"), say(200, "", ours+strings.Repeat(" ", 1<<20)), "could not be asked"},
		"half an answer":        {commentOn("I_app"), say(200, "Content-Length: 9999", ours), "could not be asked"},
		"no JSON":               {commentOn("I_app"), say(200, "", "<html>"), "not understood"},
		"two answers":           {commentOn("I_app"), say(200, "", ours+ours), "not understood"},
		"an error":              {commentOn("I_app"), say(200, "", `{"errors":[{"message":"the-servers-words"}]}`), "not understood"},
	} {
		_, server, client := newNodesLab(t, nil, "allow github:own/app", "allow github:own/lib:read")
		server.set(func() { server.before = step.before })
		res, err := client.Do(apiRequest(t, graphQLURL, step.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		status, page := answered(t, res)
		got, _ := server.changed()
		if status != http.StatusForbidden || !strings.Contains(page, step.say) || res.Header.Get("X-Bawn") != "denied" || len(got) > 0 || strings.Contains(page, "evil/app") || strings.Contains(page, "servers-words") {
			t.Errorf("%s: %d %q; the server got %q", name, status, page, got)
		}
	}
	_, server, client := newNodesLab(t, nil, "allow github:own/app:read")
	res, err := client.Do(apiRequest(t, graphQLURL, commentOn("I_app")))
	if err != nil {
		t.Fatal(err)
	}
	if status, page := answered(t, res); status != http.StatusForbidden || !strings.Contains(page, "the rules only read") || len(server.seen()) > 0 {
		t.Errorf("by a rule that reads: %d %s; the server got %q", status, page, server.seen())
	}
}

// TestCodeHostOfOnesOwn: at a GitHub Enterprise Server with a private address, what the rule names passes, and nothing else there.
func TestCodeHostOfOnesOwn(t *testing.T) {
	const api = "https://code.corp.example/api/"
	l, server, client := newNodesLab(t, nil, "allow private:github:code.corp.example/own/app")
	l.serve("code.corp.example", "10.9.8.7:443", server.addr())
	issue := `{"title":"x"}`
	for _, r := range []*http.Request{apiRequest(t, api+"graphql", commentOn("I_app")), apiRequest(t, api+"v3/repos/own/app/issues", issue), apiRequest(t, "GET "+api+"v3/user", "")} {
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if status, page := answered(t, res); status != http.StatusOK || page != "{}" {
			t.Errorf("%s: %d %s", r.URL, status, page)
		}
	}
	want := []string{"POST /api/graphql   " + commentOn("I_app"), "POST /api/v3/repos/own/app/issues   " + issue, "GET /api/v3/user   "}
	if got, questions := server.changed(); !slices.Equal(got, want) || questions != 1 {
		t.Errorf("the server got %q and %d questions", got, questions)
	}
	for _, r := range []*http.Request{
		apiRequest(t, api+"graphql", commentOn("I_evil")), apiRequest(t, api+"v3/repos/evil/app/issues", issue), apiRequest(t, "GET "+api+"v3/user/keys", ""), apiRequest(t, api+"v3/graphql", ourQuery),
		apiRequest(t, "GET https://code.corp.example/own/app", ""), apiRequest(t, "https://code.corp.example/graphql", ourQuery), apiRequest(t, api+"%67raphql", commentOn("I_evil")),
	} {
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if isJSON := strings.HasPrefix(res.Header.Get("Content-Type"), "application/json"); isJSON != strings.HasPrefix(r.URL.Path, "/api/") {
			t.Errorf("%s: the refusal is of the type %s", r.URL, res.Header.Get("Content-Type"))
		}
		if status, page := answered(t, res); status != http.StatusForbidden || res.Header.Get("X-Bawn") != "denied" {
			t.Errorf("%s: %d %s", r.URL, status, page)
		}
	}
	if got, _ := server.changed(); len(got) != len(want) {
		t.Errorf("the server got %q", got)
	}
}

// TestAttackRulesThatChangeMeanwhile: the rules in force when the server has answered decide, and later ones cut a mutation that they
// no longer allow.
func TestAttackRulesThatChangeMeanwhile(t *testing.T) {
	both := `{"query":"{ repository(owner: \"own\", name: \"lib\") { id } node(id: \"I_app\") { ... on Issue { body } } }"}`
	for _, step := range []struct{ body, after, say string }{
		{commentOn("I_app"), "allow github:own/app:read", "is not known"},
		{commentOn("I_app"), "allow github:own/app:graphql", "is not known"},
		{commentOn("I_app"), "allow GET https://api.github.com/x", "no rule allows"},
		{both, "allow github:own/app:read", "the rules have changed"},
		{both, "allow github:own/lib:read", "is not known"},
	} {
		l, server, client := newNodesLab(t, nil, "allow github:own/app", "allow github:own/lib:read")
		server.set(func() {
			server.before = func(http.ResponseWriter, string) bool {
				l.SetPolicy(rulesFrom(t, step.after))
				return false
			}
		})
		res, err := client.Do(apiRequest(t, graphQLURL, step.body))
		status, page := http.StatusForbidden, step.say
		if err == nil { // else the rules have cut the connection
			status, page = answered(t, res)
		}
		if got, questions := server.changed(); status != http.StatusForbidden || !strings.Contains(page, step.say) || len(got) > 0 || questions != 1 {
			t.Errorf("then %s: %d %s; the server got %q and %d questions", step.after, status, page, got, questions)
		}
	}

	gate := make(chan struct{})
	l, server, client := newNodesLab(t, nil, "allow github:own/app")
	server.set(func() {
		server.after = func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
	})
	res, err := client.Do(apiRequest(t, graphQLURL, commentOn("I_app")))
	if err != nil {
		t.Fatal(err)
	}
	l.SetPolicy(rulesFrom(t, "allow github:own/app", "deny evil.test"))
	if l.open() == 0 {
		t.Error("a mutation that is allowed was cut")
	}
	l.SetPolicy(rulesFrom(t, "allow github:own/app:read"))
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a mutation that is forbidden now ended as if it were whole")
	}
	res.Body.Close()
	close(gate)
}

// TestGitLabOfOnesOwn: at a GitLab with a private address, queries about the project pass; where rules call the server a GitHub as
// well, none does.
func TestGitLabOfOnesOwn(t *testing.T) {
	const url = "https://code.corp.example/api/graphql"
	l, server, client := newAPILab(t, nil, nil, "allow private:gitlab:code.corp.example/own/app:read")
	l.serve("code.corp.example", "10.9.8.7:443", server.addr())
	ask := func(body string) (int, string) {
		t.Helper()
		res, err := client.Do(apiRequest(t, url, body))
		if err != nil {
			t.Fatal(err)
		}
		return answered(t, res)
	}
	if status, page := ask(ourProject); status != http.StatusOK || page != "{}" {
		t.Errorf("%d %s", status, page)
	}
	if status, page := ask(ourQuery); status != http.StatusForbidden || !strings.Contains(page, `ask for project(fullPath: "own/app")`) {
		t.Errorf("%d %s", status, page)
	}
	l.SetPolicy(rulesFrom(t, "allow private:gitlab:code.corp.example/own/app", "allow private:github:code.corp.example/own/app"))
	for _, body := range []string{ourProject, ourQuery, `{"query":"{__typename}"}`} {
		if status, page := ask(body); status != http.StatusForbidden || !strings.Contains(page, "rules github: and rules gitlab: say two things") {
			t.Errorf("%s: %d %s", body, status, page)
		}
	}
	if got := server.seen(); !slices.Equal(got, []string{"POST /api/graphql   " + ourProject}) {
		t.Errorf("the server got %q", got)
	}
}
