package policy

import (
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
		"POST https://api.github.com/repos/own/app/issues":                  true,
		"POST https://api.github.com/repos/own/app/issues/7/comments":       true,
		"PATCH https://api.github.com/repos/own/app/pulls/7":                true,
		"POST https://api.github.com/repos/own/app/pulls":                   true,
		"GET https://api.github.com/repos/own/lib/pulls":                    true,

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
		"POST https://api.github.com/graphql":                                      false,
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
