// Package packages keeps packages of cargo, Go, npm and pip that sandboxes share, so that each is fetched
// once.
//
// Theory of operation. A sandbox's project has lock files: package-lock.json, go.sum, Cargo.lock,
// requirements.txt, uv.lock, poetry.lock, pdm.lock, pylock.toml. They name
// packages with their hashes. The host reads the lock files, fetches from the registry those of
// the packages that the store does not have, and keeps a package only if it has the hash of the
// lock file. Guests see the store read-only; what they write over it is on their own disks, and is
// never read by the host. So no byte of the store comes from a guest: each one came from the
// registry that the host's own settings name, by the package's own address there.
//
// A guest can write to the lock files. A line of one makes the host ask that registry for a package
// of that name, and nothing else: it does not name the host, the path or the place in the store.
// Fill asks only for what the sandbox's rules allow the guest to request itself, so that names of
// packages carry nothing out that the guest could not send. A hash that is wrong keeps a package
// out; it does not keep it out for other lock files.
//
// The layout is that of the package managers' own caches, by content or by name and version, so that
// they use a store below their cache without settings:
//
//	npm/_cacache/content-v2/sha512/HH/HH/HHH...  contents, without the index
//	go/MODULE/@v/VERSION.zip ...                 GOMODCACHE/cache/download
//	cargo/cache/..., cargo/index/...             CARGO_HOME/registry (cargo.go)
//	pip/http-v2/..., pip/sha256/..., pip/wheels  pip's cache (pip.go)
//
// npm's index, which maps addresses to contents, is left out: npm finds the contents by the hash in
// the lock file, and checks them again.
//
// A file is written beside its place, flushed and renamed to it. A process that is killed leaves
// whole files, and perhaps some in tmp, which the next Fill removes. Files are removed by Trim, those
// first that no lock file has named for the longest time.
//
// # Not safe
//
// A registry that serves a malicious package under its name is believed as the guest would believe
// it. A guest can read what other projects use.
package packages

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// Names in the store's folder, beside those of kinds.
const (
	lockName  = "lock"
	tmpFolder = "tmp"
)

// MaxSize is how much of the host's disk the store may take, in bytes.
const MaxSize = 8 << 30

// Store is the packages of one user. Its methods may be called by several processes at once.
type Store struct {
	root  string
	max   int64
	stall time.Duration // how long a registry may send nothing

	placing sync.Mutex // held while a file and what is beside it are replaced
}

// Open returns the store in a folder, which need not exist.
func Open(root string) *Store { return &Store{root: root, max: MaxSize, stall: stallLimit} }

// Folder returns the folder of a kind, which guests see.
func (s *Store) Folder(kind sandbox.Cache) string { return filepath.Join(s.root, string(kind)) }

// Make makes the folder of a kind if it is missing.
func (s *Store) Make(kind sandbox.Cache) error {
	err := os.MkdirAll(s.Folder(kind), 0o700)
	if err == nil && kind == sandbox.CacheCargo {
		err = makeCargo(s.Folder(kind))
	}
	return err
}

// Lock takes the right to change the store, and removes what killed processes have left. It waits
// while another process has that right, until ctx ends.
func (s *Store) Lock(ctx context.Context) (*lockfile.Lock, error) {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return nil, err
	}
	l, err := lockfile.Acquire(ctx, filepath.Join(s.root, lockName))
	if err != nil {
		return nil, err
	}
	tmp := filepath.Join(s.root, tmpFolder)
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// Usage is what the packages of a kind take.
type Usage struct {
	Kind  sandbox.Cache `json:"kind"`
	Files int           `json:"files"`
	Bytes int64         `json:"bytes"`
	Named time.Time     `json:"named,omitzero"` // when a lock file last named one; zero if there is none
}

// Usage describes all kinds.
func (s *Store) Usage() (list []Usage, err error) {
	for _, kind := range sandbox.Caches {
		files, ferr := s.files(kind)
		err = errors.Join(err, ferr)
		u := Usage{Kind: kind, Files: len(files)}
		for _, f := range files {
			u.Bytes += f.size
			if f.named.After(u.Named) {
				u.Named = f.named
			}
		}
		list = append(list, u)
	}
	return list, err
}

// kept is a file of the store.
type kept struct {
	path  string
	size  int64 // on the disk
	named time.Time
}

// onDisk returns what a file of so many bytes takes on the disk: whole blocks, so that small files
// without end count.
func onDisk(bytes int64) int64 {
	const block = 4096
	return (bytes + block - 1) / block * block
}

// files returns the files of a kind.
func (s *Store) files(kind sandbox.Cache) (list []kept, err error) {
	err = filepath.WalkDir(s.Folder(kind), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err // a link is another name of a directory
		}
		fi, err := e.Info()
		if err == nil {
			list = append(list, kept{path, onDisk(fi.Size()), fi.ModTime()})
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // no folder, or a file that was removed meanwhile
	}
	return list, err
}

// Prune removes the packages that no lock file has named since a time, and returns how many bytes
// they took. The caller holds the Lock.
func (s *Store) Prune(since time.Time) (freed int64, err error) {
	defer s.removeLinks()
	for _, kind := range sandbox.Caches {
		files, err := s.files(kind)
		if err != nil {
			return freed, err
		}
		for _, f := range files {
			if !f.named.Before(since) {
				continue
			}
			if err := os.Remove(f.path); err != nil {
				return freed, err
			}
			freed += f.size
		}
	}
	return freed, nil
}

// removeLinks removes links to files that were removed: pip fails at one where it expects a wheel.
func (s *Store) removeLinks() {
	for _, kind := range sandbox.Caches {
		_ = filepath.WalkDir(s.Folder(kind), func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type() == fs.ModeSymlink {
				if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
					_ = os.Remove(path)
				}
			}
			return nil
		})
	}
}

// trim removes files until the store takes no more than it may. The caller holds the lock.
func (s *Store) trim() error {
	var all []kept
	var sum int64
	for _, kind := range sandbox.Caches {
		files, err := s.files(kind)
		if err != nil {
			return err
		}
		all = append(all, files...)
	}
	for _, f := range all {
		sum += f.size
	}
	slices.SortFunc(all, func(a, b kept) int { return a.named.Compare(b.named) })
	if sum > s.max {
		defer s.removeLinks()
	}
	for _, f := range all {
		if sum <= s.max {
			return nil
		}
		if err := os.Remove(f.path); err != nil {
			return fmt.Errorf("remove a package: %w", err)
		}
		sum -= f.size
	}
	return nil
}
