package versions

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
		{"removed by the guest", func(r string) error { return os.RemoveAll(r + "/d:a/p:hooks") }, true},
		{"left by a kill", func(r string) error { return os.Rename(r+"/d:a/p:hooks", r+"/d:a/a:hooks") }, true},
		{"made again since", func(r string) error { return os.MkdirAll(r+"/d:a/a:hooks/old", 0o700) }, true},
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
			if err := Recover(root); err != nil {
				t.Fatal(err)
			}
			// Another one, of a directory that is gone whole, comes first: it does not end the drop.
			n, err := Drop(root, []string{"A/hooks", "a/hooks"}, taken)
			if err != nil || (n == 2) != test.gone {
				t.Errorf("%d, %v", n, err)
			}
			if _, err := os.Lstat(root + "/d:a/p:hooks"); (err != nil) != test.gone {
				t.Errorf("the version: %v", err)
			}
			if _, err := os.Lstat(root + "/d:a/p:config"); err != nil {
				t.Errorf("another version: %v", err)
			}
			if _, err := os.Lstat(root + "/d:a/a:hooks"); err == nil {
				t.Error("something is left aside")
			}
		})
	}
}

// TestGone: what the guest has removed from a guarded directory of the host is found; what the host
// made there later, what the guest does not see, and directories that only one of both has are no
// part of it.
func TestGone(t *testing.T) {
	host, store := t.TempDir(), t.TempDir()
	for _, at := range []string{"hooks/keep", "hooks/gone", "hooks/sub/also", "hooks/sub/keep", "hooks/dir/one", "hooks/.env", "other/x", "old/kept", ".ssh/known_hosts"} {
		write(t, host, at, "1")
	}
	if err := os.Symlink("keep", filepath.Join(host, "hooks/link")); err != nil {
		t.Fatal(err)
	}
	write(t, store, "p:hooks/keep", "2")
	write(t, store, "p:hooks/sub/keep", "1")
	write(t, store, "p:new/x", "1")
	write(t, store, "p:.ssh/config", "1") // of its own, where the host's is hidden
	made := btime(t, filepath.Join(store, "p:hooks"))
	for later := made; !later.After(made); { // until the clock of the file system has gone on
		write(t, host, "hooks/later", "1")
		fi, err := os.Stat(filepath.Join(host, "hooks/later"))
		if err != nil {
			t.Fatal(err)
		}
		later = fi.ModTime()
	}
	if err := os.Rename(filepath.Join(host, "old"), filepath.Join(host, "hooks/old")); err != nil { // files that are older than the guest's version
		t.Fatal(err)
	}
	root, err := os.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	list, err := Gone(store, root, func(at string) bool { return at == "hooks/.env" || at == ".ssh" })
	var got []string
	for _, v := range list {
		got = append(got, fmt.Sprintf("%s of %s %s", v.Path, v.Slot, v.Kind))
	}
	want := []string{"hooks/dir/one of hooks removed", "hooks/gone of hooks removed", "hooks/link of hooks removed", "hooks/sub/also of hooks removed"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

// btime returns when a file was made.
func btime(t *testing.T, path string) time.Time {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		t.Skip("this file system does not say when a file was made")
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
}
