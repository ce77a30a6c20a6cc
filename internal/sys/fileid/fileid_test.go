package fileid

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWhatChangesAnIdentity(t *testing.T) {
	for _, c := range []struct {
		what           string
		change         func(path string) error
		version, exact bool // whether it differs then
	}{
		{"nothing", func(string) error { return nil }, false, false},
		{"reading", func(p string) error { _, err := os.ReadFile(p); return err }, false, false},
		{"contents", func(p string) error { return os.WriteFile(p, []byte("other"), 0o600) }, true, true},
		{"contents of the same size", func(p string) error { return os.WriteFile(p, []byte("xyz"), 0o600) }, true, true},
		{"contents, with the time set back", func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, os.WriteFile(p, []byte("xyz"), 0o600), os.Chtimes(p, fi.ModTime(), fi.ModTime()))
		}, false, true},
		{"another file in its place", func(p string) error {
			fi, err := os.Stat(p)
			n := p + ".new"
			return errors.Join(err, os.WriteFile(n, []byte("abc"), 0o600), os.Chtimes(n, fi.ModTime(), fi.ModTime()), os.Rename(n, p))
		}, true, true},
		{"mode", func(p string) error { return os.Chmod(p, 0o640) }, false, true},
		{"another name", func(p string) error { return os.Link(p, p+".link") }, false, true},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
			t.Fatal(err)
		}
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, past, past); err != nil {
			t.Fatal(err)
		}
		v1, e1 := both(t, path)
		s1, err1 := StampOf(path)
		awaitTick(t, path)
		if err := c.change(path); err != nil {
			t.Fatal(err)
		}
		v2, e2 := both(t, path)
		s2, err2 := StampOf(path)
		if (v1 != v2) != c.version || (e1 != e2) != c.exact {
			t.Errorf("%s: version %q to %q, exact %q to %q", c.what, v1, v2, e1, e2)
		}
		if (s1 != s2) != c.exact || errors.Join(err1, err2) != nil {
			t.Errorf("%s: stamp %v to %v, %v, %v", c.what, s1, s2, err1, err2)
		}
	}
}

// awaitTick waits until a change of the file would get a later time: the kernel counts
// times of files in ticks.
func awaitTick(t *testing.T, path string) {
	t.Helper()
	probe := filepath.Join(t.TempDir(), "probe")
	_, before, err := stat(path)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if err := os.WriteFile(probe, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, now, err := stat(probe); err != nil || now.Ctim != before.Ctim {
			return
		}
	}
}

func TestSymbolicLinks(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "f"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Symlink("f", link)); err != nil {
		t.Fatal(err)
	}
	v1, e1 := both(t, path)
	v2, e2 := both(t, link)
	if v1 != v2 || e1 != e2 {
		t.Errorf("%q, %q and %q, %q", v1, e1, v2, e2)
	}
}

func TestMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err1 := Version(path)
	_, err2 := Exact(path)
	if !errors.Is(err1, fs.ErrNotExist) || !errors.Is(err2, fs.ErrNotExist) {
		t.Errorf("%v, %v", err1, err2)
	}
}

func both(t *testing.T, path string) (version, exact string) {
	t.Helper()
	version, err1 := Version(path)
	exact, err2 := Exact(path)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return version, exact
}
