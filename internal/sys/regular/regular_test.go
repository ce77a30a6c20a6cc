package regular_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/regular"
)

// TestRead: what is no regular file is refused without a wait, a longer file is cut, and links are
// followed only where they may be.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(at("file"), []byte("12345"), 0o600),
		os.Symlink("file", at("link")),
		os.Symlink("gone", at("dangling")),
		os.Mkdir(at("dir"), 0o700),
		unix.Mkfifo(at("fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		limit int64
		flags int
		want  string
		err   error
	}{
		{"file", 5, 0, "12345", nil},
		{"file", 5, regular.NoFollow, "12345", nil},
		{"file", 4, 0, "1234", regular.ErrTooLarge},
		{"link", 5, 0, "12345", nil},
		{"link", 5, regular.NoFollow, "", unix.ELOOP},
		{"dangling", 5, 0, "", os.ErrNotExist},
		{"dir", 5, 0, "", regular.ErrNotRegular},
		{"fifo", 5, regular.NoFollow, "", regular.ErrNotRegular},
	} {
		b, err := regular.Read(at(c.name), c.limit, c.flags)
		if string(b) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s, %d: %q, %v", c.name, c.limit, b, err)
		}
		if err != nil && !strings.Contains(err.Error(), at(c.name)) {
			t.Errorf("%s: the error %q has no path", c.name, err)
		}
	}
	if _, err := regular.Open("/dev/null", 0); !errors.Is(err, regular.ErrNotRegular) {
		t.Errorf("/dev/null: %v", err)
	}
}

// TestReadOwn: a file that others can change is not read, nor a link.
func TestReadOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.WriteFile(file, []byte("12345"), 0o600), os.Symlink("file", file+".link")); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]error{0o600: nil, 0o644: nil, 0o620: regular.ErrWritable, 0o602: regular.ErrWritable} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if b, err := regular.ReadOwn(file, 5); !errors.Is(err, want) || (err == nil) != (string(b) == "12345") {
			t.Errorf("%v: %q, %v", mode, b, err)
		}
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := regular.ReadOwn(file, 4); !errors.Is(err, regular.ErrTooLarge) || string(b) != "1234" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := regular.ReadOwn(file+".link", 5); !errors.Is(err, unix.ELOOP) {
		t.Error("a link:", err)
	}
}

// TestReadBeneath follows no link, and leads out by nothing.
func TestReadBeneath(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "in")
	if err := errors.Join(os.MkdirAll(filepath.Join(inside, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "outside"), []byte("o"), 0o600),
		os.WriteFile(filepath.Join(inside, "sub", "file"), []byte("text"), 0o600), os.Symlink("sub", filepath.Join(inside, "link")), os.Symlink("sub/file", filepath.Join(inside, "to"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if b, err := regular.ReadBeneath(root, "sub/file", 10); err != nil || string(b) != "text" {
		t.Errorf("%q, %v", b, err)
	}
	for name, want := range map[string]error{"link/file": unix.ELOOP, "to": unix.ELOOP, "../outside": unix.EXDEV, filepath.Join(dir, "outside"): unix.EXDEV, "none": fs.ErrNotExist, "sub": regular.ErrNotRegular} {
		if b, err := regular.ReadBeneath(root, name, 10); !errors.Is(err, want) {
			t.Errorf("%s: %q, %v, want %v", name, b, err, want)
		}
	}
	if _, err := regular.ReadBeneath(root, "sub/file", 3); !errors.Is(err, regular.ErrTooLarge) {
		t.Error(err)
	}
}
