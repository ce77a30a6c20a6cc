package diskuse

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const mb = 1 << 20

// file makes a file of size bytes, of which the first data bytes are no hole.
func file(t *testing.T, path string, data, size int) *os.File {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(bytes.Repeat([]byte{1}, data)); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil { // some file systems allocate late
		t.Fatal(err)
	}
	return f
}

// near reports whether n is want bytes and a little for the file system's own.
func near(n int64, want int) bool { return n >= int64(want) && n < int64(want)+mb/2 }

func TestHolesTakeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := file(t, path, 2*mb, 100*mb)
	if n := Of(path); !near(n, 2*mb) {
		t.Errorf("Of is %d", n)
	}
	if n := OfFile(f); !near(n, 2*mb) {
		t.Errorf("OfFile is %d", n)
	}
}

func TestEachFileCountsOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	file(t, filepath.Join(dir, "a", "b", "one"), 2*mb, 2*mb)
	file(t, filepath.Join(dir, "two"), mb, mb)
	if err := os.Link(filepath.Join(dir, "a", "b", "one"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("two", filepath.Join(dir, "symlink")); err != nil {
		t.Fatal(err)
	}
	if n := Of(dir); !near(n, 3*mb) {
		t.Errorf("the folder takes %d", n)
	}
	var c Counter
	if n := c.Add(filepath.Join(dir, "a")); !near(n, 2*mb) {
		t.Errorf("first: %d", n)
	}
	if n := c.Add(filepath.Join(dir, "link")); n != 0 {
		t.Errorf("the same file under another name: %d", n)
	}
	if n := c.Add(dir); !near(n, mb) {
		t.Errorf("the rest: %d", n)
	}
}

func TestMissing(t *testing.T) {
	if n := Of(filepath.Join(t.TempDir(), "none")); n != 0 {
		t.Errorf("%d", n)
	}
}
