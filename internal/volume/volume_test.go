package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// TestLife: a volume is made with an empty directory for the guest, is found, and is removed with
// all that a guest has left in it.
func TestLife(t *testing.T) {
	s := Open(filepath.Join(t.TempDir(), "volumes"))
	if names, err := s.Names(); err != nil || len(names) > 0 {
		t.Errorf("before the first: %q, %v", names, err)
	}
	l, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	made, err := s.Create("cache", MinSize)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(made.Data()); err != nil || fi.Mode() != fs.ModeDir|0o700 {
		t.Errorf("its directory: %v, %v", fi, err)
	}
	if _, err := s.Create("cache", MinSize); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one of that name: %v", err)
	}
	for _, size := range []int64{-1, 1, MaxSize + 1} {
		if _, err := s.Create("other", size); err == nil {
			t.Errorf("a size of %d", size)
		}
	}
	if found, err := Of(made.Data()); err != nil || *found != *made || found.Size != MinSize {
		t.Errorf("by its directory: %+v, %v", found, err)
	}
	if found, err := s.Get("cache"); err != nil || *found != *made {
		t.Errorf("%+v, %v; made %+v", found, err, made)
	}
	if err := os.MkdirAll(filepath.Join(made.Data(), "a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(made.Data(), "a"), 0o500); err != nil {
		t.Fatal(err)
	}
	if err := remove(s, "cache"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("cache"); !errors.Is(err, ErrNone) {
		t.Errorf("after its removal: %v", err)
	}
	if err := remove(s, "cache"); !errors.Is(err, ErrNone) {
		t.Errorf("removed twice: %v", err)
	}
	onlyLock(t, s)
}

// remove takes a volume out of the store, and removes its files.
func remove(s *Store, name string) error {
	gone, err := s.TakeOut(name)
	if err != nil {
		return err
	}
	return gone.Remove()
}

// onlyLock fails the test if the store has anything but its lock.
func onlyLock(t *testing.T, s *Store) {
	t.Helper()
	entries, err := os.ReadDir(s.Root())
	if err != nil || len(entries) != 1 || entries[0].Name() != lockFile {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestNames: a name cannot lead out of the store's folder, and no volume has the name of a folder
// that is being made or of a file.
func TestNames(t *testing.T) {
	s := Open(t.TempDir())
	l, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".a-1", "A", "-a", "a_b", "a\x00", lockFile} {
		_, gerr := s.Get(name)
		_, cerr := s.Create(name, 0)
		if rerr := remove(s, name); gerr == nil || cerr == nil || rerr == nil {
			t.Errorf("%q: %v, %v, %v", name, gerr, cerr, rerr)
		}
	}
}

// TestRemovedByOneProcess: as long as files of a removed volume are there, no other process begins to
// remove them too, in whatever order the folder lists its lock and its files.
func TestRemovedByOneProcess(t *testing.T) {
	s := Open(t.TempDir())
	for i := range 8 {
		v, err := s.Create(fmt.Sprint("v", i), 0)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 500 {
			if err := os.WriteFile(filepath.Join(v.Data(), fmt.Sprint(n)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		gone, err := s.TakeOut(v.Name)
		if err != nil {
			t.Fatal(err)
		}
		removed := make(chan error, 1)
		go func() { removed <- gone.Remove() }()
		for done := false; !done; {
			select {
			case err := <-removed:
				if done = true; err != nil {
					t.Error(err)
				}
			default:
				list, err := s.Leftovers()
				if err != nil {
					t.Error(err)
				}
				for _, g := range list {
					if files, _ := os.ReadDir(filepath.Join(g.path, v.Name, sandbox.VolumeData)); len(files) > 0 {
						t.Errorf("a second process removes %d files of %s", len(files), v.Name)
					}
					_ = g.Remove()
				}
			}
		}
	}
}

// TestKilled: what a killed process left is no volume, does not stand in the way of one, and is
// swept. A folder without settings is damaged, and can be removed.
func TestKilled(t *testing.T) {
	s := Open(t.TempDir())
	l, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, left := range []string{".cache-1/data", ".cache-2/cache/data/x", "odd/data"} {
		if err := os.MkdirAll(filepath.Join(s.Root(), left), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := s.Names(); err != nil || !slices.Equal(names, []string{"odd"}) {
		t.Errorf("names %q, %v", names, err)
	}
	if _, err := s.Create("cache", MinSize); err != nil {
		t.Error(err)
	}
	if _, err := s.Get("odd"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("without settings: %v", err)
	}
	list, err := s.Leftovers()
	if err != nil || len(list) != 2 {
		t.Errorf("leftovers %v, %v", list, err)
	}
	if other, err := s.Leftovers(); err != nil || len(other) > 0 {
		t.Errorf("leftovers that another process removes: %v, %v", other, err)
	}
	for _, g := range list {
		err = errors.Join(err, g.Remove())
	}
	if err := errors.Join(err, remove(s, "odd"), remove(s, "cache")); err != nil {
		t.Error(err)
	}
	onlyLock(t, s)
}
