package agents

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/agents/registry"
	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/progress"
)

// Store keeps installed agents in the cache. Its methods may be called by several goroutines and
// processes at once: of two that install the same version one waits for the other.
type Store struct {
	Cache  cache.Dir
	Client *registry.Client
	Arch   string // of the guest, by Go's name
	// Guest is where the guest has programs and homes of agents: directories of their names below
	// these.
	GuestPrograms, GuestHomes string
}

// Installed is an agent in the cache.
type Installed struct {
	Name    string
	Version string
	Dir     string // its programs
}

const (
	kind = "agent" // of cache entry
	// layout changes whenever an entry would be made in another way.
	layout = "1"
)

// meta is what an entry of the cache notes.
type meta struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Node    string `json:"node,omitempty"`
}

// current is the version that new sandboxes get.
type current struct {
	Version string    `json:"version"`
	Checked time.Time `json:"checked"` // when the registry was last asked for a newer one
}

// Current returns the version that new sandboxes get and when the registry was last asked for a
// newer one; "" if none is installed.
func (s *Store) Current(name string) (version string, checked time.Time) {
	var c current
	if err := s.Cache.Pointer(kind, name, &c); err != nil {
		return "", time.Time{}
	}
	return c.Version, c.Checked
}

// Latest returns the version of the agent that its registry offers.
func (s *Store) Latest(ctx context.Context, a *Agent) (string, error) {
	p, err := s.Client.Package(ctx, a.Package, "latest")
	if err != nil {
		return "", err
	}
	return p.Version, nil
}

// MakeCurrent makes an installed version the one that new sandboxes get.
func (s *Store) MakeCurrent(name, version string) error {
	return s.Cache.Point(kind, name, current{version, time.Now().UTC()})
}

// Installed returns a version of the agent that is in the cache, or cache.ErrAbsent or
// cache.ErrDamaged.
func (s *Store) Installed(a *Agent, version string) (*Installed, error) {
	e, err := s.Cache.Lookup(kind, s.key(a, version))
	if err != nil {
		return nil, err
	}
	e.Used()
	return s.installed(a, e)
}

func (s *Store) installed(a *Agent, e *cache.Entry) (*Installed, error) {
	var m meta
	if err := json.Unmarshal(e.Meta, &m); err != nil {
		return nil, fmt.Errorf("agent %s: %w", a.Name, cache.ErrDamaged)
	}
	return &Installed{Name: a.Name, Version: m.Version, Dir: e.File(".")}, nil
}

// key returns the name of the entry of a version. What the agent's description changes in an
// entry is part of it.
func (s *Store) key(a *Agent, version string) string {
	b, _ := json.Marshal(a) // strings only: it cannot fail
	sum := sha256.Sum256([]byte(strings.Join([]string{layout, s.Arch, s.GuestPrograms, s.GuestHomes, instructions, string(b)}, "\x00")))
	return a.Name + "-" + version + "-" + hex.EncodeToString(sum[:6])
}

// Install returns a version of the agent, which it fetches if the cache does not have it. After
// an error nothing of it is left.
func (s *Store) Install(ctx context.Context, a *Agent, version string, r progress.Reporter) (*Installed, error) {
	e, err := s.Cache.Ensure(ctx, kind, s.key(a, version), r, func(ctx context.Context, dir string) (any, error) {
		return s.build(ctx, a, version, dir, r)
	})
	if err != nil {
		return nil, fmt.Errorf("install %s %s: %w", a.Name, version, err)
	}
	return s.installed(a, e)
}

// build fetches a version into dir.
func (s *Store) build(ctx context.Context, a *Agent, version, dir string, r progress.Reporter) (any, error) {
	p, err := s.Client.Package(ctx, a.Package, version)
	if err != nil {
		return nil, err
	}
	m := meta{Name: a.Name, Version: p.Version}
	if a.Platform != "" {
		if p, err = s.platform(ctx, a, p); err != nil {
			return nil, err
		}
	} else if len(p.Dependencies) > 0 {
		return nil, fmt.Errorf("package %s needs other packages, and bawn installs agents that are one package, or one for each platform: install it in a sandbox with npm", p.Name)
	}
	lib := filepath.Join(dir, "lib")
	for _, d := range []string{lib, filepath.Join(dir, "bin")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.Client.Unpack(ctx, p, lib, nil, r); err != nil {
		return nil, err
	}
	if err := s.checkProgram(a, lib); err != nil {
		return nil, err
	}
	if a.Node != "" {
		if m.Node, err = s.addNode(ctx, a.Node, dir, r); err != nil {
			return nil, err
		}
	}
	guest := s.GuestPrograms + "/" + a.Name
	script := a.script(guest, s.GuestHomes+"/"+a.Name, guest+"/lib/"+expand(a.Program, s.Arch))
	return m, errors.Join(
		os.WriteFile(filepath.Join(dir, "bin", a.Name), []byte(script), 0o700), //nolint:gosec // a program
		os.WriteFile(filepath.Join(dir, "instructions.md"), []byte(instructions), 0o600),
	)
}

// platform returns the package with the program for the guest, at the version that the agent's
// package names.
func (s *Store) platform(ctx context.Context, a *Agent, p *registry.Package) (*registry.Package, error) {
	name := expand(a.Platform, s.Arch)
	want, ok := p.Optional[name]
	if !ok {
		if want, ok = p.Dependencies[name]; !ok {
			return nil, fmt.Errorf("version %s of package %s has no %s, so it does not run in this guest", p.Version, p.Name, name)
		}
	}
	if alias, ok := strings.CutPrefix(want, "npm:"); ok { // npm:NAME@VERSION
		at := strings.LastIndexByte(alias, '@')
		if at <= 0 {
			return nil, fmt.Errorf("package %s names %s as %q", p.Name, name, want)
		}
		name, want = alias[:at], alias[at+1:]
	}
	return s.Client.Package(ctx, name, want)
}

// checkProgram makes the agent's program executable, and returns an error if the package has no
// such file.
func (s *Store) checkProgram(a *Agent, lib string) error {
	root, err := os.OpenRoot(lib)
	if err != nil {
		return err
	}
	defer root.Close()
	program := expand(a.Program, s.Arch)
	if fi, err := root.Stat(program); err != nil || !fi.Mode().IsRegular() {
		return fmt.Errorf("the package has no file %s: this version is laid out in another way; pin an older one with --agent-version, or change the agent in %s", program, FileName)
	}
	if a.Node != "" {
		return nil
	}
	return root.Chmod(program, 0o700)
}

// addNode adds the newest Node.js of a major version, and returns its version.
func (s *Store) addNode(ctx context.Context, major, dir string, r progress.Reporter) (string, error) {
	name := expand("node-linux-{cpu}", s.Arch)
	versions, err := s.Client.Versions(ctx, name)
	if err != nil {
		return "", err
	}
	version := newest(versions, major)
	if version == "" {
		return "", fmt.Errorf("package %s has no version %s", name, major)
	}
	p, err := s.Client.Package(ctx, name, version)
	if err != nil {
		return "", err
	}
	node := filepath.Join(dir, "node")
	if err := os.Mkdir(node, 0o700); err != nil {
		return "", err
	}
	only := func(file string) bool { return file == "bin/node" || file == "LICENSE" }
	return version, s.Client.Unpack(ctx, p, node, only, r)
}

// newest returns the newest release of a major version: MAJOR.MINOR.PATCH, without a suffix.
func newest(versions []string, major string) (best string) {
	var top []int
	for _, v := range versions {
		var n []int
		for part := range strings.SplitSeq(v, ".") {
			if i, err := strconv.Atoi(part); err == nil {
				n = append(n, i)
			}
		}
		if len(n) == 3 && strings.Count(v, ".") == 2 && strings.HasPrefix(v, major+".") && slices.CompareFunc(n, top, cmp.Compare) > 0 {
			best, top = v, n
		}
	}
	return best
}

// Prune removes the versions of an agent that are neither current nor in keep, by their folders.
func (s *Store) Prune(name string, keep []string) error {
	now, _ := s.Current(name)
	keys, err := s.Cache.Keys(kind)
	for _, key := range keys {
		e, perr := s.Cache.Peek(kind, key)
		var m meta
		if perr != nil || json.Unmarshal(e.Meta, &m) != nil || m.Name != name || m.Version == now || slices.Contains(keep, e.File(".")) {
			continue
		}
		err = errors.Join(err, s.Cache.Remove(kind, key))
	}
	return err
}
