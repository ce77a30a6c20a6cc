package store

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// TestWhatACrashLeft goes when the next sandbox is made, whatever its name.
func TestWhatACrashLeft(t *testing.T) {
	s, err := OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	half := s.Dir("half")
	if err := os.MkdirAll(half.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(half.File(DiskFile), []byte("much"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"one", "two"} {
		if _, err := s.Create(&sandbox.Spec{Name: n, Dir: t.TempDir()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(half.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is there: %v", err)
	}
	if names, err := s.Names(); err != nil || len(names) != 2 {
		t.Errorf("%q, %v", names, err)
	}
}
