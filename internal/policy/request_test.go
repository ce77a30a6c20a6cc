package policy

import (
	"slices"
	"strings"
	"testing"
)

// decideRequest judges "METHOD URL", as a client sends it.
func decideRequest(t testing.TB, s *Set, text string) Decision {
	t.Helper()
	q, ok, err := ParseRequest(text)
	if !ok || err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s.DecideRequest(q)
}

func TestRequestRules(t *testing.T) {
	s := set(t,
		"allow GET,HEAD https://api.test/v1/**", "allow POST https://api.test/v1/chat/*/send", "deny https://api.test/v1/admin/**",
		"allow https://*.wild.test:8443/a", "allow http://plain.test/x", "allow both.test", "deny DELETE https://both.test/**",
		"allow GET https://lab.test/projects/own%2Frepo/**", "allow GET https://lab.test/one/*", "allow GET https://root.test/",
		"deny shut.test", "allow https://shut.test/**")
	for text, want := range map[string]bool{ //nolint:dupl // a table of other requests
		"GET https://api.test/v1/models":             true,
		"GET https://API.test:443/v1/models?x=/../y": true,
		"HEAD https://api.test/v1":                   true,
		"HEAD https://api.test/v1/":                  true,
		"GET https://api.test/v1/m%6Fdels":           true,
		"POST https://api.test/v1/models":            false,
		"get https://api.test/v1/models":             false, // methods have a case
		"GET https://api.test/v2/models":             false,
		"GET https://api.test/V1/models":             false,
		"GET https://api.test/":                      false,
		"GET https://api.test:8443/v1/models":        false,
		"GET http://api.test/v1/models":              false,
		"POST https://api.test/v1/chat/7/send":       true,
		"POST https://api.test/v1/chat/7/8/send":     false,
		"POST https://api.test/v1/chat/7%2F8/send":   false,
		"POST https://api.test/v1/chat/send":         false,
		"GET https://api.test/v1/admin":              false,
		"GET https://api.test/v1/admin/":             false,
		"GET https://api.test/v1/ADMIN/users":        false,
		"GET https://api.test/v1/%61dmin/users":      false,
		"GET https://api.test/v1%2Fadmin/users":      false,
		"GET https://api.test/v1/admin%2Fusers":      false,
		"GET https://api.test/v1/admin;v=1/users":    false,
		"GET https://api.test/v1/admin%3Bv=1/users":  false,
		"GET https://api.test/v1/admin%20":           false, // as Windows reads it
		"GET https://api.test/v1/admin./users":       false,
		"GET https://api.test/v1/admin/%20":          false,
		"GET https://api.test/v1/admin%3Fx":          false, // decoded before it is taken apart
		"GET https://api.test/v1/admin%23x/users":    false,
		"GET https://api.test/v1/%EF%BD%81dmin":      false, // a fullwidth a
		"GET https://api.test/v1/%EF%BD%81dmin.%3Bx": false,
		"GET https://api.test/v1/administrator":      true,
		"GET https://a.wild.test:8443/a":             true,
		"GET https://a.b.wild.test:8443/a":           false,
		"GET https://a.wild.test/a":                  false,
		"GET http://plain.test/x":                    true,
		"GET https://plain.test/x":                   false,
		"GET https://both.test/anything":             true,
		"POST https://both.test/anything":            true,
		"DELETE https://both.test/anything":          false,
		"delete https://both.test/anything":          false,
		"DELETE http://both.test/anything":           true, // another port
		"GET https://lab.test/projects/own%2frepo/x": true,
		"GET https://lab.test/projects/own/repo/x":   false,
		"GET https://lab.test/one/a%2Fb":             false,
		"GET https://root.test/":                     true,
		"GET https://root.test":                      true,
		"GET https://root.test/x":                    false,
		"GET https://shut.test/x":                    false,
	} {
		if d := decideRequest(t, s, text); d.Allow != want || d.Reason == "" || d.Malformed {
			t.Errorf("%s: %+v, want %v", text, d, want)
		}
	}
}

// TestAmbiguousPaths are refused although a rule allows every path.
func TestAmbiguousPaths(t *testing.T) {
	s := set(t, "allow https://api.test/**")
	for _, path := range []string{
		"/v1/../admin", "/v1/./x", "/..", "/v1/..", "/v1/%2e%2e/admin", "/v1/.%2E/admin", "/v1/%2e/x", "/v1//admin", "//evil.test/x", "/v1/x//",
		"/v1/..;/admin", "/v1/..;x=1/admin", "/v1/;/x", "/v1/..%3b/x", "/v1/..%2fadmin", "/v1%2f..%2fadmin", "/v1/a%2f%2fb", "/v1/%2f", "/v1/a%2f",
		`/v1\..\admin`, "/v1/%5c..%5cadmin", "/v1/x%5cy", "/v1/%252e%252e/admin", "/v1/%25%32%65", "/v1/a%252fb", "/v1/x%00", "/v1/x%0d%0aHost:y", "/v1/%7f",
		"/v1/%EF%BC%8E%EF%BC%8E/admin", "/v1/%E2%80%A5/admin", "/v1%EF%BC%8F..%EF%BC%8Fadmin", "/v1/x%EF%BC%BCy", "/v1/%EF%BC%852e/x", "/v1/a%E2%88%95b", "/v1/a%E2%81%84b",
		"/v1/..%20/admin", "/v1/.%C2%A0/admin", "/v1/..%3fx/admin", "/v1/..%23/admin",
		"/v1/%c0%ae%c0%ae/admin", "/v1/%ff", "/v1/%", "/v1/%4", "/v1/%zz", "/v1/ü", "/v1/a b", "/" + strings.Repeat("a/", maxPath),
	} {
		d := s.DecideRequest(Request{Method: "GET", Scheme: "https", Name: "api.test", Port: 443, Path: path})
		if d.Allow || !d.Malformed || d.Reason == "" {
			t.Errorf("%.60s: %+v", path, d)
		}
		if rules, err := ParseRule(Allow, "https://api.test"+path); err == nil {
			t.Errorf("%.60s is a rule: %s", path, rules[0].Text)
		}
	}
	for _, path := range []string{"", "*", "x", "?a", "http://other.test/x"} {
		if d := s.DecideRequest(Request{Method: "GET", Scheme: "https", Name: "api.test", Port: 443, Path: path}); d.Allow {
			t.Errorf("%q is allowed", path)
		}
	}
	for _, path := range []string{"/", "/...", "/.a", "/a..b", "/@scope%2fname", "/100%25", "/a%20b", "/%C3%BC", "/rooms/%23general", "/wait%E2%80%A6", "/a;v=1", "/a:b,c=d+e&f"} {
		if d := s.DecideRequest(Request{Method: "GET", Scheme: "https", Name: "api.test", Port: 443, Path: path}); !d.Allow {
			t.Errorf("%s: %s", path, d.Reason)
		}
	}
}

// TestConnectionsOfRequestRules: what the rules about requests mean for a connection.
func TestConnectionsOfRequestRules(t *testing.T) {
	s := set(t, "allow GET https://some.test/x", "allow plain.test", "allow all.test", "deny POST https://all.test/**",
		"allow raw:raw.test", "deny https://raw.test/x", "allow raw:free.test", "allow https://free.test/x",
		"allow udp:quic.test:443", "allow https://quic.test/x", "allow private:https://corp.test/x", "deny https://only.test/x")
	for _, c := range []struct {
		flow                          string
		allow, requests, raw, private bool
	}{
		{"some.test:443", true, true, false, false},
		{"some.test:80", false, false, false, false},
		{"udp:some.test:443", false, true, false, false},
		{"plain.test:443", true, false, false, false},
		{"all.test:443", true, true, false, false},
		{"all.test:80", true, false, false, false},
		{"raw.test:443", true, true, false, false}, // deny wins over raw:
		{"free.test:443", true, false, true, false},
		{"udp:quic.test:443", true, true, false, false},
		{"corp.test:443", true, true, false, true},
		{"only.test:443", false, true, false, false},
	} {
		f, err := ParseFlow(c.flow)
		if err != nil {
			t.Fatal(err)
		}
		if d := s.Decide(f); d.Allow != c.allow || d.Requests != c.requests || d.Raw != c.raw || d.Private != c.private {
			t.Errorf("%s: %+v", c.flow, d)
		}
	}
	if !s.Resolves("some.test") || s.Resolves("only.test") || !s.AboutRequests() || set(t, "allow a.test", "allow http://b.test/x").AboutRequests() {
		t.Error("names")
	}
	allow, _ := ParseRule(Allow, "all.test:443")
	if by := s.Overruled(&allow[0]); by != nil {
		t.Errorf("overruled by %v, which is about some requests", by)
	}
}

func TestRequestRuleTexts(t *testing.T) {
	for text, want := range map[string]string{
		"get,POST,GET https://A.test:443/v%31/":      "GET,POST https://a.test/v1",
		"https://**.Bücher.test/**":                  "https://**.xn--bcher-kva.test/**",
		"HTTP://a.test:8080/a%20b/%2a%2a%2a":         "http://a.test:8080/a%20b/%2A%2A%2A",
		"PROPFIND private:https://a.test/own%2frepo": "PROPFIND private:https://a.test/own%2Frepo",
		"  GET   https://a.test/ ":                   "GET https://a.test/",
	} {
		text, err := Canonical(Allow, text)
		if err != nil || text != want {
			t.Errorf("%q, want %q: %v", text, want, err)
			continue
		}
		if again, err := Canonical(Allow, text); err != nil || again != text {
			t.Errorf("%q is not canonical: %q, %v", text, again, err)
		}
	}
	refusedRules(t, map[string]string{
		"https://a.test":               "/** for all",
		"https://a.test/x?y":           "not about the query",
		"https://a.test?y":             "not about the query",
		"https://u@a.test/x":           "no user name",
		"https://10.0.0.1/x":           "about a name",
		"https://[2001:db8::1]/x":      "about a name",
		"https://host/x":               "host:PORT",
		"https://host.bawn.internal/x": "host:PORT",
		"https://localhost/x":          "host:PORT",
		"https://bawn.internal/x":      "bawn answers",
		"https://a.test:1-9/x":         "not a port",
		"https://a.*/x":                "anybody can register",
		"https://a.test/v*/x":          "a whole segment",
		"https://a.test/***":           "a whole segment",
		"https://a.test/%2a":           "cannot be told from a wildcard",
		"wss://a.test/x":               "write https://",
		"raw:https://a.test/x":         "not a scheme",
		"udp:https://a.test/x":         "not a scheme",
		"GET, HEAD https://a.test/x":   "not a method",
		"GÉT https://a.test/x":         "not a method",
		"GET a.test":                   "cannot be part of a host name",
		"private:https://**/x":         "anybody can register",
	})
	rules, err := ParseFile("f", []byte("allow GET,HEAD  https://a.test/x # why\ndeny https://a.test/GET\nallow GET a.test\n"))
	if len(rules) != 2 || rules[0].Text != "GET,HEAD https://a.test/x" || rules[0].Source.Column != 7 || rules[1].Source.Column != 6 || err == nil || !strings.HasPrefix(err.Error(), "f:3:1: ") {
		t.Errorf("%+v %v", rules, err)
	}
	x, err := ExposureOf("GET,PUT https://*.github.io/x", Host{})
	if err != nil || x.Severity() != Broad || !strings.Contains(x.Text, "https://*.github.io/x by GET, PUT requests") || !strings.Contains(x.Text, "STRANGERS") {
		t.Errorf("%+v %v", x, err)
	}
}

func TestProposeRequests(t *testing.T) {
	s := set(t, "allow GET https://api.test/v1/known", "deny https://api.test/v1/admin/**")
	var list []Request
	for _, text := range []string{
		"GET https://api.test/v1/known", "POST https://api.test/v1/known", "GET https://api.test/v1/a", "GET https://api.test/v1/b", "GET https://api.test/v1/b",
		"GET https://api.test/v1/c", "PUT https://api.test/v1/x%2Fy", "GET https://api.test/v1/x%2Fy", "DELETE https://api.test/v1/admin/x", "GET https://api.test/v1/%2e%2e/x",
	} {
		q, _, err := ParseRequest(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, q)
	}
	want := []string{"GET https://api.test/v1/*", "GET,PUT https://api.test/v1/x%2Fy", "POST https://api.test/v1/known"}
	if got := s.ProposeRequests(list); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestSuggestedRuleAllowsTheRequest: also for methods that no rule can name.
func TestSuggestedRuleAllowsTheRequest(t *testing.T) {
	lines := []string{"allow GET https://api.test/known"}
	s := set(t, lines...)
	for method, want := range map[string]string{"PUT": "PUT https://api.test/v1/x", "put": "", "Delete": "", "M-SEARCH": "M-SEARCH https://api.test/v1/x", "M!": ""} {
		q := Request{Method: method, Scheme: "https", Name: "api.test", Port: 443, Path: "/v1/x"}
		text := s.SuggestRequest(q)
		if text != want {
			t.Errorf("%s: %q", method, text)
		}
		if text != "" && !set(t, append(lines, "allow "+text)...).DecideRequest(q).Allow {
			t.Errorf("%s: the rule %q does not allow it", method, text)
		}
	}
}

// TestRuleThatIsTooLongOnceEncoded: the canonical form of a rule, which bawn keeps, and that of a path can
// be read again; else the rule or the path is refused at once.
func TestRuleThatIsTooLongOnceEncoded(t *testing.T) {
	braces := "/" + strings.Repeat("{", maxRule/2)
	if rules, err := ParseRule(Allow, "GET https://api.test"+braces); err == nil {
		t.Errorf("a rule of %d bytes was read", len(rules[0].Text))
	}
	if _, err := parsePath("/" + strings.Repeat("{", maxPath/2)); err == nil {
		t.Error("a path that is longer than the bound was read")
	}
	if segments, err := parsePath(braces); err != nil || escapePath(segments) != "/"+strings.Repeat("%7B", maxRule/2) {
		t.Errorf("%q %v", segments, err)
	}
}

// FuzzRequestRule: a rule that is read is canonical, and allows no path that leaves the place
// that it names in any way to read it.
func FuzzRequestRule(f *testing.F) {
	for _, seed := range []string{"GET https://api.test/v1/**", "https://a.test/%2e", "private:https://a.test:1/x/*/y", "A,B http://**.test/a%2fb;c"} {
		f.Add(seed, "/v1/%2e%2e/x")
	}
	f.Add("https://api.test/v1/**", "/v1/..%2f..;/x//y%5c%252e")
	s := set(f, "allow https://api.test/v1/**")
	f.Fuzz(func(t *testing.T, rule, path string) {
		if rules, err := ParseRule(Allow, rule); err == nil && len(rules) == 1 {
			again, err := ParseRule(Allow, rules[0].Text)
			if err != nil || again[0].Text != rules[0].Text {
				t.Fatalf("%q: %q is not canonical: %v", rule, rules[0].Text, err)
			}
		}
		segments, err := parsePath(path)
		if err != nil {
			return
		}
		back, err := parsePath(escapePath(segments))
		if err != nil || !slices.Equal(back, segments) {
			t.Fatalf("%q: %q becomes %q: %v", path, segments, back, err)
		}
		for _, read := range readings(segments) {
			if slices.ContainsFunc(read, func(seg string) bool { return seg == "" || seg == "." || seg == ".." }) {
				t.Fatalf("%q can be read as %q", path, read)
			}
		}
		if s.DecideRequest(Request{Method: "GET", Scheme: "https", Name: "api.test", Port: 443, Path: path}).Allow && (len(segments) == 0 || segments[0] != "v1") {
			t.Fatalf("%q is allowed", path)
		}
	})
}
