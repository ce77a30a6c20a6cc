package sandbox

import (
	"slices"
	"strings"
	"testing"
)

func TestParseCaches(t *testing.T) {
	for in, want := range map[string]string{"npm": "npm", "npm,go": "go npm", "npm , npm": "npm", "": "!there is none", "npm,": "!there is none", "cargo,apt,go": "!verify by itself", "go,cargo": "cargo go", "gems": "!choose from cargo, go, npm, pip", "NPM": "!there is none"} {
		list, err := ParseCaches(in)
		say, fails := strings.CutPrefix(want, "!")
		if fails != (err != nil) || err != nil && !strings.Contains(err.Error(), say) {
			t.Errorf("%q: %v", in, err)
			continue
		}
		var got []string
		for _, c := range list {
			got = append(got, string(c))
		}
		if !fails && strings.Join(got, " ") != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestCachePlace(t *testing.T) {
	for _, c := range []struct {
		kind Cache
		env  string
		want string
	}{
		{CacheCargo, "", "/home/u/.cargo/registry"},
		{CacheCargo, "CARGO_HOME=/usr/local/cargo", "/usr/local/cargo/registry"},
		{CacheCargo, "CARGO_HOME=.cargo", "/home/u/.cargo/registry"},
		{CachePip, "", "/home/u/.cache/pip"},
		{CachePip, "XDG_CACHE_HOME=/c", "/c/pip"},
		{CachePip, "XDG_CACHE_HOME=/c PIP_CACHE_DIR=/d", "/d"},
		{CachePip, "PIP_CACHE_DIR=off", "/home/u/.cache/pip"},
		{CacheNPM, "", "/home/u/.npm"},
		{CacheNPM, "npm_config_cache=/c/npm/", "/c/npm"},
		{CacheNPM, "NPM_CONFIG_CACHE=/c", "/c"},
		{CacheNPM, "npm_config_cache=relative", "/home/u/.npm"},
		{CacheGo, "", "/home/u/go/pkg/mod/cache/download"},
		{CacheGo, "GOPATH=/go", "/go/pkg/mod/cache/download"},
		{CacheGo, "GOPATH=/go:/other", "/go/pkg/mod/cache/download"},
		{CacheGo, "GOPATH=/go GOMODCACHE=/m", "/m/cache/download"},
		{CacheGo, "GOMODCACHE=/old GOMODCACHE=/m/../n", "/n/cache/download"},
	} {
		if got := c.kind.Place("/home/u", strings.Fields(c.env)); got != c.want {
			t.Errorf("%s with %q: %s, want %s", c.kind, c.env, got, c.want)
		}
	}
}

func TestCheckCaches(t *testing.T) {
	if err := checkCaches(slices.Clone(Caches)); err != nil {
		t.Error(err)
	}
	for _, list := range [][]Cache{{"apt"}, {"../x"}, {CacheGo, CacheGo}} {
		if checkCaches(list) == nil {
			t.Errorf("%q is accepted", list)
		}
	}
}
