package cache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Item is an entry as seen from outside: whole or damaged, of whatever kind.
type Item struct {
	Kind string
	Key  string
	Path string          // its folder
	Size int64           // what it takes on the disk, in bytes
	Meta json.RawMessage // what its builder wrote down; empty when damaged
}

// Items lists all entries of all kinds.
func (d Dir) Items() ([]Item, error) {
	des, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []Item
	for _, de := range des {
		kind := de.Name()
		if !de.IsDir() || checkName(kind) != nil || slices.Contains([]string{lockFolder, tmpFolder, pointers}, kind) {
			continue
		}
		keys, err := d.Keys(kind)
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			i := Item{Kind: kind, Key: key, Path: d.entryPath(kind, key)}
			if e, err := d.Peek(kind, key); err == nil {
				i.Meta = e.Meta
			}
			i.Size = Used(i.Path)
			list = append(list, i)
		}
	}
	return list, nil
}

// Discard removes an entry and the pointers to it.
func (d Dir) Discard(kind, key string) error {
	names, err := d.Pointers(kind)
	for _, n := range names {
		var p struct {
			Key string `json:"key"`
		}
		if d.Pointer(kind, n, &p) == nil && p.Key == key {
			err = errors.Join(err, d.Unpoint(kind, n))
		}
	}
	return errors.Join(err, d.Remove(kind, key))
}

// Used is what the files below a path take on the disk, in bytes. What cannot be
// looked at counts nothing.
func Used(path string) int64 {
	const block = 512 // of st_blocks (stat(2))
	var sum int64
	_ = filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(p, &st) == nil {
			sum += st.Blocks * block
		}
		return nil
	})
	return sum
}
