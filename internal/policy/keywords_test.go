package policy

import (
	"strings"
	"testing"
)

// TestKeywords: each keyword has one effect, also when several rules are about one name.
func TestKeywords(t *testing.T) {
	s := set(t, "allow private:git.corp.test:22", "allow ech:web.test", "allow raw:private:db.corp.test:5432",
		"allow udp:private:ntp.corp.test:123", "allow both.test", "allow private:both.test", "allow ech:both.test:443", "allow PRIVATE:**.lan")
	for text, want := range map[string]Decision{
		"git.corp.test:22":       {Allow: true, Private: true},
		"git.corp.test:443":      {},
		"web.test":               {Allow: true, ECH: true},
		"db.corp.test:5432":      {Allow: true, Raw: true, Private: true},
		"udp:ntp.corp.test:123":  {Allow: true, Private: true},
		"ntp.corp.test:123":      {},
		"both.test:443":          {Allow: true, ECH: true, Private: true},
		"both.test:80":           {Allow: true, Private: true},
		"printer.lan:80":         {Allow: true, Private: true},
		"10.0.0.1:22":            {},
		"other.corp.test:22":     {},
		"x.git.corp.test:22":     {},
		"udp:git.corp.test:22":   {},
		"udp:git.corp.test:5432": {},
	} {
		f, err := ParseFlow(text)
		if err != nil {
			t.Fatal(err)
		}
		d := s.Decide(f)
		if d.Allow != want.Allow || d.Raw != want.Raw || d.ECH != want.ECH || d.Private != want.Private {
			t.Errorf("%s: %+v, want %+v", text, d, want)
		}
	}
	for in, want := range map[string]string{
		"Private:GIT.corp.test.:443,80": "private:git.corp.test", "UDP:private:a.test:1": "udp:private:a.test:1",
		"ech:a.test:8443": "ech:a.test:8443", "raw:private:a.test": "raw:private:a.test", "private:*.home.arpa": "private:*.home.arpa",
	} {
		if got, err := Canonical(Allow, in); err != nil || got != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

// TestBadKeywords: keywords in another order or number, and those that would open more
// than names of one owner.
func TestBadKeywords(t *testing.T) {
	refusedRules(t, map[string]string{
		"private:raw:a.test": "cannot stand here", "raw:ech:a.test": "cannot stand here", "ech:udp:a.test:1": "cannot stand here",
		"private:private:a.test": "cannot stand here", "private:udp:a.test:1": "cannot stand here",
		"private": "a keyword", "ech:": "no host name", "private::22": "no host name",
		"private:10.0.0.1": "for names", "ech:10.0.0.1": "for names", "private:[fd00::1]:22": "for names",
		"private:host:22": "write host:PORT", "ech:host:22": "write host:PORT", "private:host": "host:PORT",
		"private:preset:npm": "", "private:**": "one owner", "private:*": "one owner", "private:*.com": "one owner", "private:**.co.uk": "one owner",
		"private:*.github.io": "one owner", "private:localhost:80": "host:PORT", "private:**.bawn.internal": "bawn answers",
	})
	for _, text := range []string{"private:a.test", "ech:a.test", "raw:a.test", "udp:private:a.test:1"} {
		if _, err := ParseRule(Deny, text); err == nil || !strings.Contains(err.Error(), "no meaning in a deny rule") {
			t.Errorf("deny %s: %v", text, err)
		}
	}
	for _, text := range []string{"private:a.test", "ech:a.test"} {
		if _, err := ParseFlow(text); err == nil || !strings.Contains(err.Error(), "is a rule") {
			t.Errorf("check %s: %v", text, err)
		}
	}
}

// TestSuggestKeyword: a suggestion with a keyword allows exactly its flow, and there is
// none for what is no name.
func TestSuggestKeyword(t *testing.T) {
	s := set(t, "allow git.corp.test:22", "deny bad.test")
	for text, want := range map[string]string{
		"git.corp.test:22": "private:git.corp.test:22", "a.test": "private:a.test:443", "udp:a.test:53": "udp:private:a.test:53",
		"bad.test": "", "10.0.0.1:22": "", "host:22": "",
	} {
		f, err := ParseFlow(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.SuggestPrivate(f); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := s.SuggestECH(Flow{Name: "a.test", Port: 8443, Proto: TCP}); got != "ech:a.test:8443" {
		t.Error(got)
	}
	if got := s.SuggestECH(Flow{Name: "**", Port: 443, Proto: TCP}); got != "" {
		t.Error(got)
	}
}

// refusedRules checks that each text is refused as an allow rule, with an error that says so.
func refusedRules(t *testing.T, rules map[string]string) {
	t.Helper()
	for text, say := range rules {
		if _, err := ParseRule(Allow, text); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v, want it to say %q", text, err, say)
		}
	}
}
