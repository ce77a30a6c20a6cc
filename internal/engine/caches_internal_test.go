package engine

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/policy"
)

// TestCachesAskWhatTheGuestMayAsk: the host asks a registry for a package if the rules let the guest
// request that very address.
func TestCachesAskWhatTheGuestMayAsk(t *testing.T) {
	set := func(lines ...string) *policy.Set {
		rules, err := policy.ParseFile("rules", []byte(strings.Join(lines, "\n")+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		return policy.Compile(rules)
	}
	const pkg = "https://registry.example.org/@a/b/-/b-1.0.0.tgz"
	for _, c := range []struct {
		rules   string
		address string
		allowed bool
	}{
		{"", pkg, false},
		{"allow registry.example.org", pkg, true},
		{"allow *.example.org", pkg, true},
		{"allow registry.example.org:80", pkg, false},
		{"allow registry.example.org;deny *.example.org", pkg, false},
		{"allow GET,HEAD https://registry.example.org/@a/**", pkg, true},
		{"allow GET https://registry.example.org/@c/**", pkg, false},
		{"allow POST https://registry.example.org/**", pkg, false},
		{"allow registry.example.org;deny https://registry.example.org/@a/**", pkg, false},
		{"allow registry.example.org:8443", "https://registry.example.org:8443/x/@v/v1.0.0.zip", true},
		{"allow registry.example.org", "https://user:secret@registry.example.org/a/-/a-1.0.0.tgz", true},
		{"", "https://user:secret@registry.example.org/a/-/a-1.0.0.tgz", false},
		{"allow host:4873", "http://127.0.0.1:4873/a/-/a-1.0.0.tgz", true},
		{"allow host:4873", "http://localhost:4873/a/-/a-1.0.0.tgz", true},
		{"allow host:4874", "http://127.0.0.1:4873/a/-/a-1.0.0.tgz", false},
		{"allow *.example.org", "http://127.0.0.1:4873/a/-/a-1.0.0.tgz", false},
		{"allow 192.0.2.7:443", "https://192.0.2.8/a/-/a-1.0.0.tgz", false},
	} {
		err := mayRequest(set(strings.Split(c.rules, ";")...), c.address)
		if (err == nil) != c.allowed {
			t.Errorf("%q, %s: %v", c.rules, c.address, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error has the password: %v", err)
		}
	}
}
