package versions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t *testing.T, root, at, text string) {
	t.Helper()
	path := filepath.Join(root, at)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// TestList: each version has its path and the guarded path that it belongs to; drafts, names that
// lead elsewhere and what a server does not make are left out.
func TestList(t *testing.T) {
	root := t.TempDir()
	write(t, root, "p:.envrc", "a")
	write(t, root, "d:sub/d:deep/p:.vscode/x/y", "long")
	write(t, root, "t:1/x", "draft")
	write(t, root, "d:../x", "no name")
	write(t, root, "stray", "x")
	if err := errors.Join(
		os.Symlink("/etc", filepath.Join(root, "d:link")), os.Symlink("/etc/passwd", filepath.Join(root, "p:link")),
		unix.Mkfifo(filepath.Join(root, "p:gone"), 0o600), unix.Mkfifo(filepath.Join(root, "d:sub/d:deep/p:.vscode/fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	list, err := List(root, 3)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range list {
		got = append(got, fmt.Sprintf("%s %s %s %q %v %s", v.Path, v.Slot, v.Kind, v.Data, v.Whole, v.Target))
	}
	want := []string{
		`.envrc .envrc file "a" true `, `gone gone removed "" false `, `link link link "" false /etc/passwd`, `sub/deep/.vscode/x/y sub/deep/.vscode file "" false `,
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list, err := List(filepath.Join(root, "none"), 1); err != nil || len(list) != 0 {
		t.Errorf("no store: %v, %v", list, err)
	}
}

// TestDrop: a version goes if it is what was taken over, and as a whole.
func TestDrop(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(root string) error
		gone   bool
	}{
		{"as taken", func(string) error { return nil }, true},
		{"contents", func(r string) error { return os.WriteFile(r+"/d:a/p:hooks/x", []byte("2"), 0o600) }, false},
		{"mode", func(r string) error { return os.Chmod(r+"/d:a/p:hooks/x", 0o700) }, false},
		{"one more", func(r string) error { return os.WriteFile(r+"/d:a/p:hooks/z", []byte("2"), 0o600) }, false},
		{"one less", func(r string) error { return os.Remove(r + "/d:a/p:hooks/x") }, false},
		{"left by a kill", func(r string) error { return os.MkdirAll(r+"/d:a/t:taken/x", 0o700) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			write(t, root, "d:a/p:hooks/x", "1")
			write(t, root, "d:a/p:hooks/sub/y", "1")
			write(t, root, "d:a/p:config", "1")
			list, err := List(root, 10)
			if err != nil {
				t.Fatal(err)
			}
			taken := slices.DeleteFunc(list, func(v Version) bool { return v.Slot != "a/hooks" })
			if err := test.change(root); err != nil {
				t.Fatal(err)
			}
			n, err := Drop(root, taken)
			if err != nil || (n == 1) != test.gone {
				t.Errorf("%d, %v", n, err)
			}
			if _, err := os.Lstat(root + "/d:a/p:hooks"); (err != nil) != test.gone {
				t.Errorf("the version: %v", err)
			}
			if _, err := os.Lstat(root + "/d:a/p:config"); err != nil {
				t.Errorf("another version: %v", err)
			}
			if _, err := os.Lstat(root + "/d:a/t:taken"); err == nil {
				t.Error("something is left aside")
			}
		})
	}
}
