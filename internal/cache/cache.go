// Package cache keeps what bawn fetched or built, so that it is fetched or built
// once.
//
// # Theory of operation
//
// An entry is a folder KIND/KEY with files and a manifest that holds the
// SHA-256 of each. Once in place it never changes: a newer version is another
// key. A Pointer is a small file of JSON whose "key" names the one to use now.
//
// Building: the builder holds the entry's lock (package lockfile; the kernel releases
// it however the process ends) and works in a folder of its own under tmp. The
// finished folder, its files flushed to the disk, is renamed into place. A process
// killed at any moment leaves either the old state or the new one, and perhaps a
// folder in tmp, which the next builder of that entry removes.
//
// Checking: hashing a gigabyte at each start would cost seconds. The stamp file
// therefore records, for each file, the size, inode, modification and change
// time that it had when its hash was last seen right. While these are the same
// nothing wrote to the file through this kernel (only the clock's owner can set
// a change time), and the check is one stat per file. When one differs the file
// is hashed again: if the hash is right, the stamp is renewed; if not, the entry is
// damaged and is built again when it is next needed.
//
// Not safe: damage below the file system (a failing disk) leaves the stamp as it is
// and is not noticed. Whoever can write to the folder as this user can replace
// manifest and file together: the cache protects against accidents, the folder's mode
// (0700) against other users.
package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Names in the cache and in an entry.
const (
	manifestFile = "manifest"
	stampFile    = "stamp"
	lockFolder   = "locks"
	tmpFolder    = "tmp"
	pointers     = "current"
	oldSuffix    = ".old"
)

// ErrAbsent means that the entry is not there.
var ErrAbsent = errors.New("not in the cache")

// ErrDamaged means that the entry is there, but not as it was written.
var ErrDamaged = errors.New("damaged in the cache")

// Dir is a cache in a folder.
type Dir struct{ path string }

// Open names the cache in the folder path, which is made when first written.
func Open(path string) Dir { return Dir{path} }

// Path returns the cache's folder.
func (d Dir) Path() string { return d.path }

// File is one file of an entry. Its name may have one folder: "boot/01-a.ko".
type File struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Entry is a whole, checked folder of the cache.
type Entry struct {
	Kind  string          `json:"kind"`
	Key   string          `json:"key"`
	Files map[string]File `json:"files"`
	// Meta is what the builder saved beside the files: any JSON value.
	Meta json.RawMessage `json:"meta,omitempty"`

	path string
}

// File returns the path of one of the entry's files.
func (e *Entry) File(name string) string { return filepath.Join(e.path, name) }

func (d Dir) entryPath(kind, key string) string { return filepath.Join(d.path, kind, key) }

// checkName keeps kind and key single, visible folder names.
func checkName(names ...string) error {
	for _, n := range names {
		if n == "" || n[0] == '.' || strings.ContainsAny(n, "/\x00") || len(n) > 200 {
			return fmt.Errorf("%q is not a valid name for a cache entry", n)
		}
	}
	return nil
}

// Remove deletes an entry. Files that a process has open stay until it closes
// them.
func (d Dir) Remove(kind, key string) error {
	if err := checkName(kind, key); err != nil {
		return err
	}
	path := d.entryPath(kind, key)
	// The manifest goes first: an entry half removed counts as damaged.
	if err := os.Remove(filepath.Join(path, manifestFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(path)
}

// Used records that the entry was used now, for Trim. In a cache that cannot be written
// it does nothing, and neither can Trim.
func (e *Entry) Used() {
	now := time.Now()
	_ = os.Chtimes(e.path, now, now)
}

// Trim removes entries of a kind until no more than keep are left, those unused for the
// longest time first.
func (d Dir) Trim(kind string, keep int) error {
	keys, err := d.Keys(kind)
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, key := range keys {
		if fi, err := os.Stat(d.entryPath(kind, key)); err == nil {
			used[key] = fi.ModTime()
		}
	}
	slices.SortFunc(keys, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, key := range keys[min(keep, len(keys)):] {
		err = errors.Join(err, d.Remove(kind, key))
	}
	return err
}

// Keys lists the entries of a kind, whole or not.
func (d Dir) Keys(kind string) ([]string, error) {
	des, err := os.ReadDir(filepath.Join(d.path, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, de := range des {
		if de.IsDir() && checkName(de.Name()) == nil {
			keys = append(keys, de.Name())
		}
	}
	return keys, nil
}

// Peek reads an entry's manifest without looking at its files.
func (d Dir) Peek(kind, key string) (*Entry, error) {
	if err := checkName(kind, key); err != nil {
		return nil, err
	}
	return d.read(kind, key)
}
