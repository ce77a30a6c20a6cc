package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestGitRules(t *testing.T) {
	s := set(t, "allow git:code.test/own/app", "allow git:code.test/own/push:push=main,feature/*:delete", "allow git:code.test:8443/~me/deep/down",
		"allow git:all.test/own/secret", "allow all.test", "deny git:all.test/own/secret", "allow git:code.test/own/%C3%A4", "allow private:git:git.corp.test/own/app")
	for text, want := range map[string]bool{ //nolint:dupl // a table of other requests
		"GET https://code.test/own/app/info/refs?service=git-upload-pack":                          true,
		"GET https://code.test/own/app.git/info/refs?service=git-upload-pack":                      true,
		"POST https://code.test/own/app.git/git-upload-pack":                                       true,
		"GET https://code.test:8443/~me/deep/down/info/refs?service=git-upload-pack":               true,
		"GET https://code.test/own/push/info/refs?service=git-receive-pack":                        true,
		"POST https://code.test/own/push/git-receive-pack":                                         true, // and judged
		"GET https://code.test/own/%C3%A4/info/refs?service=git-upload-pack":                       true,
		"GET https://git.corp.test/own/app/info/refs?service=git-upload-pack":                      true,
		"GET https://code.test/own/app/info/refs?service=git-receive-pack":                         false,
		"POST https://code.test/own/app/git-receive-pack":                                          false,
		"POST https://code.test/own/app/git-receive-pack?service=git-upload-pack":                  false,
		"POST https://code.test/own/push/git-receive-pack?service=git-upload-pack":                 false,
		"GET https://code.test/own/app/info/refs":                                                  false, // the dumb protocol
		"GET https://code.test/own/app/info/refs?service=git-upload-pack&service=git-receive-pack": false,
		"GET https://code.test/own/app/info/refs?service=git-receive-pack&service=git-upload-pack": false,
		"GET https://code.test/own/app/info/refs?service=git%2Dupload-pack":                        false,
		"GET https://code.test/own/app/info/refs?SERVICE=git-upload-pack":                          false,
		"HEAD https://code.test/own/app/info/refs?service=git-upload-pack":                         false,
		"POST https://code.test/own/app/info/refs?service=git-upload-pack":                         false,
		"GET https://code.test/own/app/git-upload-pack":                                            false,
		"post https://code.test/own/app/git-upload-pack":                                           false,
		"POST https://code.test/own/app/git-upload-archive":                                        false,
		"POST https://code.test/own/app.git/info/lfs/objects/batch":                                false,
		"GET https://code.test/own/app/HEAD":                                                       false,
		"GET https://code.test/own/app":                                                            false,
		"GET https://code.test/own/app.git/":                                                       false,
		"GET https://code.test/own/APP/info/refs?service=git-upload-pack":                          false,
		"GET https://code.test/own/app.GIT/info/refs?service=git-upload-pack":                      false,
		"GET https://code.test/own/app.git.git/info/refs?service=git-upload-pack":                  false,
		"GET https://code.test/own/app.wiki.git/info/refs?service=git-upload-pack":                 false,
		"GET https://code.test/own/application/info/refs?service=git-upload-pack":                  false,
		"GET https://code.test/own/app/info/refs/?service=git-upload-pack":                         false,
		"GET https://code.test/own/%61pp/info/refs?service=git-upload-pack":                        false,
		"GET https://code.test/own%2Fapp/info/refs?service=git-upload-pack":                        false,
		"GET https://code.test//own/app/info/refs?service=git-upload-pack":                         false,
		"GET https://code.test/own/x/../app/info/refs?service=git-upload-pack":                     false,
		"GET https://code.test/own/app/.git/info/refs?service=git-upload-pack":                     false,
		"GET https://code.test/own/app;x/info/refs?service=git-upload-pack":                        false,
		"GET https://code.test/own/app/tree/main":                                                  false,
		"GET http://code.test/own/app/info/refs?service=git-upload-pack":                           false,
		"GET https://code.test:8443/own/app/info/refs?service=git-upload-pack":                     false,
		"GET https://www.code.test/own/app/info/refs?service=git-upload-pack":                      false,
		"GET https://all.test/own/other/info/refs?service=git-upload-pack":                         true,
		"GET https://all.test/own/secret":                                                          false,
		"GET https://all.test/own/Secret.GIT/info/refs?service=git-upload-pack":                    false,
		"GET https://all.test/own%2Fsecret/info/refs?service=git-upload-pack":                      false,
		"POST https://all.test/own/secret;x/git-receive-pack":                                      false,
		"GET https://all.test/own/secret.git/info/lfs/locks":                                       false,
		"GET https://all.test/own/secretary/info/refs?service=git-upload-pack":                     true,
	} {
		d := decideRequest(t, s, text)
		if d.Allow != want || d.Reason == "" {
			t.Errorf("%s: %+v, want %v", text, d, want)
		}
		if pushes := strings.HasSuffix(text, "/own/push/git-receive-pack"); (d.Push != nil) != pushes {
			t.Errorf("%s: %+v", text, d.Push)
		}
	}
}

func TestGitRulesInTheirCanonicalForm(t *testing.T) {
	for text, want := range map[string]string{
		"git:GitHub.com/Own/App.git":                       "git:github.com/Own/App",
		"GIT:github.com:443/own/app/:READ":                 "git:github.com/own/app",
		"git:github.com/own/app:push=main":                 "git:github.com/own/app:push=main",
		"git:h.test/o/a:push=z,refs/heads/a,a,refs/tags/*": "git:h.test/o/a:push=a,z,refs/tags/*",
		"git:h.test/o/a:push=refs/heads/refs/x:Delete":     "git:h.test/o/a:push=refs/heads/refs/x:delete",
		"git:h.test:8443/~u/a.b:push=**":                   "git:h.test:8443/~u/a.b:push=**",
		"private:git:h.test/a":                             "private:git:h.test/a",
		"git:h.test/o/a%20b":                               "git:h.test/o/a%20b",
		"git:443":                                          "git",
		"git:22,8000-8100":                                 "git:22,8000-8100",
		"git:*":                                            "git:*",
	} {
		got, err := Canonical(Allow, text)
		if text == "git:443" {
			want = "git:443"
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
			continue
		}
		if again, err := Canonical(Allow, got); err != nil || again != got {
			t.Errorf("%s: %q is not canonical: %q, %v", text, got, again, err)
		}
	}
	for text, why := range map[string]string{
		"git:":                           "port",
		"git:origin":                     "remote",
		"git:origin:push=feature/*":      "remote",
		"git:h.test/":                    "git:HOST/OWNER/REPO",
		"git:h.test/.git":                "another repository",
		"git:h.test/o/a.git.git":         "another repository",
		"git:h.test/o/a.GIT":             "another repository",
		"git:h.test/o//a":                "empty segment",
		"git:h.test/o/../a":              `".."`,
		"git:h.test/o%2Fa":               "slash",
		"git:h.test/o/*":                 "names one",
		"git:*.test/o/a":                 "names one",
		"git:10.0.0.1/o/a":               "name",
		"git:u@h.test/o/a":               "host name",
		"git:h.test/o/a?x":               "percent-encoded",
		"git:h.test/o/a:write":           "git:HOST/OWNER/REPO",
		"git:h.test/o/a:push=":           "push=main",
		"git:h.test/o/a:push=a,,b":       "push=main",
		"git:h.test/o/a:push=+main":      "refspec",
		"git:h.test/o/a:push=main:other": "git:HOST/OWNER/REPO",
		"git:h.test/o/a:push=fea*":       "whole segment",
		"git:h.test/o/a:push=a..b":       "name of a ref",
		"git:h.test/o/a:push=a.lock":     "name of a ref",
		"git:h.test/o/a:push=/a":         "name of a ref",
		"git:h.test/o/a:push=a\u00a0b":   "written in a rule",
		"git:h.test/o/a:push=a^":         "name of a ref",
		"git:h.test/o/a:push=main#1":     "written in a rule", // a file of rules has a comment there
		"git:h.test/o/a:push=a\u009b1mb": "written in a rule",
		"git:h.test/o/a:push=a\u202eb":   "written in a rule",
		"git:h.test/o/a:push=a\u3164b":   "written in a rule",
		"git:h.test/o/a:push=a\xffb":     "written in a rule",
		"udp:git:h.test/o/a":             "",
		"https://git:h.test/o/a":         "",
	} {
		if _, err := Canonical(Allow, text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{"git:h.test/o/a:read", "git:h.test/o/a:push=main:delete", "private:git:h.test/o/a"} {
		if got, err := Canonical(Deny, text); err == nil {
			t.Errorf("deny %s: %q", text, got)
		}
	}
}

func TestGitRemoteRules(t *testing.T) {
	for text, want := range map[string]string{
		"git:origin":                       "git:h.test/o/a",
		"git:origin:read":                  "git:h.test/o/a:read",
		"git:up.stream:push=feature/*":     "git:h.test/o/a:push=feature/*",
		"private:git:origin:push=x:delete": "private:git:h.test/o/a:push=x:delete",
		"git:h.test/o/a":                   "",
		"git:h.test:8443/o/a:push=x/y":     "",
		"git:443":                          "",
		"github.com":                       "",
		"https://h.test/git:x":             "",
	} {
		name, ok := GitRemote(text)
		if ok != (want != "") || ok && (name == "" || WithRepository(text, "h.test/o/a") != want) {
			t.Errorf("%s: %q %v, %q", text, name, ok, WithRepository(text, "h.test/o/a"))
		}
	}
}

// TestPushRules: which changes of refs the rules about one push allow.
func TestPushRules(t *testing.T) {
	const push = "POST https://code.test/own/app/git-receive-pack"
	rules := []string{"allow git:code.test/own/app:push=main,feature/*,refs/tags/*", "allow git:code.test/own/app:push=scratch/**:delete"}
	changes := map[string]bool{
		"refs/heads/main": true, "refs/heads/feature/a": true, "refs/tags/v1": true, "refs/heads/scratch/a/b": true, "-refs/heads/scratch/a/b": true,
		"-refs/heads/main": false, "refs/heads/feature/a/b": false, "refs/heads/Main": false, "refs/heads/other": false, "main": false, "HEAD": false,
		"refs/heads/main^{}": false, "refs/heads/scratch/../main": false, "refs/heads/scratch//a": false, "refs/pull/1/head": false, "refs/heads/main.lock": false,
	}
	judge := func(p *PushRules, text string) Decision {
		ref, del := strings.CutPrefix(text, "-")
		return p.Judge(RefChange{ref, del})
	}
	d := decideRequest(t, set(t, rules...), push)
	for text, want := range changes {
		if got := judge(d.Push, text); got.Allow != want || got.Reason == "" {
			t.Errorf("%s: %+v, want %v", text, got, want)
		}
	}
	d = decideRequest(t, set(t, append(rules, "deny git:code.test/own/app:push=MAIN,scratch/x")...), push)
	for text, want := range map[string]bool{"refs/heads/main": false, "-refs/heads/scratch/x": false, "refs/heads/scratch/y": true} {
		if got := judge(d.Push, text); got.Allow != want || !want && got.Rule == nil {
			t.Errorf("%s, with a deny rule: %+v, want %v", text, got, want)
		}
	}
	for _, c := range []struct {
		changes []RefChange
		want    string
	}{
		{[]RefChange{{"refs/heads/x", false}, {"refs/tags/y/z", false}}, "git:code.test/own/app:push=x,refs/tags/y/z"},
		{[]RefChange{{"refs/heads/x", true}}, "git:code.test/own/app:push=x:delete"},
		{[]RefChange{{"refs/heads/main", false}}, ""}, // denied
		{[]RefChange{{"refs/heads/a*", false}}, ""},
	} {
		if got := d.Push.Suggest(c.changes); got != c.want {
			t.Errorf("%v: %q, want %q", c.changes, got, c.want)
		}
	}
	for name, lines := range map[string][]string{
		"a rule for every request":             append(rules, "allow code.test"),
		"a rule for all requests below a path": append(rules, "allow https://code.test/own/**"),
	} {
		if d := decideRequest(t, set(t, lines...), push); !d.Allow || d.Push != nil {
			t.Errorf("%s: %+v", name, d)
		}
		d := decideRequest(t, set(t, append(lines, "deny git:code.test/own/app:push=main")...), "post https://code.test/Own/app.git;x/git-Receive-pack")
		if name == "a rule for every request" && (!d.Allow || d.Push == nil || judge(d.Push, "refs/heads/main").Allow || !judge(d.Push, "refs/heads/x").Allow) {
			t.Errorf("%s, with a deny rule: %+v", name, d)
		}
	}
}

// TestLackingGitRules: a suggestion is of use until the rules allow what it is for, or deny it.
func TestLackingGitRules(t *testing.T) {
	s := set(t, "allow git:a.test/own/app:push=main,feature/*", "deny git:a.test/own/app:push=locked", "allow open.test", "deny git:a.test/own/shut")
	for text, want := range map[string]bool{
		"git:a.test/own/app":                       false,
		"git:a.test/own/other":                     true,
		"git:a.test/own/shut":                      false,
		"git:open.test/own/app":                    false,
		"git:other.test/own/app":                   true,
		"git:a.test/own/app:push=main":             false,
		"git:a.test/own/app:push=main,x":           true,
		"git:a.test/own/app:push=feature/a":        false,
		"git:a.test/own/app:push=feature/a:delete": true,
		"git:a.test/own/app:push=x,locked":         false,
		"git:a.test/own/other:push=x":              true,
		"git:open.test/own/app:push=x":             false,
	} {
		if lacks, ok := s.LacksGit(text); !ok || lacks != want {
			t.Errorf("%s: %v %v", text, lacks, ok)
		}
	}
	for _, text := range []string{"a.test", "https://a.test/**", "preset:npm", "github:own/app", "git:origin", ""} {
		if _, ok := s.LacksGit(text); ok {
			t.Error(text)
		}
	}
}

// TestWidenedRules are those about requests to a host that another rule opens as a whole.
func TestWidenedRules(t *testing.T) {
	s := set(t, "allow github.com", "allow *.wide.test:8443", "allow https://git.test/**", "deny other.test", "allow udp:udp.test:443")
	for text, want := range map[string]string{
		"git:github.com/own/app":           "allow github.com",
		"https://github.com/own/**":        "allow github.com",
		"git:github.com:8443/own/app":      "",
		"git:a.wide.test:8443/own/app":     "allow *.wide.test:8443",
		"git:a.wide.test/own/app":          "",
		"git:git.test/own/app":             "",
		"git:other.test/own/app":           "",
		"git:udp.test/own/app":             "",
		"https://*.wide.test:8443/own/app": "",
		"github.com":                       "",
		"host:80":                          "",
		"192.0.2.1":                        "",
	} {
		rules, err := ParseRule(Allow, text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if by := s.Widened(&rules[0]); by != nil {
			got = by.String()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestGitDenyRulesInTheClear: a rule that allows a host opens port 80 as well, where nobody judges the
// list of refs of a push.
func TestGitDenyRulesInTheClear(t *testing.T) {
	s := set(t, "allow code.test", "allow code.test:8443", "deny git:code.test/own/app:push=main", "deny git:code.test/own/secret", "deny git:code.test:8443/own/port", "deny git:code.test:443/own/tls")
	for text, want := range map[string]bool{
		"GET http://code.test/own/tls/info/refs?service=git-upload-pack":          false, // as its canonical form, which has no port
		"POST http://code.test/own/app.git/git-receive-pack":                      false,
		"POST http://code.test/own/App/git-receive-pack;x":                        false,
		"POST http://code.test/own/app/git-upload-pack":                           true,
		"GET http://code.test/own/app/info/refs?service=git-receive-pack":         true,
		"GET http://code.test/own/secret.git/info/refs?service=git-upload-pack":   false,
		"GET http://code.test/own/other/info/refs?service=git-upload-pack":        true,
		"GET http://code.test/own/port/info/refs?service=git-upload-pack":         true,
		"GET http://code.test:8443/own/port/info/refs?service=git-upload-pack":    false,
		"POST http://code.test:8443/own/port.git/git-receive-pack":                false,
		"GET https://code.test:8443/own/secret/info/refs?service=git-upload-pack": true, // another port
	} {
		q, _, err := ParseRequest(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := s.DecideRequest(q); d.Allow != want {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

// TestSuggestedGitRulesNameTheirRefsOnly: the guest chooses the name of a ref, and no rule that a person
// is asked about reads as one about another ref, in its place or in a file of rules.
func TestSuggestedGitRulesNameTheirRefsOnly(t *testing.T) {
	s := set(t, "allow git:code.test/own/app:push=other")
	q := Request{Method: "POST", Scheme: "https", Name: "code.test", Port: 443, Path: "/own/app/git-receive-pack"}
	for ref, want := range map[string]string{
		"refs/heads/a":            "git:code.test/own/app:push=a",
		"refs/heads/\u00e4/it's":  "git:code.test/own/app:push=\u00e4/it's",
		"refs/heads/main#1":       "",
		"refs/heads/a,main":       "",
		"refs/heads/a\u009b1mb":   "",
		"refs/heads/a\u202eb":     "",
		"refs/heads/main\xff":     "",
		"refs/heads/main\u3164":   "",
		"refs/heads/main:refs/xy": "",
	} {
		got := s.DecideRequest(q).Push.Suggest([]RefChange{{Ref: ref}})
		if got != want {
			t.Errorf("%q: %q, want %q", ref, got, want)
		}
		if rules, err := ParseFile("f", []byte("allow "+got+"\n")); got != "" && (err != nil || rules[0].Text != got) {
			t.Errorf("%q: in a file %v, %v", got, rules, err)
		}
	}
}

func TestSuggestedGitRules(t *testing.T) {
	s := set(t, "allow https://code.test/x")
	ask := func(text string) Request {
		q, _, err := ParseRequest(text)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	list := []Request{
		ask("GET https://code.test/own/app.git/info/refs?service=git-upload-pack"), ask("POST https://code.test/own/app.git/git-upload-pack"),
		ask("GET https://code.test/own/b/info/refs"), ask("GET https://code.test/own/c/info/refs"), // of the log, which has no query
		ask("POST https://code.test/own/app.git/git-receive-pack"), ask("GET https://code.test/page"),
	}
	if got, want := s.ProposeRequests(list), []string{"GET https://code.test/page", "git:code.test/own/app", "git:code.test/own/b", "git:code.test/own/c"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if d := s.DecideRequest(list[4]); !strings.Contains(d.Reason, "git:code.test/own/app:push=BRANCH") {
		t.Error(d.Reason)
	}
}

// TestGitRulesOverSSH: a rule is about SSH at port 22 and at its own; there, rules for the port open no other
// repository than those that allow rules name.
func TestGitRulesOverSSH(t *testing.T) {
	s := set(t, "allow git:code.test/own/app", "allow git:code.test/own/push:push=feature/*", "allow git:code.test:2222/~me/x",
		"allow both.test:22", "allow git:both.test/own/app", "allow most.test:22", "deny git:most.test/own/secret", "deny git:most.test/own/app:push=main",
		"allow plain.test:22", "allow web.test", "deny git:web.test/own/app", "allow raw:raw.test:22", "allow git:raw.test/own/app", "allow raw:both-raw.test:22", "deny git:both-raw.test/own/app")
	for text, want := range map[string]bool{
		"ssh://git@code.test/own/app":           true,
		"ssh://code.test/own/app.git":           true,
		"fetch ssh://git@code.test:22/own/app/": true,
		"ssh://git@code.test:443/own/app":       true,
		"ssh://git@code.test/own/push":          true,
		"push ssh://git@code.test/own/push":     true, // and judged
		"ssh://code.test:2222/~me/x":            true,
		"ssh://both.test/own/app":               true,
		"ssh://most.test/own/app":               false, // a deny rule lends no login
		"push ssh://most.test/own/app":          false,
		"push ssh://most.test/own/other":        false,
		"push ssh://plain.test/any/thing":       true,
		"ssh://raw.test/own/app":                true,
		"push ssh://code.test/own/app":          false,
		"ssh://code.test/own/App":               false,
		"ssh://code.test/own/app.GIT":           false,
		"ssh://code.test/own/app.git.git":       false,
		"ssh://code.test/own/app/info/refs":     false,
		"ssh://code.test/own/app.wiki":          false,
		"ssh://code.test/own/../own/app":        false,
		"ssh://code.test/own//app":              false,
		"ssh://code.test:2222/own/app":          false,
		"ssh://code.test:80/own/app":            false,
		"ssh://other.test/own/app":              false,
		"ssh://both.test/own/other":             false,
		"push ssh://both.test/own/app":          false,
		"ssh://most.test/own/secret.git":        false,
		"ssh://most.test/OWN/Secret":            false,
		"push ssh://most.test/own/secret/x":     false,
		"ssh://web.test/own/app":                false,
		"ssh://web.test/own/other":              false,
		"ssh://web.test:443/own/app":            false,
		"GET https://code.test/own/app":         false,
	} {
		q, ok, err := ParseRequest(text)
		if !ok || err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if d := s.DecideRequest(q); d.Allow != want {
			t.Errorf("%s: %v, %s", text, d.Allow, d.Reason)
		}
	}
	for name, want := range map[string]struct{ allow, ssh bool }{
		"code.test": {true, true}, "both.test": {true, true}, "most.test": {true, true}, "plain.test": {true, false}, "web.test": {false, true}, "raw.test": {true, false}, "both-raw.test": {true, true},
	} {
		if d := s.Decide(Flow{Name: name, Port: 22, Proto: TCP}); d.Allow != want.allow || d.SSH != want.ssh {
			t.Errorf("%s:22: %+v", name, d)
		}
	}
	for text, want := range map[string]string{
		"ssh://git@new.test/own/app":       "git:new.test/own/app",
		"ssh://git@new.test:2222/own/app":  "git:new.test:2222/own/app",
		"ssh://git@code.test/own/other":    "git:code.test/own/other",
		"push ssh://git@code.test/own/app": "",
		"ssh://most.test/own/secret":       "",
	} {
		q, _, err := ParseRequest(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.SuggestRequest(q); got != want {
			t.Errorf("%s: %q", text, got)
		}
	}
	for _, text := range []string{"GET ssh://code.test/own/app", "ssh://*.test/own/app", "ssh://10.0.0.1/own/app", "ssh:///own/app", "ssh://code.test:x/own/app"} {
		if q, ok, err := ParseRequest(text); !ok || err == nil {
			t.Errorf("%s: %v", text, q)
		}
	}
}

// TestGitRulesSayThatTheyUseYourKeys where a person approves them.
func TestGitRulesSayThatTheyUseYourKeys(t *testing.T) {
	x, err := ExposureOf("git:code.test/own/app:push=main", Host{})
	if err != nil || !strings.Contains(x.Text, "push to main, over SSH with your keys") {
		t.Errorf("%q, %v", x.Text, err)
	}
}

// TestAttackPushBelowADenyRule: a server may have the repository at PATH/.git, which leads to the same refs.
func TestAttackPushBelowADenyRule(t *testing.T) {
	s := set(t, "allow https://most.test/**", "deny git:most.test/own/app:push=main")
	for _, path := range []string{"/own/app/.git", "/own/app.git/.git", "/own/App/.GIT"} {
		d := s.DecideRequest(Request{Method: "POST", Scheme: "https", Name: "most.test", Port: 443, Path: path + "/git-receive-pack"})
		if d.Push == nil || d.Push.Judge(RefChange{Ref: "refs/heads/main"}).Allow || !d.Push.Judge(RefChange{Ref: "refs/heads/x"}).Allow {
			t.Errorf("%s: %+v", path, d)
		}
	}
}

// TestPushesOverSSHAreJudged by the rules about their refs, as over HTTPS.
func TestPushesOverSSHAreJudged(t *testing.T) {
	s := set(t, "allow git:code.test/own/app:push=feature/*", "allow most.test:22", "allow git:most.test/own/app:push=**", "deny git:most.test/OWN/App:push=main")
	for _, c := range []struct {
		repository, ref string
		want            bool
	}{
		{"code.test/own/app", "refs/heads/feature/x", true},
		{"code.test/own/app", "refs/heads/main", false},
		{"most.test/own/app", "refs/heads/other", true},
		{"most.test/own/app", "refs/heads/main", false},
		{"most.test/own/app.git", "refs/heads/Main", false},
	} {
		q, _, err := ParseRequest("push ssh://" + c.repository)
		if err != nil {
			t.Fatal(err)
		}
		d := s.DecideRequest(q)
		if !d.Allow || d.Push == nil {
			t.Fatalf("%s: %+v", c.repository, d)
		}
		if one := d.Push.Judge(RefChange{Ref: c.ref}); one.Allow != c.want {
			t.Errorf("%s %s: %s", c.repository, c.ref, one.Reason)
		}
	}
}

// TestPushes: a rule that opens a repository for pushes is found, unless deny rules leave nothing of it. One that opens
// a whole host names no repository.
func TestPushes(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		"allow git:git.test/own/app":          "",
		"allow git:git.test/own/app:read":     "",
		"allow git.test\nallow preset:github": "",
		"allow github:own/app\nallow gitlab:o/p:write":                                                             "",
		"allow POST https://git.test/own/app.git/git-receive-pack":                                                 "",
		"deny git:git.test/own/app:push=**":                                                                        "",
		"allow git:git.test/own/app:push=main":                                                                     "git:git.test/own/app:push=main",
		"allow git:git.test/own/app:push=feature/*,refs/tags/**:delete":                                            "git:git.test/own/app:push=feature/*,refs/tags/**:delete",
		"allow private:git:git.lan:8443/a/b/c:push=**":                                                             "private:git:git.lan:8443/a/b/c:push=**",
		"allow git:git.test/own/app:push=main\ndeny git:git.test/own/app:push=dev":                                 "git:git.test/own/app:push=main",
		"allow git:git.test/own/app:push=main,dev\ndeny git:git.test/own/app:push=main":                            "git:git.test/own/app:push=dev,main",
		"allow git:git.test/own/app:push=main\ndeny git:git.test/own/app:push=MAIN":                                "",
		"allow git:git.test/own/app:push=feature/*\ndeny git:git.test/own/app:push=feature/**":                     "",
		"allow git:git.test/own/app:push=main\ndeny git:git.test/own":                                              "",
		"allow git:git.test/own/app:push=main\ndeny git.test":                                                      "",
		"allow git:git.test/own/app:push=main\ndeny **.test\nallow git:other.example/a:push=x":                     "git:other.example/a:push=x",
		"allow git:git.test/own/app:push=main\ndeny 'POST https://git.test/own/**'\nallow git:a.example/a:push=**": "git:a.example/a:push=**",
	} {
		rules, err := ParseFile("f", []byte(strings.ReplaceAll(text, "'", "")))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		got := ""
		if r := Compile(rules).Pushes(); r != nil {
			got = r.Text
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
