package sandbox

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// Cache is a kind of packages that sandboxes share by a cache of the host (package packages).
type Cache string

// The kinds of packages that can be shared.
const (
	CacheCargo Cache = "cargo"
	CacheGo    Cache = "go"
	CacheNPM   Cache = "npm"
	CachePip   Cache = "pip"
)

// Caches are all kinds, in the order of their names.
var Caches = []Cache{CacheCargo, CacheGo, CacheNPM, CachePip}

// CacheShares is where a guest has the shared packages of a kind: below this, in a directory of
// its name.
const CacheShares = "/opt/bawn/caches"

// ParseCaches reads kinds with commas between them.
func ParseCaches(s string) (list []Cache, err error) {
	for word := range strings.SplitSeq(s, ",") {
		c := Cache(strings.TrimSpace(word))
		if err := c.check(); err != nil {
			return nil, err
		}
		if !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	slices.Sort(list)
	return list, nil
}

// check returns an error unless there is such a kind.
func (c Cache) check() error {
	if slices.Contains(Caches, c) {
		return nil
	}
	var known []string
	for _, k := range Caches {
		known = append(known, string(k))
	}
	all := strings.Join(known, ", ")
	if c == "apt" {
		return fmt.Errorf("cache %q: bawn shares only packages that it can verify by itself, those of %s; a volume at the cache's directory shares others among sandboxes that you trust alike", c, all)
	}
	return fmt.Errorf("cache %q: there is none; choose from %s", c, all)
}

// Place returns the directory of a guest where a package manager looks for downloaded packages of
// the kind: what the shared ones are put under. env has KEY=VALUE, of which the last counts.
func (c Cache) Place(home string, env []string) string {
	get := func(name string) (value string) {
		for _, v := range env {
			if key, val, _ := strings.Cut(v, "="); key == name {
				value = val
			}
		}
		if !filepath.IsAbs(value) {
			return ""
		}
		return filepath.Clean(value)
	}
	switch c {
	case CacheCargo: // the Cargo Book, Cargo Home; the whole registry, so that cargo has what it unpacks beside the archives
		if dir := get("CARGO_HOME"); dir != "" {
			return dir + "/registry"
		}
		return home + "/.cargo/registry"
	case CacheNPM: // npm-config(7), cache; the whole of it, within which npm makes hard links and removes directories
		for _, name := range []string{"npm_config_cache", "NPM_CONFIG_CACHE"} {
			if dir := get(name); dir != "" {
				return dir
			}
		}
		return home + "/.npm"
	case CachePip: // pip's documentation, Caching
		if dir := get("PIP_CACHE_DIR"); dir != "" {
			return dir
		}
		if dir := get("XDG_CACHE_HOME"); dir != "" {
			return dir + "/pip"
		}
		return home + "/.cache/pip"
	case CacheGo: // go help environment, GOMODCACHE
		if dir := get("GOMODCACHE"); dir != "" {
			return dir + "/cache/download"
		}
		first, _, _ := strings.Cut(get("GOPATH"), ":")
		if first == "" {
			first = home + "/go"
		}
		return first + "/pkg/mod/cache/download"
	}
	return ""
}

func checkCaches(list []Cache) error {
	for i, c := range list {
		if err := c.check(); err != nil {
			return badField("caches", "%v", err)
		}
		if slices.Contains(list[:i], c) {
			return badField("caches", "%s is given twice", c)
		}
	}
	return nil
}
