package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/sys/atomicfile"
)

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
