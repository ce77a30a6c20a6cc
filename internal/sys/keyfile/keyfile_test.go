package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestRead: whoever comes at the same time gets one key, in a folder that others do not read.
func TestRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, "a.key")
	var made atomic.Int32
	create := func() error {
		made.Add(1)
		if err := os.WriteFile(path+".new", []byte("key"), 0o600); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			if b, err := Read(t.Context(), path, "start again", create); string(b) != "key" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	readers.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("the key was made %d times", n)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi, err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o602} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		b, err := Read(t.Context(), path, "start again", create)
		if err == nil || b != nil || !strings.HasSuffix(err.Error(), "remove it, and start again") {
			t.Errorf("%v: %q, %v", mode, b, err)
		}
	}
}

// TestAKeyThatCannotBeMade: the error is that of who makes it.
func TestAKeyThatCannotBeMade(t *testing.T) {
	want := errors.New("the disk is full")
	if _, err := Read(t.Context(), filepath.Join(t.TempDir(), "a.key"), "start again", func() error { return want }); !errors.Is(err, want) {
		t.Error(err)
	}
}
