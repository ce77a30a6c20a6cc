package engine

import (
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
)

// TestProjectCaches: what bawn.yaml adds is gone with it; what the person has set stays.
func TestProjectCaches(t *testing.T) {
	s := &sandbox.Spec{Caches: []sandbox.Cache{sandbox.CacheNPM}}
	addProjectSettings(s, sandbox.Added{Caches: sandbox.Caches})
	if !slices.Equal(s.Caches, []sandbox.Cache{sandbox.CacheNPM, sandbox.CacheGo}) {
		t.Errorf("with bawn.yaml: %q", s.Caches)
	}
	if keys := awaitingStart(s, sandbox.Added{}); !slices.Equal(keys, []string{"caches"}) {
		t.Errorf("a start would change %q", keys)
	}
	removeProjectSettings(s)
	if !slices.Equal(s.Caches, []sandbox.Cache{sandbox.CacheNPM}) {
		t.Errorf("without bawn.yaml: %q", s.Caches)
	}
	if changed, err := (&SpecChange{Caches: &[]sandbox.Cache{}}).apply(s, sandbox.Added{}); err != nil || !slices.Equal(changed, []string{"caches"}) || len(s.Caches) > 0 {
		t.Errorf("%q, %v; %q", changed, err, s.Caches)
	}
}

// TestCacheSources: the guest sees the shared packages read-only, below the cache of the package
// manager, where its image has that.
func TestCacheSources(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	spec := &sandbox.Spec{Caches: []sandbox.Cache{sandbox.CacheGo, sandbox.CacheNPM}}
	list, err := cacheSources(spec, []string{"GOPATH=/go"})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	home := GuestUser().Home
	for i, want := range []sandbox.Source{{Guest: "/opt/bawn/caches/go", Over: "/go/pkg/mod/cache/download"}, {Guest: "/opt/bawn/caches/npm", Over: home + "/.npm/_cacache"}} {
		if got := list[i]; !got.ReadOnly() || got.Guest != want.Guest || got.Over != want.Over {
			t.Errorf("%+v", got)
		}
	}
	spec.Boot.Caches = list
	if all := spec.Sources(); len(all) != 3 || all[2] != list[1] {
		t.Errorf("%+v", all)
	}
}

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
