package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/egress"
	"bawn.dev/bawn/internal/packages"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/xdg"
)

// Packages that sandboxes share (package packages). They are fetched in the background, after a
// start of a sandbox that has caches and after each command in one: an agent that adds a package to
// the project writes it into the lock file.

// packagesFolder is the folder of the shared packages in the cache's.
const packagesFolder = "packages"

// CacheUsage describes what the shared packages of a kind take.
type CacheUsage = packages.Usage

// CacheResult is what FillCaches did for a kind.
type CacheResult = packages.Result

// packageStore returns the store of shared packages.
func packageStore() (*packages.Store, error) {
	dir, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	return packages.Open(filepath.Join(dir, packagesFolder)), nil
}

// cacheSources returns the shared packages of a spec as its guest sees them: read-only, and below the
// caches of the package managers. imageEnv is the environment of its image.
func cacheSources(spec *sandbox.Spec, imageEnv []string) (list []sandbox.Source, err error) {
	if len(spec.Caches) == 0 {
		return nil, nil
	}
	s, err := packageStore()
	if err != nil {
		return nil, err
	}
	for _, c := range spec.Caches {
		if err := s.Make(c); err != nil {
			return nil, fmt.Errorf("cache of packages: %w", err)
		}
		list = append(list, sandbox.Source{
			Host: s.Folder(c), Guest: sandbox.CacheShares + "/" + string(c), Mode: sandbox.ReadOnly,
			Over: c.Place(GuestUser().Home, imageEnv),
		})
	}
	return list, nil
}

// fillCaches starts a background process that fetches what the sandbox's caches lack.
func fillCaches(d store.Dir, spec *sandbox.Spec) {
	if len(spec.Caches) > 0 {
		_ = launch.FillCaches(d) // what it cannot do, the next one does
	}
}

// fillLimit bounds one FillCaches, with the time that it waits for another one.
const fillLimit = time.Hour

// lockPackages opens the store of shared packages and takes its lock.
func (e *Engine) lockPackages(ctx context.Context) (s *packages.Store, l *lockfile.Lock, err error) {
	if s, err = packageStore(); err != nil {
		return nil, nil, err
	}
	err = e.during("Waiting for another bawn command that fetches packages", func() error {
		l, err = s.Lock(ctx)
		return err
	})
	return s, l, err
}

// FillCaches fetches the packages that the lock files of a sandbox's project name, as far as the
// sandbox's rules allow its guest to fetch them.
func (e *Engine) FillCaches(ctx context.Context, spec *sandbox.Spec) ([]CacheResult, error) {
	ctx, cancel := context.WithTimeout(ctx, fillLimit)
	defer cancel()
	s, l, err := e.lockPackages(ctx)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return e.fillLocked(ctx, s, spec)
}

// cachesLock is held in the folder of a sandbox while a FillCachesInTurn waits for the store.
const cachesLock = "caches.lock"

// FillCachesInTurn is FillCaches for a process in the background, of which each command starts one. It
// does nothing if another one waits to fetch for the same sandbox: that one reads the lock files, the
// spec and the rules when its turn comes, so it finds what has changed until now.
func (e *Engine) FillCachesInTurn(ctx context.Context, name string) ([]CacheResult, error) {
	d := e.sandboxes.Dir(name)
	turn, err := lockfile.TryAcquire(d.File(cachesLock))
	if errors.Is(err, unix.EAGAIN) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fillLimit)
	defer cancel()
	s, l, err := e.lockPackages(ctx)
	turn.Close() // before anything is read: the next one has to read what changes from now on
	if err != nil {
		return nil, err
	}
	defer l.Close()
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	return e.fillLocked(ctx, s, spec)
}

// fillLocked is FillCaches under the store's lock.
func (e *Engine) fillLocked(ctx context.Context, s *packages.Store, spec *sandbox.Spec) ([]CacheResult, error) {
	rules, err := e.Rules(ctx, Scope{Sandbox: spec.Name})
	if err != nil {
		return nil, err
	}
	set := policy.Compile(rules)
	return s.Fill(ctx, packages.Request{
		Project: spec.Project.Host, Kinds: spec.Caches, Progress: e.progress(), Python: pythonOf(spec.Boot.ImageEnv),
		Allowed: func(address string) error { return mayRequest(set, address) },
	})
}

// pythonOf returns the version of Python that an image says it has, as the official images of Python do; ""
// if it does not say.
func pythonOf(imageEnv []string) (version string) {
	for _, v := range imageEnv {
		if key, value, _ := strings.Cut(v, "="); key == "PYTHON_VERSION" {
			version = value
		}
	}
	return version
}

// mayRequest returns an error unless the rules let a guest request a URL. The error has no user and
// no password of it.
func mayRequest(set *policy.Set, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("its address is not a URL")
	}
	u.User = nil
	var d policy.Decision
	if f, ok := flowOfHost(u); ok {
		d = egress.Check(set, f)
	} else {
		q, _, err := policy.ParseRequest("GET " + u.String())
		if err != nil {
			return fmt.Errorf("rules cannot be about %s: %w", u.Host, err)
		}
		d = egress.CheckRequest(set, q)
	}
	if !d.Allow {
		return fmt.Errorf("the sandbox's rules do not let it fetch packages from %s: %s", u.Host, d.Reason)
	}
	return nil
}

// flowOfHost returns what a guest reaches a registry by that is no name: a service of the host, or an
// address.
func flowOfHost(u *url.URL) (f policy.Flow, ok bool) {
	port := uint16(443)
	if u.Scheme == "http" {
		port = 80
	}
	if n, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		port = uint16(n)
	}
	f = policy.Flow{Port: port, Proto: policy.TCP}
	addr, err := netip.ParseAddr(u.Hostname())
	switch {
	case u.Hostname() == "localhost", err == nil && addr.Unmap().IsLoopback():
		f.Host = true
	case err == nil:
		f.Addr = addr.Unmap()
	default:
		return f, false
	}
	return f, true
}

// Caches describes the shared packages of all kinds.
func (e *Engine) Caches() ([]CacheUsage, error) {
	s, err := packageStore()
	if err != nil {
		return nil, err
	}
	return s.Usage()
}

// PruneCaches removes the shared packages that no lock file has named for so long, and returns how
// many bytes they took.
func (e *Engine) PruneCaches(ctx context.Context, unused time.Duration) (freed int64, err error) {
	s, l, err := e.lockPackages(ctx)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return s.Prune(time.Now().Add(-unused))
}
