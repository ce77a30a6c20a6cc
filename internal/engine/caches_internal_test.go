package engine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
)

// TestProjectCaches: what bawn.yaml adds is gone with it; what the person has set stays.
func TestProjectCaches(t *testing.T) {
	s := &sandbox.Spec{Caches: []sandbox.Cache{sandbox.CacheNPM}}
	addProjectSettings(s, sandbox.Added{Caches: sandbox.Caches})
	if slices.Sort(s.Caches); !slices.Equal(s.Caches, sandbox.Caches) {
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
	proc.Distrust(nil) // whose engine another test made is gone
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	spec := &sandbox.Spec{Caches: []sandbox.Cache{sandbox.CacheGo, sandbox.CacheNPM}}
	list, err := cacheSources(spec, []string{"GOPATH=/go"})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	home := GuestUser().Home
	for i, want := range []sandbox.Source{{Guest: "/opt/bawn/caches/go", Over: "/go/pkg/mod/cache/download"}, {Guest: "/opt/bawn/caches/npm", Over: home + "/.npm"}} {
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

// TestFillsInTurn: one process waits for the store in the background, and no more. What the project's
// lock files and the spec say when its turn comes counts.
func TestFillsInTurn(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("npm_config_registry", "http://127.0.0.1:1") // it is asked for nothing
	e, _ := newEngine(t)
	spec := &sandbox.Spec{Name: "shop", ID: sandbox.NewID(), Project: sandbox.Source{Host: t.TempDir()}, Caches: []sandbox.Cache{sandbox.CacheGo}}
	d, err := e.sandboxes.Create(spec)
	if err != nil {
		t.Fatal(err)
	}
	_, l, err := e.lockPackages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	type filled struct {
		results []CacheResult
		err     error
	}
	first := make(chan filled, 1)
	go func() {
		results, err := e.FillCachesInTurn(t.Context(), "shop")
		first <- filled{results, err}
	}()
	for held := false; !held; time.Sleep(time.Millisecond) {
		if held, err = lockfile.Held(d.File(cachesLock)); err != nil {
			t.Fatal(err)
		}
	}
	if results, err := e.FillCachesInTurn(t.Context(), "shop"); results != nil || err != nil {
		t.Errorf("the second one: %+v, %v", results, err)
	}
	spec.Caches = []sandbox.Cache{sandbox.CacheNPM}
	if err := errors.Join(d.WriteSpec(spec), os.WriteFile(filepath.Join(spec.Project.Host, "package-lock.json"), []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if got := <-first; got.err != nil || len(got.results) != 1 || got.results[0].Kind != sandbox.CacheNPM || got.results[0].Locks != 1 {
		t.Errorf("the first one: %+v", got)
	}
	if results, err := e.FillCachesInTurn(t.Context(), "shop"); err != nil || len(results) != 1 {
		t.Errorf("one after them: %+v, %v", results, err)
	}
}

// TestPythonOf: an image says which Python it has by the variable of the official images.
func TestPythonOf(t *testing.T) {
	if v := pythonOf([]string{"PATH=/usr/bin", "PYTHON_VERSION=3.11.0", "XPYTHON_VERSION=2", "PYTHON_VERSION=3.12.4"}); v != "3.12.4" {
		t.Error(v)
	}
	if v := pythonOf(nil); v != "" {
		t.Error(v)
	}
}
