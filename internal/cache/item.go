package cache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"

	"bawn.dev/bawn/internal/sys/diskuse"
)

// Item describes an entry of any kind, whole or damaged.
type Item struct {
	Kind string
	Key  string
	Path string          // its folder
	Size int64           // disk space in use, in bytes
	Meta json.RawMessage // of Entry; empty when damaged
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
			i.Size = diskuse.Of(i.Path)
			list = append(list, i)
		}
	}
	return list, nil
}
