package workcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/mounttest"
	"bawn.dev/bawn/internal/sys/regular/regulartest"
)

// likeFiles describes all that is in a directory.
func likeFiles(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		what := fmt.Sprintf("%s %v %v %d %d", strings.TrimPrefix(p, root), fi.Mode(), fi.ModTime().UnixNano(), st.Uid, st.Gid)
		switch fi.Mode().Type() {
		case 0:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			value := make([]byte, 100)
			n, _ := unix.Getxattr(p, "user.bawn", value)
			what += fmt.Sprintf(" %d %x %q", st.Nlink, b[:min(len(b), 10)], value[:max(n, 0)])
		case fs.ModeSymlink:
			to, _ := os.Readlink(p)
			what += " " + to
		}
		all = append(all, what)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCopy(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	at := func(name string) string { return filepath.Join(from, name) }
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = errors.Join(
		os.MkdirAll(at("deep/er"), 0o755),
		os.WriteFile(at("deep/er/text"), []byte("text"), 0o640),
		os.WriteFile(at("empty"), nil, 0o600),
		os.WriteFile(at("run"), []byte("#!/bin/sh\n"), 0o755),
		os.WriteFile(at("sparse"), []byte("begin"), 0o600),
		os.Truncate(at("sparse"), 16<<20),
		os.Link(at("run"), at("deep/again")),
		os.Symlink("/etc/passwd", at("absolute")),
		os.Symlink("nowhere", at("deep/dangling")),
		os.Symlink(".", at("loop")),
		syscall.Mkfifo(at("pipe"), 0o600),
		os.Link(l.Addr().String(), at("socket")),
		os.WriteFile(at("line\nbreak"), []byte{1}, 0o600),
		os.Mkdir(at("closed"), 0o700),
		os.WriteFile(at("closed/file"), []byte{1}, 0o400),
		os.Chmod(at("closed"), 0o555),
		os.Chtimes(at("deep/er"), time.Time{}, time.Unix(1e9, 123456789)),
		os.Chtimes(at("deep/er/text"), time.Time{}, time.Unix(1e9, 123456789)),
		os.Chtimes(from, time.Time{}, time.Unix(1e9, 5)),
	)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Setxattr(at("run"), "user.bawn", []byte("x"), 0) // not on every file system
	t.Cleanup(func() { _ = errors.Join(Remove(from), Remove(to)) })
	if err := Copy(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	was, is := likeFiles(t, from), likeFiles(t, to)
	if !slices.Equal(was, is) {
		t.Errorf("the copy has\n%s\nnot\n%s", strings.Join(is, "\n"), strings.Join(was, "\n"))
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(to, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("a sparse file takes %d bytes, %v", st.Blocks*512, err)
	}
	if err := Copy(t.Context(), from, to); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over what is there: %v", err)
	}
	if now := likeFiles(t, to); !slices.Equal(now, is) {
		t.Error("what was there has changed")
	}
	if err := Remove(to); err != nil {
		t.Error(err)
	}
}

// TestCopyByClone: the copy of a project shares all blocks with it where the file system can do that,
// and is the same on another file system.
func TestCopyByClone(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	for _, typ := range mounttest.Cloning {
		t.Run(typ, func(t *testing.T) {
			top := mounttest.Loop(t, typ)
			from, to, elsewhere := filepath.Join(top, "from"), filepath.Join(top, "to"), filepath.Join(t.TempDir(), "to")
			data := make([]byte, 4<<20)
			for i := range data {
				data[i] = byte(i>>12 ^ i*7)
			}
			at := func(name string) string { return filepath.Join(from, name) }
			if err := errors.Join(os.MkdirAll(at("deep"), 0o750), os.WriteFile(at("one"), data, 0o640), os.WriteFile(at("deep/two"), data, 0o640),
				os.Link(at("one"), at("deep/one again")), os.Symlink("one", at("link")), unix.Setxattr(at("one"), "user.bawn", []byte("x"), 0)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(Copy(t.Context(), from, to), Copy(t.Context(), from, elsewhere)); err != nil {
				t.Fatal(err)
			}
			was := likeFiles(t, from)
			for _, root := range []string{to, elsewhere} {
				if is := likeFiles(t, root); !slices.Equal(is, was) {
					t.Errorf("the copy has\n%s\nnot\n%s", strings.Join(is, "\n"), strings.Join(was, "\n"))
				}
			}
			for _, name := range []string{"one", "deep/two"} {
				if shared, all := mounttest.Shared(t, filepath.Join(to, name)); shared != all || all < 4<<20 {
					t.Errorf("%d bytes of %d of %s were copied", all-shared, all, name)
				}
				if got, err := os.ReadFile(filepath.Join(elsewhere, name)); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s elsewhere is not the same: %v", name, err)
				}
			}
			if err := os.WriteFile(filepath.Join(to, "one"), []byte("changed"), 0o600); err != nil {
				t.Fatal(err)
			}
			if is := likeFiles(t, from); !slices.Equal(is, was) {
				t.Error("who writes to the copy changes the project")
			}
		})
	}
}

// TestCopyFails: half a copy goes, and what cannot be read is named.
func TestCopyFails(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "to")
	if err := os.WriteFile(filepath.Join(from, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Copy(ctx, from, to); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a copy: %v", err)
	}
	if os.Getuid() == 0 {
		return // who can read all
	}
	if err := os.Chmod(filepath.Join(from, "file"), 0); err != nil {
		t.Fatal(err)
	}
	if err := Copy(t.Context(), from, to); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), filepath.Join(from, "file")) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

// TestCopyOfChangingTree: files and directories that come and go are no failure,
// and a link in the place of a directory leads nowhere.
func TestCopyOfChangingTree(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := t.TempDir()
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(from, fmt.Sprint("stays", i)), bytes.Repeat([]byte("x"), 5000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	during := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
					f(i % 50)
					time.Sleep(50 * time.Microsecond) // others want a processor too
				}
			}
		})
	}
	during(func(i int) { // errors are what comes of two at once
		name := filepath.Join(from, fmt.Sprint("file", i))
		_ = os.WriteFile(name, bytes.Repeat([]byte("y"), 20000), 0o600)
		_ = os.Truncate(name, 100)
		_ = os.Remove(filepath.Join(from, fmt.Sprint("file", (i+25)%50)))
	})
	during(func(i int) {
		dir := filepath.Join(from, fmt.Sprint("dir", i))
		_ = os.Mkdir(dir, 0o700)
		_ = os.WriteFile(filepath.Join(dir, "key"), nil, 0o600)
		_ = os.RemoveAll(filepath.Join(from, fmt.Sprint("dir", (i+25)%50)))
	})
	copies := func(name string, n int) (failed error) {
		for i := range n {
			to := filepath.Join(t.TempDir(), fmt.Sprint(name, i))
			err := Copy(t.Context(), from, to)
			failed = errors.Join(failed, err)
			if left, _ := filepath.Glob(filepath.Join(to, "stays*")); err == nil && len(left) != 50 {
				t.Errorf("%d of 50 files were copied", len(left))
			}
			out, _ := exec.CommandContext(t.Context(), "grep", "-rl", "secret", filepath.Dir(to)).Output()
			if len(out) > 0 {
				t.Errorf("got out: %s", out)
			}
		}
		return failed
	}
	if err := copies("changes", 4); err != nil {
		t.Error(err)
	}
	during(func(int) { // a hostile guest; its own fork may fail
		dir := filepath.Join(from, "swapped")
		_ = os.Mkdir(dir, 0o700)
		_ = os.WriteFile(filepath.Join(dir, "key"), nil, 0o600)
		_ = os.RemoveAll(dir)
		_ = os.Symlink(outside, dir)
		_ = os.Remove(dir)
	})
	_ = copies("swapped", 6)
	close(done)
	wg.Wait()
}

// TestAttackLinksDuringTheCopy: while the project is copied for a fork, the guest exchanges a file for a link to a
// hidden file beside it, and a directory for a link to a hidden one. The fork would see their contents under the other
// names.
func TestAttackLinksDuringTheCopy(t *testing.T) {
	from, spare := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(from, name) }
	err := errors.Join(os.Mkdir(at("secrets"), 0o700), os.Mkdir(at("pub"), 0o700),
		os.WriteFile(at(".env"), []byte("hidden"), 0o600), os.WriteFile(at("secrets/key"), []byte("hidden"), 0o600),
		os.WriteFile(at("notes"), []byte("plain"), 0o600), os.WriteFile(at("pub/key"), []byte("plain"), 0o600),
		os.Symlink(".env", filepath.Join(spare, "notes")), os.Symlink("secrets", filepath.Join(spare, "pub")))
	if err != nil {
		t.Fatal(err)
	}
	regulartest.Exchange(t, [2]string{at("notes"), filepath.Join(spare, "notes")}, [2]string{at("pub"), filepath.Join(spare, "pub")})
	whole := 0
	for i := range 300 {
		to := filepath.Join(spare, fmt.Sprint("copy", i))
		if err := Copy(t.Context(), from, to); err != nil {
			continue // it was exchanged too often
		}
		for _, name := range []string{"notes", "pub/key"} {
			name := filepath.Join(to, name)
			if fi, err := os.Lstat(filepath.Dir(name)); err != nil || !fi.IsDir() {
				continue // a link, as it was
			}
			if fi, err := os.Lstat(name); err != nil || !fi.Mode().IsRegular() {
				continue // likewise
			}
			whole++
			if text, err := os.ReadFile(name); err != nil || string(text) != "plain" {
				t.Fatalf("%s: %q, %v", name, text, err)
			}
		}
		if err := Remove(to); err != nil {
			t.Fatal(err)
		}
	}
	if whole == 0 {
		t.Error("nothing was copied as a file")
	}
}
