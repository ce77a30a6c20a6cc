package guard

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Bounds of Present.
const (
	maxLooked = 20_000 // entries
	maxLevels = 6
)

// Present returns the hidden paths that a project has, from its root, at most so many; more is
// set if there may be others. It does not look into .git and node_modules, nor into more
// than 20,000 entries.
func (r *Rules) Present(root string, limit int) (list []string, more bool) {
	looked := 0
	_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return nil //nolint:nilerr // what cannot be read is left out
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		names := strings.Split(rel, "/")
		if looked++; looked > maxLooked || len(list) == limit {
			more = true
			return filepath.SkipAll
		}
		last := len(names) - 1
		if r.Candidate(names[last]) && r.hides(root, names, e) {
			list = append(list, rel)
			if e.IsDir() {
				return filepath.SkipDir
			}
		}
		if e.IsDir() && (len(names) >= maxLevels || e.Name() == ".git" || e.Name() == "node_modules") {
			return filepath.SkipDir
		}
		return nil
	})
	return list, more
}

func (r *Rules) hides(root string, names []string, e fs.DirEntry) bool {
	return r.hidden(names, e.IsDir, func(texts []string) bool {
		return e.Type().IsRegular() && contains(filepath.Join(root, filepath.Join(names...)), texts)
	})
}

// hidden reports whether a path is hidden that the guest did not make, in a directory of which
// nothing else is known.
func (r *Rules) hidden(names []string, isDir func() bool, contains func(texts []string) bool) bool {
	last := len(names) - 1
	kind, _ := r.Judge(Place{
		Dir: names[:last], Name: names[last],
		Has:      func(string) bool { return false },
		IsDir:    isDir,
		Contains: contains,
		Made:     func() bool { return false },
	})
	return kind == Hidden
}

func contains(path string, texts []string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	buf := make([]byte, 64<<10)
	n, _ := f.Read(buf)
	for _, t := range texts {
		if strings.Contains(string(buf[:n]), t) {
			return true
		}
	}
	return false
}

// Hides reports whether a path of a share, which the guest has a version of, is hidden from it
// by its name.
func (r *Rules) Hides(at string) bool {
	return r.byName(strings.Split(at, "/"), false)
}

// HidesIn is Hides for what the share at root has at the path now: a rule about a file's contents looks at them.
func (r *Rules) HidesIn(root, at string) bool { return r.hidesIn(root, strings.Split(at, "/"), false) }

// HidesAny is HidesIn for a file of a share, and for the directories on the way to it.
func (r *Rules) HidesAny(root, at string) bool {
	names := strings.Split(at, "/")
	for i := range names {
		if r.hidesIn(root, names[:i+1], i+1 < len(names)) {
			return true
		}
	}
	return false
}

func (r *Rules) hidesIn(root string, names []string, isDir bool) bool {
	path := filepath.Join(root, filepath.Join(names...))
	fi, err := os.Lstat(path)
	return r.hidden(names, func() bool { return isDir || err == nil && fi.IsDir() }, func(texts []string) bool {
		if err != nil {
			return !errors.Is(err, fs.ErrNotExist)
		}
		return fi.Mode().IsRegular() && contains(path, texts)
	})
}

func (r *Rules) byName(names []string, isDir bool) bool {
	return r.hidden(names, func() bool { return isDir }, func([]string) bool { return true })
}
