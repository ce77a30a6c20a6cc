package packages

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/regular"
)

// Bounds of the search for lock files in a project, which guests write to.
const (
	maxLock    = 8 << 20  // bytes of a lock file; the largest that are known have 3 MiB
	maxLocks   = 64       // lock files
	maxText    = 64 << 20 // bytes of all lock files
	maxDepth   = 4        // directories that a lock file lies in
	maxEntries = 100_000  // entries of directories that are looked at
)

// lockKinds are the lock files by their names.
var lockKinds = map[string]sandbox.Cache{
	"package-lock.json": sandbox.CacheNPM, "npm-shrinkwrap.json": sandbox.CacheNPM,
	"go.sum": sandbox.CacheGo, "go.work.sum": sandbox.CacheGo,
	"Cargo.lock": sandbox.CacheCargo,
}

// skipped are directories that have no lock files of the project's own.
var skipped = []string{".git", "node_modules", "vendor", "target", ".venv", ".gradle"}

// kindOf returns the kind of packages that a file of that name locks.
func kindOf(name string) (kind sandbox.Cache, isLock bool) {
	if strings.HasPrefix(name, "requirements") && strings.HasSuffix(name, ".txt") {
		return sandbox.CachePip, true
	}
	if pythonLock(name) != nil {
		return sandbox.CachePip, true
	}
	kind, isLock = lockKinds[name]
	return kind, isLock
}

// lock is a lock file.
type lock struct {
	path string // in the project
	text []byte
}

// findLocks returns the lock files in a project. It follows no link out of it, and leaves out what
// it cannot read.
func findLocks(project string) (map[sandbox.Cache][]lock, error) {
	root, err := os.OpenRoot(project)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := search{root: root, found: map[sandbox.Cache][]lock{}}
	s.dirs = []string{"."}
	for depth := 0; depth <= maxDepth && len(s.dirs) > 0; depth++ {
		level := s.dirs
		s.dirs = nil
		for _, dir := range level {
			s.look(dir)
		}
	}
	return s.found, nil
}

// search is the state of findLocks.
type search struct {
	root    *os.Root
	found   map[sandbox.Cache][]lock
	locks   int
	text    int64 // bytes of the lock files
	entries int
	dirs    []string // of the next level
}

// look looks at the entries of a directory.
func (s *search) look(dir string) {
	d, err := s.root.OpenFile(dir, os.O_RDONLY|regular.Flags, 0)
	if err != nil {
		return
	}
	defer d.Close()
	for s.entries < maxEntries {
		list, err := d.ReadDir(1024)
		s.entries += len(list)
		for _, e := range list {
			s.entry(path.Join(dir, e.Name()), e)
		}
		if err != nil || len(list) == 0 {
			return // at the end, or not a directory
		}
	}
}

func (s *search) entry(name string, e os.DirEntry) {
	kind, isLock := kindOf(e.Name())
	switch {
	case e.IsDir() && !slices.Contains(skipped, e.Name()):
		s.dirs = append(s.dirs, name)
	case isLock && e.Type().IsRegular() && s.locks < maxLocks:
		text, err := regular.ReadIn(s.root, name, min(maxLock, maxText-s.text))
		if err != nil {
			return
		}
		s.locks++
		s.text += int64(len(text))
		s.found[kind] = append(s.found[kind], lock{name, text})
	}
}

// sourceOf returns the registry of a kind, by the host's settings.
func sourceOf(kind sandbox.Cache, r *Request) (*source, error) {
	switch kind {
	case sandbox.CacheCargo:
		return cargoSource()
	case sandbox.CachePip:
		return pipSource(pythons(r))
	case sandbox.CacheNPM:
		return npmSource()
	case sandbox.CacheGo:
		return goSource()
	}
	return nil, fmt.Errorf("%q: no such kind of packages", kind)
}

// errHash means that a package is not the one of the lock file.
var errHash = errors.New("the registry's package does not have the hash of the lock file")
