package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

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
