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
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/atomicfile"
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

// Path is the cache's folder.
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

// File is the path of one of the entry's files.
func (e *Entry) File(name string) string { return filepath.Join(e.path, name) }

func (d Dir) entryPath(kind, key string) string { return filepath.Join(d.path, kind, key) }

// checkName keeps kind and key single, visible folder names.
func checkName(names ...string) error {
	for _, n := range names {
		if n == "" || n[0] == '.' || strings.ContainsAny(n, "/\x00") || len(n) > 200 {
			return fmt.Errorf("%q is no name for a cache entry", n)
		}
	}
	return nil
}

// Lookup returns the entry when it is whole. It takes no lock. The error wraps
// ErrAbsent or ErrDamaged, or is one of the file system.
func (d Dir) Lookup(kind, key string) (*Entry, error) {
	if err := checkName(kind, key); err != nil {
		return nil, err
	}
	e, err := d.read(kind, key)
	if err != nil {
		return nil, err
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	return e, nil
}

// read reads and checks the manifest alone: the hash of the JSON on the first
// line, the JSON below.
func (d Dir) read(kind, key string) (*Entry, error) {
	path := d.entryPath(kind, key)
	b, err := os.ReadFile(filepath.Join(path, manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, serr := os.Lstat(path); serr == nil {
			return nil, fmt.Errorf("%s/%s has no manifest: %w", kind, key, ErrDamaged)
		}
		return nil, fmt.Errorf("%s/%s: %w", kind, key, ErrAbsent)
	}
	if err != nil {
		return nil, err
	}
	sum, body, _ := strings.Cut(string(b), "\n")
	if hashString(body) != sum {
		return nil, fmt.Errorf("manifest of %s/%s: %w", kind, key, ErrDamaged)
	}
	e := &Entry{path: path}
	if err := json.Unmarshal([]byte(body), e); err != nil || e.Kind != kind || e.Key != key {
		return nil, fmt.Errorf("manifest of %s/%s: %w", kind, key, ErrDamaged)
	}
	return e, nil
}

// stamp is the state of a file when its hash was last found right.
type stamp struct {
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"` // ns
	Ctime int64  `json:"ctime"` // ns
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return stamp{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, fmt.Errorf("%s is not a regular file", path)
	}
	return stamp{Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano()}, nil
}

// check compares the files with the manifest and hashes those that changed since they
// were last hashed.
func (e *Entry) check() error {
	stamps := map[string]stamp{}
	if b, err := os.ReadFile(filepath.Join(e.path, stampFile)); err == nil {
		_ = json.Unmarshal(b, &stamps) // unreadable: everything is hashed
	}
	renew := false
	for name, want := range e.Files {
		path := e.File(name)
		now, err := stampOf(path)
		if err != nil || now.Size != want.Size {
			return fmt.Errorf("%s: %w", path, ErrDamaged)
		}
		if stamps[name] == now {
			continue
		}
		sum, err := hashFile(path)
		if err != nil {
			return fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
		}
		if sum != want.SHA256 {
			return fmt.Errorf("%s: %w", path, ErrDamaged)
		}
		stamps[name], renew = now, true
	}
	if renew {
		// A cache that cannot be written still serves; it is only slower.
		_ = writeStamps(e.path, stamps)
	}
	return nil
}

// Build fills the empty folder dir with the files of an entry and returns what
// goes into Entry.Meta (nil for nothing).
type Build func(ctx context.Context, dir string) (meta any, err error)

// Ensure returns the entry, and builds it when it is absent or damaged. Two processes
// that want the same entry build it once: the second waits, and reports so to r.
func (d Dir) Ensure(ctx context.Context, kind, key string, r progress.Reporter, build Build) (*Entry, error) {
	present := func() (*Entry, error) { return d.Lookup(kind, key) }
	if e, err := present(); err == nil || !errors.Is(err, ErrAbsent) && !errors.Is(err, ErrDamaged) {
		return e, err
	}
	return Once(ctx, d, kind+"-"+key, r, present, func(dir string) (*Entry, error) {
		meta, err := build(ctx, dir)
		if err != nil {
			return nil, err
		}
		return d.Commit(kind, key, dir, meta)
	})
}

// Once returns what present finds. When present fails it takes the lock of that name in
// d, asks present again, since another process may have built it meanwhile, and then
// calls build with an empty folder on the cache's file system, which is removed
// afterwards. Waiting for the lock is reported to r and ends with ctx.
func Once[T any](ctx context.Context, d Dir, lock string, r progress.Reporter, present func() (T, error), build func(dir string) (T, error)) (T, error) {
	var none T
	if v, err := present(); err == nil {
		return v, nil
	}
	l, err := d.Lock(ctx, lock, r)
	if err != nil {
		return none, err
	}
	defer l.Unlock()
	if v, err := present(); err == nil {
		return v, nil
	}
	dir, err := l.Scratch()
	if err != nil {
		return none, err
	}
	defer RemoveAll(dir)
	return build(dir)
}

// Commit makes the folder dir, which must be on the cache's file system, the entry
// kind/key. An entry that is there is replaced. The caller holds a lock that covers
// the key. meta becomes Entry.Meta; nil is none.
func (d Dir) Commit(kind, key, dir string, meta any) (*Entry, error) {
	return d.commit(kind, dir, meta, func(*Entry) string { return key })
}

// CommitByContent is Commit under the SHA-256 of one of the folder's files as
// key. Entries by content need no lock of their own: an entry is only ever replaced by
// one with the same content.
func (d Dir) CommitByContent(kind, dir, name string, meta any) (*Entry, error) {
	return d.commit(kind, dir, meta, func(e *Entry) string { return e.Files[name].SHA256 })
}

func (d Dir) commit(kind, dir string, meta any, key func(*Entry) string) (*Entry, error) {
	e, err := seal(dir, kind, key, meta)
	if err != nil {
		return nil, fmt.Errorf("keep %s in the cache: %w", kind, err)
	}
	if err := os.MkdirAll(filepath.Join(d.path, kind), 0o700); err != nil {
		return nil, err
	}
	e.path = d.entryPath(kind, e.Key)
	if err := place(dir, e.path); err != nil {
		return nil, fmt.Errorf("keep %s/%s in the cache: %w", kind, e.Key, err)
	}
	return e, syncDir(filepath.Dir(e.path))
}

// seal hashes and flushes each file, then writes stamp and manifest.
func seal(dir, kind string, key func(*Entry) string, meta any) (*Entry, error) {
	e := &Entry{Kind: kind, Files: map[string]File{}, path: dir}
	if meta != nil {
		b, err := json.Marshal(meta)
		if err != nil {
			return nil, err
		}
		e.Meta = b
	}
	stamps := map[string]stamp{}
	err := filepath.WalkDir(dir, func(path string, de fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if de.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // a folder
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, st, err := sealFile(path)
		if err != nil {
			return err
		}
		e.Files[name], stamps[name] = f, st
		return nil
	})
	if err != nil {
		return nil, err
	}
	e.Key = key(e)
	if err := checkName(e.Kind, e.Key); err != nil {
		return nil, err
	}
	body, err := json.MarshalIndent(e, "", "\t")
	if err != nil {
		return nil, err
	}
	if err := writeStamps(dir, stamps); err != nil {
		return nil, err
	}
	if err := atomicfile.WriteMode(filepath.Join(dir, manifestFile), []byte(hashString(string(body))+"\n"+string(body)), 0o400); err != nil {
		return nil, err
	}
	return e, syncDir(dir)
}

func sealFile(path string) (File, stamp, error) {
	if err := os.Chmod(path, 0o400); err != nil {
		return File{}, stamp{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return File{}, stamp{}, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return File{}, stamp{}, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return File{}, stamp{}, err
	}
	st, err := stampOf(path)
	return File{Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, st, err
}

// place renames dir to path and removes what was there.
func place(dir, path string) error {
	err := os.Rename(dir, path)
	if err == nil || !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return err
	}
	// In one step where the file system can, so that no reader sees a gap.
	err = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, path, unix.RENAME_EXCHANGE)
	if err == nil {
		RemoveAll(dir)
		return nil
	}
	old := dir + oldSuffix
	if err := os.Rename(path, old); err != nil {
		return err
	}
	defer RemoveAll(old)
	return os.Rename(dir, path)
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

// Point writes the pointer name of a kind; v is any value that JSON can hold.
func (d Dir) Point(kind, name string, v any) error {
	if err := checkName(kind, name); err != nil {
		return err
	}
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	dir := filepath.Join(d.path, pointers, kind)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, name), append(b, '\n'))
}

// Pointer reads the pointer name of a kind into v. The error is ErrAbsent when there is
// none. A damaged one counts as absent, since nothing but a key is lost with it.
func (d Dir) Pointer(kind, name string, v any) error {
	if err := checkName(kind, name); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(d.path, pointers, kind, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || json.Unmarshal(b, v) != nil {
		return fmt.Errorf("%s %s: %w", kind, name, ErrAbsent)
	}
	return nil
}

// Pointers lists the names of a kind's pointers.
func (d Dir) Pointers(kind string) ([]string, error) {
	des, err := os.ReadDir(filepath.Join(d.path, pointers, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, de := range des {
		if de.Type().IsRegular() && checkName(de.Name()) == nil {
			names = append(names, de.Name())
		}
	}
	return names, err
}

// Unpoint removes a pointer.
func (d Dir) Unpoint(kind, name string) error {
	if err := checkName(kind, name); err != nil {
		return err
	}
	err := os.Remove(filepath.Join(d.path, pointers, kind, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
