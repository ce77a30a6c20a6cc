package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestGitHubRules(t *testing.T) {
	s := set(t, "allow github:own/app", "allow GitHub:own/lib.git:Read", "allow github.com:443")
	for text, want := range map[string]bool{
		"GET https://api.github.com/repos/own/app":                          true,
		"GET https://api.github.com/repos/own/app/issues?state=open&page=2": true,
		"GET https://api.github.com/repos/own/app/contents/a/b.go":          true,
		"GET https://api.github.com/user":                                   true,
		"GET https://api.github.com/repos/own/app/actions/runs/3/jobs":      true,
		"GET https://api.github.com/repos/own/app/pulls/7/files":            true,
		"GET https://api.github.com/repos/own/app/issues/7/comments":        true,
		"GET https://api.github.com/repos/own/app/issues/comments/3":        true,

		"GET https://api.github.com/repos/own/app/issues/7/timeline":                false,
		"GET https://api.github.com/repos/own/app/issues/7/events":                  false,
		"GET https://api.github.com/repos/own/app/issues/7/sub_issues":              false,
		"GET https://api.github.com/repos/own/app/issues/7/parent":                  false,
		"GET https://api.github.com/repos/own/app/issues/7/dependencies/blocked_by": false,
		"GET https://api.github.com/repos/own/app/events":                           false,
		"GET https://api.github.com/repos/own/app/forks":                            false,
		"GET https://api.github.com/repos/own/app/hooks":                            false,
		"GET https://api.github.com/repos/own/app/keys":                             false,
		"GET https://api.github.com/repos/own/app/codespaces":                       false,
		"GET https://api.github.com/repos/own/app/notifications":                    false,
		"GET https://api.github.com/repos/own/app/actions/variables":                false,
		"GET https://api.github.com/repos/own/app/actions/organization-variables":   false,
		"GET https://api.github.com/repos/own/app/environments/x/variables":         false,
		"POST https://api.github.com/repos/own/app/issues":                          true,
		"POST https://api.github.com/repos/own/app/issues/7/comments":               true,
		"PATCH https://api.github.com/repos/own/app/pulls/7":                        true,
		"POST https://api.github.com/repos/own/app/pulls":                           true,
		"GET https://api.github.com/repos/own/lib/pulls":                            true,

		"POST https://api.github.com/repos/own/lib/issues":                         false,
		"DELETE https://api.github.com/repos/own/app":                              false,
		"PATCH https://api.github.com/repos/own/app":                               false,
		"POST https://api.github.com/repos/own/app/forks":                          false,
		"POST https://api.github.com/repos/own/app/keys":                           false,
		"POST https://api.github.com/repos/own/app/hooks":                          false,
		"PUT https://api.github.com/repos/own/app/collaborators/x":                 false,
		"PUT https://api.github.com/repos/own/app/contents/a":                      false,
		"PATCH https://api.github.com/repos/own/app/git/refs/heads/main":           false,
		"POST https://api.github.com/repos/own/app/merges":                         false,
		"PUT https://api.github.com/repos/own/app/pulls/7/merge":                   false,
		"POST https://api.github.com/repos/own/app/pulls/7/reviews":                false,
		"POST https://api.github.com/repos/own/app/actions/workflows/1/dispatches": false,
		"POST https://api.github.com/repos/own/app/transfer":                       false,
		"POST https://api.github.com/repos/own/app/issues/../forks":                false,
		"POST https://api.github.com/repos/own/app/issues/7%2Fcomments":            false,
		"GET https://api.github.com/repos/own/other":                               false,
		"GET https://api.github.com/repos/Own/app":                                 false,
		"GET https://api.github.com/repos/own/app2":                                false,
		"GET https://api.github.com/repos/own":                                     false,
		"GET https://api.github.com/repositories/1":                                false,
		"GET https://api.github.com/user/keys":                                     false,
		"GET https://api.github.com/user/repos":                                    false,
		"PATCH https://api.github.com/user":                                        false,
		"POST https://api.github.com/user/keys":                                    false,
		"POST https://api.github.com/gists":                                        false,
		"GET https://api.github.com/gists":                                         false,
		"GET https://api.github.com/users/own":                                     false,
		"GET https://api.github.com/search/code?q=x":                               false,
		"GET https://api.github.com/":                                              false,
		"GET http://api.github.com/repos/own/app":                                  false,
		"GET https://uploads.github.com/repos/own/app":                             false,
	} {
		if d := decideRequest(t, s, text); d.Allow != want {
			t.Errorf("%s: %+v, want %v", text, d, want)
		}
	}
	for text, want := range map[string]string{
		"github:own/app": "github:own/app", "GITHUB:Own/App.git:READ": "github:Own/App:read", "github:443": "github:443",
	} {
		if got, err := Canonical(Allow, text); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"github:own/", "github:/app", "github:own/app/issues", "github:own/..", "github:own/.", "github:own/*", "github:*/app", "github:own/a%2Fb",
		"github:own/app:push=main", "github:own/app:", "github:own/" + strings.Repeat("a", 101), "github:own/app.git.git", "github:own/app?x",
	} {
		if got, err := Canonical(Allow, text); err == nil {
			t.Errorf("%s: %q", text, got)
		}
	}
	if _, err := Canonical(Deny, "github:own/app"); err == nil {
		t.Error("a deny rule was taken")
	}
	if x, err := ExposureOf("github:own/app", Host{}); err != nil || !strings.Contains(x.Text, "own/app, to read it, and to write its issues") {
		t.Errorf("%+v, %v", x, err)
	}
}

// TestJudgedRequests: what method and path do not tell is left to the body, unless another rule allows it
// anyway, and a deny rule wins.
func TestJudgedRequests(t *testing.T) {
	graphql, note := "POST https://api.github.com/graphql", "POST https://gitlab.com/api/v4/projects/own%2fteam%2Fapp/issues/7/notes"
	s := set(t, "allow github:own/app:read", "allow github:own/lib:graphql", "allow github:own/app", "allow gitlab:own/team/app")
	d := decideRequest(t, s, graphql)
	if !d.Allow || d.Body == nil || d.Body.Kind != GraphQLQuery || strings.Join(d.Body.Repositories, " ") != "own/app own/lib" || strings.Join(d.Body.Writable, " ") != "own/app" ||
		d.RuleText() != "allow github:own/app:graphql" || !strings.Contains(d.Reason, "if its body is a query of GraphQL about own/app or own/lib and nothing else, or a mutation of issues and pull requests of own/app") {
		t.Errorf("%+v, %+v", d, d.Body)
	}
	if !d.Body.Covers([]string{"own/lib"}, nil) || d.Body.Covers([]string{"own/lib", "own/other"}, nil) || !d.Body.Covers([]string{"own/lib"}, []string{"own/app"}) || d.Body.Covers(nil, []string{"own/lib"}) {
		t.Error("covers")
	}
	if r := d.Body.RuleFor(true); r.String() != "allow github:own/app:mutations" || d.Body.RuleFor(false) != d.Rule {
		t.Errorf("%v", r)
	}
	for _, rule := range []string{"allow github:own/app:read", "allow github:own/app:graphql"} {
		if d := decideRequest(t, set(t, rule), graphql); !d.Allow || len(d.Body.Writable) > 0 || !strings.HasSuffix(d.Reason, "about own/app and nothing else") {
			t.Errorf("%s: %+v, %+v", rule, d, d.Body)
		}
	}
	if d := decideRequest(t, set(t, "allow github:own/app:mutations"), graphql); !d.Allow || len(d.Body.Repositories) > 0 || d.Body.RuleFor(false).String() != "allow github:own/app:mutations" || !strings.HasSuffix(d.Reason, "is a mutation of GraphQL of issues and pull requests of own/app") {
		t.Errorf("%+v, %+v", d, d.Body)
	}
	if d := decideRequest(t, s, note); !d.Allow || d.Body == nil || d.Body.Kind != GitLabText || d.RuleText() != "allow gitlab:own/team/app:write" {
		t.Errorf("%+v", d)
	}
	if d := decideRequest(t, s, "GET https://api.github.com/repos/own/lib"); d.Allow {
		t.Errorf("%+v", d)
	}
	for _, text := range []string{"GET https://api.github.com/graphql", graphql + "?query=x", "PUT https://api.github.com/graphql", graphql + "/x", note + "?body=x"} {
		if d := decideRequest(t, s, text); d.Allow {
			t.Errorf("%s: %+v", text, d)
		}
	}
	wide := set(t, "allow github:own/app", "allow gitlab:own/team/app", "allow api.github.com", "allow POST https://gitlab.com/api/**")
	for _, text := range []string{graphql, note} {
		if d := decideRequest(t, wide, text); !d.Allow || d.Body != nil {
			t.Errorf("%s: %+v", text, d)
		}
	}
	denied := set(t, "allow github:own/app", "allow gitlab:own/team/app", "deny https://api.github.com/GraphQL", "deny https://gitlab.com/api/v4/projects/own%2Fteam%2Fapp/issues/**")
	for _, text := range []string{graphql, note} {
		if d := decideRequest(t, denied, text); d.Allow || d.Body != nil || !strings.HasPrefix(d.RuleText(), "deny") {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

// TestGitLabQueries: each part of a rule opens queries or does not, and none mutations.
func TestGitLabQueries(t *testing.T) {
	const graphql = "POST https://gitlab.com/api/graphql"
	for rule, opens := range map[string]bool{"gitlab:own/team/app": true, "gitlab:own/team/app:read": true, "gitlab:own/team/app:graphql": true, "gitlab:own/team/app:rest": false, "gitlab:own/team/app:write": false} {
		d := decideRequest(t, set(t, "allow "+rule), graphql)
		if d.Allow != opens || opens && (d.Body.Kind != GitLabQuery || len(d.Body.Writable) > 0 || d.RuleText() != "allow gitlab:own/team/app:graphql" || !strings.HasSuffix(d.Reason, "is a query of GraphQL about own/team/app and nothing else")) {
			t.Errorf("%s: %+v, %+v", rule, d, d.Body)
		}
	}
	if d := decideRequest(t, set(t, "allow gitlab:own/team/app:graphql"), "GET https://gitlab.com/api/v4/projects/own%2Fteam%2Fapp"); d.Allow {
		t.Errorf("%+v", d)
	}
	if d := decideRequest(t, set(t, "allow gitlab:own/team/app", "deny https://gitlab.com/api/GraphQL"), graphql); d.Allow {
		t.Errorf("%+v", d)
	}
}

// TestAttackServerOfTwoServices: rules that call a server both a GitHub and a GitLab let no query pass, in any order.
func TestAttackServerOfTwoServices(t *testing.T) {
	rules := []string{"allow github:code.corp.example/own/app", "allow gitlab:code.corp.example/own/app", "allow github:code.corp.example/own/lib:read"}
	for range 6 {
		rules = append(rules[1:], rules[0])
		d := decideRequest(t, set(t, rules...), "POST https://code.corp.example/api/graphql")
		if d.Body == nil || d.Body.Kind != ConflictingBodies || !strings.Contains(d.Reason, "remove one") {
			t.Errorf("%q: %+v, %+v", rules, d, d.Body)
		}
		rules[0], rules[1] = rules[1], rules[0]
	}
}

// TestAttackSuggestionsPastTheJudge: no rule is suggested or proposed by which what is judged by its body would pass
// unjudged. The guest chooses the requests that are denied.
func TestAttackSuggestionsPastTheJudge(t *testing.T) {
	const gitlab = "https://gitlab.com/api/v4/projects/own%2Fapp/"
	for _, rules := range [][]string{{"allow github:own/app", "allow gitlab:own/app", "allow git:code.test/own/app:read", "allow github:code.corp.example/own/app"}, {"allow GET https://api.github.com/x", "allow GET https://gitlab.com/x"}} {
		s := set(t, rules...)
		var list []Request
		for _, text := range []string{
			"POST " + gitlab + "issues/7/notes?body=x", "PUT " + gitlab + "merge_requests/7?title=x", "GET " + gitlab + "merge_requests/7?render_html=1", "POST https://api.github.com/graphql?query=x",
			"PUT https://api.github.com/%67raphql", "POST https://api.github.com/GraphQL/?x", "POST https://code.corp.example/api/%67raphql?x", "GET https://code.corp.example/api/graphql",
			"POST https://code.corp.example/api/a", "POST https://code.corp.example/api/b", "POST https://code.corp.example/api/c",
			"POST " + gitlab + "issues/7/move", "POST " + gitlab + "issues/7/clone", "POST " + gitlab + "issues/7/links",
			"POST https://api.github.com/a", "POST https://api.github.com/b", "POST https://api.github.com/c", "POST https://gitlab.com/api/a", "POST https://gitlab.com/api/b", "POST https://gitlab.com/api/c",
			"POST https://code.test/own/app.git/a", "POST https://code.test/own/app.git/b", "POST https://code.test/own/app.git/c",
		} {
			q, _, err := ParseRequest(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.SuggestRequest(q); q.Query != "" && got != "" && len(rules) > 2 {
				t.Errorf("%s: the suggestion %q", text, got)
			}
			list = append(list, q)
		}
		proposed := s.ProposeRequests(list)
		if len(proposed) == 0 {
			t.Fatal("nothing is proposed")
		}
		for _, rule := range proposed {
			after := set(t, append(slices.Clone(rules), "allow "+rule)...)
			for _, text := range []string{"POST https://api.github.com/graphql", "POST https://gitlab.com/api/graphql", "POST https://code.corp.example/api/graphql"} {
				if strings.Contains(text, "corp.example") && len(rules) <= 2 {
					continue // nothing says that a code host is there
				}
				if d := decideRequest(t, after, text); d.Allow && d.Body == nil {
					t.Errorf("with the proposal %q: %s passes unjudged", rule, text)
				}
			}
			for _, text := range []string{"POST " + gitlab + "issues/7/notes", "PUT " + gitlab + "merge_requests/7", "GET " + gitlab + "merge_requests/7"} {
				if d := decideRequest(t, after, text); len(rules) > 2 && d.Body == nil {
					t.Errorf("with the proposal %q: %s passes unjudged", rule, text)
				}
			}
			if d := decideRequest(t, after, "POST https://code.test/own/app.git/git-receive-pack"); len(rules) > 2 && d.Allow {
				t.Errorf("with the proposal %q: a push passes", rule)
			}
		}
	}
}

// TestCodeHostsAreOneHostEach: the requests of a judged rule are of one host and scheme, for which it
// stands among the rules.
func TestCodeHostsAreOneHostEach(t *testing.T) {
	for _, h := range codeHosts {
		for _, server := range []string{h.host, "code.example.org", "corp.ghe.com"} {
			api, graphQL := h.at(server)
			for _, url := range []string{api, graphQL} {
				if _, authority, _, err := cutURL(url); err != nil || "https://"+authority != strings.Join(strings.SplitAfter(api, "/")[:3], "") && "https://"+authority+"/" != strings.Join(strings.SplitAfter(api, "/")[:3], "") {
					t.Errorf("%s at %s: %s, %s", h.name, server, api, graphQL)
				}
			}
		}
		for _, j := range h.judged {
			for _, text := range j.requests {
				if _, url := cutMethods(text); !strings.HasPrefix(url, "{api}/") && url != "{graphql}" {
					t.Errorf("%s: %s", h.name, text)
				}
			}
		}
	}
}

func TestGitLabRules(t *testing.T) {
	const base = " https://gitlab.com/api/v4/projects/own%2Fteam%2Fapp"
	s := set(t, "allow gitlab:own/team/app", "allow GitLab:own/lib.git:Read")
	for text, want := range map[string]bool{
		"GET" + base: true, "GET" + base + "/issues?state=opened&per_page=5": true, "GET" + base + "/issues/7": true, "GET" + base + "/issues/7/notes/3": true,
		"HEAD" + base + "/merge_requests": true, "GET" + base + "/merge_requests/7/diffs": true, "GET" + base + "/repository/files/a%2Fb%2Ec/raw?ref=main": true,
		"GET" + base + "/repository/tree?path=a": true, "GET" + base + "/jobs/9/trace": true, "GET" + base + "/members/all": true,
		"GET https://gitlab.com/api/v4/user": true, "GET https://gitlab.com/api/v4/projects/own%2flib/issues": true, "GET https://gitlab.com/api/v4/projects/o%77n%2Flib": true,
		"POST" + base + "/issues": true, "PUT" + base + "/issues/7": true, "POST" + base + "/issues/7/notes": true, "PUT" + base + "/merge_requests/7/discussions/ab": true,
		"POST" + base + "/merge_requests": true, "PUT" + base + "/merge_requests/7": true, "DELETE" + base + "/merge_requests/7/notes/3": true,
		"POST https://gitlab.com/api/graphql": true,

		"POST https://gitlab.com/api/v4/projects/own%2Flib/issues": false,
		"POST" + base + "/issues?description=x":                    false,
		"DELETE" + base + "/issues/7":                              false, "POST" + base + "/issues/7/move": false, "POST" + base + "/issues/7/clone": false, "POST" + base + "/issues/7/links": false,
		"GET" + base + "/issues/7/links": false, "GET" + base + "/issues/7/related_merge_requests": false, "GET" + base + "/merge_requests/7/closes_issues": false,
		"PUT" + base + "/merge_requests/7/merge": false, "PUT" + base + "/merge_requests/7/rebase": false, "POST" + base + "/merge_requests/7/approve": false,
		"PUT" + base: false, "DELETE" + base: false, "POST" + base + "/fork": false, "GET" + base + "/forks": false, "GET" + base + "/snippets": false, "POST" + base + "/snippets": false,
		"GET" + base + "/variables": false, "GET" + base + "/pipelines/3/variables": false, "GET" + base + "/access_tokens": false, "GET" + base + "/deploy_keys": false, "GET" + base + "/triggers": false,
		"GET" + base + "/hooks": false, "POST" + base + "/hooks": false, "POST" + base + "/uploads": false, "GET" + base + "/export/download": false, "POST" + base + "/share": false,
		"POST" + base + "/repository/commits": false, "PUT" + base + "/repository/files/a": false, "GET" + base + "/repository/compare?from_project_id=1": false, "POST" + base + "/pipeline": false,
		"GET https://gitlab.com/api/v4/projects/7/issues": false, "GET https://gitlab.com/api/v4/projects": false, "GET https://gitlab.com/api/v4/projects/own%2Fteam%2Fother": false,
		"GET https://gitlab.com/api/v4/projects/own%2FTeam%2Fapp": false, "GET https://gitlab.com/api/v4/projects/own%2Fteam%2Fapp2": false, "GET https://gitlab.com/api/v4/projects/own%2Fteam": false,
		"GET https://gitlab.com/api/v4/projects/own/team/app/issues": false, "GET https://gitlab.com/api/v4/projects/own%2Fteam/app": false, "GET https://gitlab.com/api/v4/projects/own%252Fteam%252Fapp": false,
		"GET https://gitlab.com/api/v4/projects/own%2F%2Fteam%2Fapp": false, "GET https://gitlab.com/api/v4/projects/own%2Fteam%2F..%2Fapp": false, "GET https://gitlab.com/api/v4/projects/own%5Cteam%5Capp": false,
		"GET https://gitlab.com/api/v4/projects/own%2Fteam%2Fapp%2Fissues": false, "GET https://gitlab.com/api/v4/projects/own%2Fteam%2Fapp;x": false, "GET https://gitlab.com/api/v4/projects/own%EF%BC%8Fteam%2Fapp": false,
		"GET" + base + "/issues/7%2F..%2Fx": false, "GET" + base + "/issues/..%2F..%2Fother": false, "GET" + base + "/issues/7%2Fnotes": false,
		"GET https://gitlab.com/api/v4/groups/own": false, "GET https://gitlab.com/api/v4/user/keys": false, "GET https://gitlab.com/api/v4/personal_access_tokens": false, "GET https://gitlab.com/api/v4/snippets": false,
		"GET https://gitlab.com/api/v4/issues": false, "GET https://gitlab.com/api/v4/search?scope=blobs": false, "POST https://gitlab.com/api/v4/user/keys": false,
		"GET https://gitlab.com/api/graphql": false, "GET https://gitlab.com/api/graphql?query=x": false, "POST https://gitlab.com/api/graphql?query=x": false, "PUT https://gitlab.com/api/graphql": false,
		"POST https://gitlab.com/api/graphql/x": false, "POST https://gitlab.com/api/v4/graphql": false, "POST https://gitlab.com/graphql": false, "POST https://gitlab.com/api/graphql.json": false, "POST https://gitlab.com/api/GraphQL": false,
		"GET https://gitlab.com/own/team/app": false, "GET http://gitlab.com/api/v4/user": false,
	} {
		if d := decideRequest(t, s, text); d.Allow != want {
			t.Errorf("%s: %+v, want %v", text, d, want)
		}
	}
	for text, say := range map[string]string{
		"GET https://gitlab.com/api/v4/projects/7/issues": "a project's number does not say which project it is",
		"GET https://gitlab.com/api/graphql":              "a rule gitlab:GROUP/PROJECT allows POST of queries",
		"POST https://gitlab.com/api/graphql?query=x":     "only without a query",
		"GET https://api.github.com/graphql":              "a rule github:OWNER/REPO allows POST",
		"POST" + base + "/issues?title=x":                 "as JSON in the body",
		"GET" + base + "/variables":                       "no rule allows this request",
	} {
		s := set(t, "allow gitlab:own/team/app", "allow github:own/app")
		q, _, err := ParseRequest(text)
		if d := s.DecideRequest(q); err != nil || d.Allow || !strings.Contains(d.Reason, say) {
			t.Errorf("%s: %+v, %v", text, d, err)
		}
		if got := s.SuggestRequest(q); strings.HasSuffix(q.Path, "graphql") && got != "" {
			t.Errorf("%s: the suggestion %q opens every query", text, got)
		}
	}
	for text, want := range map[string]string{
		"gitlab:own/app": "gitlab:own/app", "GITLAB:Own/sub/App.git:READ": "gitlab:Own/sub/App:read", "gitlab:a.b/app:Write": "gitlab:a.b/app:write", "gitlab:own/app:GraphQL": "gitlab:own/app:graphql", "gitlab:own/app:rest": "gitlab:own/app:rest", "gitlab:443": "gitlab:443",
	} {
		if got, err := Canonical(Allow, text); err != nil || got != want {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"gitlab:own/", "gitlab:/app", "gitlab:own//app", "gitlab:own/..", "gitlab:own/./app", "gitlab:own/*", "gitlab:own%2Fapp/x", "gitlab:own/-app", "gitlab:own/app:push=main",
		"gitlab:own/app:mutations", "github:own/app:rest", "github:own/app:write", "gitlab:own/app.git.git", "gitlab:own/" + strings.Repeat("a", 256),
	} {
		if got, err := Canonical(Allow, text); err == nil {
			t.Errorf("%s: %q", text, got)
		}
	}
	if _, err := Canonical(Deny, "gitlab:own/app"); err == nil || !strings.Contains(err.Error(), "deny https://gitlab.com/api/v4/projects/own%2Fapp/**") {
		t.Errorf("a deny rule: %v", err)
	}
	if x, err := ExposureOf("gitlab:own/app:write", Host{}); err != nil || !strings.Contains(x.Text, "own/app, only to write its issues") {
		t.Errorf("%+v, %v", x, err)
	}
}

// TestCodeHostsOfOnesOwn: a rule may name the server, whose APIs are then meant and no others.
func TestCodeHostsOfOnesOwn(t *testing.T) {
	s := set(t, "allow github:code.corp.example/own/app", "allow github:corp.ghe.com/own/app:read", "allow private:gitlab:Git.corp.example:8443/team/a.b/app", "allow github:own/lib")
	for text, want := range map[string]bool{
		"GET https://code.corp.example/api/v3/repos/own/app/issues":                        true,
		"GET https://code.corp.example/api/v3/user":                                        true,
		"POST https://code.corp.example/api/v3/repos/own/app/issues":                       true,
		"POST https://code.corp.example/api/graphql":                                       true,
		"GET https://api.corp.ghe.com/repos/own/app":                                       true,
		"POST https://api.corp.ghe.com/graphql":                                            true,
		"GET https://git.corp.example:8443/api/v4/projects/team%2Fa.b%2Fapp/issues":        true,
		"POST https://git.corp.example:8443/api/v4/projects/team%2Fa.b%2Fapp/issues":       true,
		"GET https://api.github.com/repos/own/lib":                                         true,
		"GET https://api.github.com/repos/own/app":                                         false,
		"GET https://code.corp.example/api/v3/repos/own/lib":                               false,
		"GET https://code.corp.example/repos/own/app":                                      false,
		"GET https://code.corp.example/graphql":                                            false,
		"POST https://code.corp.example/graphql":                                           false,
		"POST https://code.corp.example/api/v3/graphql":                                    false,
		"GET https://code.corp.example/own/app":                                            false,
		"GET https://code.corp.example:8443/api/v3/user":                                   false,
		"GET http://code.corp.example/api/v3/user":                                         false,
		"POST https://api.corp.ghe.com/repos/own/app/issues":                               false,
		"GET https://corp.ghe.com/api/v3/user":                                             false,
		"GET https://git.corp.example/api/v4/projects/team%2Fa.b%2Fapp/issues":             false,
		"GET https://gitlab.com/api/v4/projects/team%2Fa.b%2Fapp/issues":                   false,
		"POST https://git.corp.example:8443/api/graphql":                                   true,
		"POST https://git.corp.example/api/graphql":                                        false,
		"POST https://gitlab.com/api/graphql":                                              false,
		"GET https://git.corp.example:8443/api/v4/projects/7/issues":                       false,
		"GET https://git.corp.example:8443/api/v4/projects/team%2Fa.b%2Fapp/issues/7/move": false,
	} {
		if d := decideRequest(t, s, text); d.Allow != want {
			t.Errorf("%s: %+v, want %v", text, d, want)
		}
	}
	for text, want := range map[string]string{"POST https://api.corp.ghe.com/graphql": "own/app", "POST https://api.github.com/graphql": "own/lib", "POST https://code.corp.example/api/graphql": "own/app", "POST https://git.corp.example:8443/api/graphql": "team/a.b/app"} {
		if d := decideRequest(t, s, text); d.Body == nil || strings.Join(d.Body.Repositories, " ") != want || (len(d.Body.Writable) == 0) != (strings.Contains(text, "ghe.com") || strings.Contains(text, "git.corp")) {
			t.Errorf("%s: %+v", text, d.Body)
		}
	}
	for text, say := range map[string]string{
		"GET https://git.corp.example:8443/api/graphql":              "a rule gitlab:GROUP/PROJECT allows POST of queries",
		"GET https://git.corp.example:8443/api/v4/projects/7/issues": "a project's number",
		"GET https://code.corp.example/api/graphql":                  "a rule github:OWNER/REPO allows POST",
	} {
		if d := decideRequest(t, s, text); !strings.Contains(d.Reason, say) {
			t.Errorf("%s: %q", text, d.Reason)
		}
	}
	for text, want := range map[string]bool{
		"GET https://git.corp.example:8443/api/v4/x": true, "GET https://git.corp.example:8443/team/app.git/info/refs": false, "GET https://code.corp.example/api/v3/x": true, "GET https://api.github.com/x": true,
		"GET https://gitlab.com/api/v4/x": true, "GET https://gitlab.com/own/app.git/info/refs": false, "GET https://other.example/api/v4/x": false, "GET https://api.other.example/x": false,
	} {
		if q, _, err := ParseRequest(text); err != nil || s.IsAPI(q) != want {
			t.Errorf("%s: %v, %v", text, s.IsAPI(q), err)
		}
	}
	for _, f := range []Flow{{Name: "git.corp.example", Port: 8443, Proto: TCP}, {Name: "code.corp.example", Port: 443, Proto: TCP}} {
		if d := s.Decide(f); !d.Allow || !d.Requests || d.Private != (f.Port == 8443) {
			t.Errorf("%+v: %+v", f, d)
		}
	}
	for text, want := range map[string]string{
		"GitHub:Code.Corp.Example:443/own/app:Read":  "github:code.corp.example/own/app:read",
		"Private:github:ghe.lan/own/app.git":         "private:github:ghe.lan/own/app",
		"github:github.com/own/app":                  "github:own/app",
		"gitlab:gitlab.com/own/app":                  "gitlab:own/app",
		"gitlab:gitlab.com/a.b/c/app":                "gitlab:gitlab.com/a.b/c/app",
		"gitlab:a.b/app":                             "gitlab:a.b/app",
		"gitlab:gitlab:8443/own/app":                 "gitlab:gitlab:8443/own/app",
		"gitlab:gitlab.example.org/own/sub/app:read": "gitlab:gitlab.example.org/own/sub/app:read",
		"github:code.corp.example/own/app:mutations": "github:code.corp.example/own/app:mutations",
	} {
		got, err := Canonical(Allow, text)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v, not %q", text, got, err, want)
		}
		if again, err := Canonical(Allow, got); err != nil || again != got {
			t.Errorf("%s: %q again, %v", got, again, err)
		}
		for _, r := range set(t, "allow "+got).rules {
			if one, err := ParseRule(Allow, r.Text); err != nil || len(one) != 1 || one[0].Text != r.Text || !slices.Equal(one[0].labels, r.labels) || one[0].private != r.private || !slices.Equal(one[0].ports, r.ports) {
				t.Errorf("%s: the rule %q is read as %+v, %v", got, r.Text, one, err)
			}
		}
	}
	for _, text := range []string{
		"private:github:own/app", "private:gitlab:gitlab.com/own/app", "github:api.github.com/own/app", "github:a.b/app", "github:*.corp.example/own/app", "github:10.0.0.5/own/app", "github:10.0.0.5:443/own/app",
		"github:code.corp.example:0/own/app", "github:code.corp.example:443,444/own/app", "github:user@code.corp.example/own/app", "github:code.corp.example/own/app/x", "github:code.corp.example//app",
		"github:localhost:8443/own/app", "github:bawn.internal/own/app", "gitlab:gitlab.bawn.internal/own/app", "gitlab:co..uk/own/app", "github:https://code.corp.example/own/app", "gitlab:https://gitlab.com/own/app", "udp:github:code.corp.example/own/app",
		"github:[::1]:443/own/app",
	} {
		if got, err := Canonical(Allow, text); err == nil {
			t.Errorf("%s: %q", text, got)
		}
	}
	if _, err := Canonical(Deny, "private:gitlab:git.corp.example/own/app"); err == nil || !strings.Contains(err.Error(), "deny https://git.corp.example/api/v4/projects/own%2Fapp/**") {
		t.Errorf("a deny rule: %v", err)
	}
	if x, err := ExposureOf("private:gitlab:git.corp.example/own/app", Host{}); err != nil || x.Kinds != KindPrivate || !strings.Contains(x.Text, "git.corp.example/own/app, to read it, and") || !strings.Contains(x.Text, "PRIVATE ADDRESSES") {
		t.Errorf("%+v, %v", x, err)
	}
	if x, err := ExposureOf("github:code.corp.example/own/app:mutations", Host{}); err != nil || !strings.Contains(x.Text, "code.corp.example/own/app, only mutations of GraphQL") {
		t.Errorf("%+v, %v", x, err)
	}
}
