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

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/atomicfile"
)

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
	stamps, err := e.sealFiles()
	if err != nil {
		return nil, err
	}
	e.Key = key(e)
	if err := checkName(e.Kind, e.Key); err != nil {
		return nil, err
	}
	if err := writeStamps(dir, stamps); err != nil {
		return nil, err
	}
	if err := e.writeManifest(); err != nil {
		return nil, err
	}
	return e, syncDir(dir)
}

// sealFiles fills e.Files from the folder, which it makes read-only but for this user.
func (e *Entry) sealFiles() (map[string]stamp, error) {
	stamps := map[string]stamp{}
	err := filepath.WalkDir(e.path, func(path string, de fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if de.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // a folder
		}
		name, err := filepath.Rel(e.path, path)
		if err != nil {
			return err
		}
		e.Files[name], stamps[name], err = sealFile(path)
		return err
	})
	return stamps, err
}

// writeManifest writes the hash of the entry's JSON on the first line, and the JSON below.
func (e *Entry) writeManifest() error {
	body, err := json.MarshalIndent(e, "", "\t")
	if err != nil {
		return err
	}
	b := append([]byte(hashString(string(body))+"\n"), body...)
	return atomicfile.WriteMode(filepath.Join(e.path, manifestFile), b, 0o400)
}

func sealFile(path string) (File, stamp, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return File{}, stamp{}, err
	}
	if err := os.Chmod(path, 0o400|fi.Mode().Perm()&0o100); err != nil { // a program stays one
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
