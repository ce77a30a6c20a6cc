package share

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// TestARenameDoesNotOvertakeTheGuard makes a file in a directory while that is renamed to the place
// of a guarded one and back.
func TestARenameDoesNotOvertakeTheGuard(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	root := f.tempRoot(t)
	h := header(rootID)
	var dir fuse.EntryOut
	must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, "x", &dir))
	in := header(dir.NodeId)
	const rounds = 3000
	var both sync.WaitGroup
	both.Go(func() {
		for range rounds {
			_ = f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "x", ".git")
			_ = f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, ".git", "x")
		}
	})
	both.Go(func() {
		for range rounds {
			var out fuse.CreateOut
			if f.Create(nil, &fuse.CreateIn{InHeader: in, Flags: unix.O_RDWR, Mode: 0o644}, "config", &out) == fuse.OK {
				if _, err := os.Lstat(filepath.Join(root, ".git/config")); err == nil {
					t.Error("the host has .git/config")
				}
				f.release(out.Fh)
			}
			_ = f.Unlink(nil, &in, "config")
		}
	})
	both.Wait()
}

// TestADirectoryThatTheHostMovedIsJudgedByItsNewPath: the guest holds the old one open.
func TestADirectoryThatTheHostMovedIsJudgedByItsNewPath(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	root := f.tempRoot(t)
	h := header(rootID)
	var dir fuse.EntryOut
	must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, "x", &dir))
	in := header(dir.NodeId)
	create(t, f, dir.NodeId, "free", unix.O_RDWR, 0o644)
	if err := os.Rename(filepath.Join(root, "x"), filepath.Join(root, ".git")); err != nil {
		t.Fatal(err)
	}
	must(t, f.Create(nil, &fuse.CreateIn{InHeader: in, Flags: unix.O_RDWR, Mode: 0o644}, "config", &fuse.CreateOut{}))
	if _, err := os.Lstat(filepath.Join(root, ".git/config")); err == nil {
		t.Error("the host has .git/config")
	}
	lookup(t, f, lookup(t, f, rootID, ".git"), "config") // the guest has
}

// TestAProcessWorksOnInADirectoryThatTheHostMoved, or one above it: its kernel does not look
// the directory up again.
func TestAProcessWorksOnInADirectoryThatTheHostMoved(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	root := f.tempRoot(t)
	var d, sub, other fuse.EntryOut
	must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID), Mode: 0o755}, "d", &d))
	must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(d.NodeId), Mode: 0o755}, "sub", &sub))
	must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID), Mode: 0o755}, "other", &other))
	create(t, f, sub.NodeId, "before", unix.O_RDWR, 0o644)
	for i, to := range []string{"e", "other/d", "f"} {
		from := []string{"d", "e", "other/d"}[i]
		if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
		create(t, f, sub.NodeId, "after"+strconv.Itoa(i), unix.O_RDWR, 0o644)
		if _, err := os.Lstat(filepath.Join(root, to, "sub/after"+strconv.Itoa(i))); err != nil {
			t.Error(err)
		}
	}
	// Out of the share it leads nowhere.
	out := t.TempDir()
	if err := os.Rename(filepath.Join(root, "f"), filepath.Join(out, "f")); err != nil {
		t.Fatal(err)
	}
	if st := f.Create(nil, &fuse.CreateIn{InHeader: header(sub.NodeId), Flags: unix.O_RDWR, Mode: 0o644}, "out", &fuse.CreateOut{}); st != fuse.Status(unix.ESTALE) {
		t.Error(st)
	}
}

// TestAProcessStaysInADirectoryThatTheHostMoved: one that has only looked the directory up, or
// listed its parent, and nothing in it.
func TestAProcessStaysInADirectoryThatTheHostMoved(t *testing.T) {
	for name, enter := range map[string]func(*testing.T, *fileSystem) uint64{
		"looked up": func(t *testing.T, f *fileSystem) uint64 { return lookup(t, f, rootID, "d") },
		"listed": func(t *testing.T, f *fileSystem) uint64 {
			id := lookup(t, f, rootID, "d")
			f.tree.mu.Lock()
			f.tree.closeFD(f.tree.byID[id]) // as a list of the parent tells of it
			f.tree.mu.Unlock()
			var o fuse.OpenOut
			must(t, f.OpenDir(nil, &fuse.OpenIn{InHeader: header(id)}, &o))
			f.ReleaseDir(&fuse.ReleaseIn{Fh: o.Fh})
			return id
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTest(t, Options{})
			root := f.tempRoot(t)
			must(t, fuse.ToStatus(os.Mkdir(filepath.Join(root, "d"), 0o755)))
			must(t, fuse.ToStatus(os.WriteFile(filepath.Join(root, "d", "file"), nil, 0o644)))
			id := enter(t, f)
			must(t, fuse.ToStatus(os.Rename(filepath.Join(root, "d"), filepath.Join(root, "e"))))
			must(t, f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(id)}, &fuse.AttrOut{}))
			in, o := fuse.OpenIn{InHeader: header(id)}, fuse.OpenOut{}
			if st := f.OpenDir(nil, &in, &o); st == fuse.Status(unix.ESTALE) { // the guest's kernel asks again (open(2))
				must(t, f.OpenDir(nil, &in, &o))
			}
			f.ReleaseDir(&fuse.ReleaseIn{Fh: o.Fh})
			lookup(t, f, id, "file")
			create(t, f, id, "new", unix.O_RDWR, 0o644)
			if _, err := os.Lstat(filepath.Join(root, "e", "new")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDeepDirectoriesAreJudgedByTheirWay: a path that is longer than the kernel shows.
func TestDeepDirectoriesAreJudgedByTheirWay(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	id := uint64(rootID)
	for range 30 {
		var out fuse.EntryOut
		must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(id), Mode: 0o755}, strings.Repeat("d", 200), &out))
		id = out.NodeId
	}
	create(t, f, id, "file", unix.O_RDWR, 0o644)
	if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(id), Mode: 0o755}, ".vscode", &fuse.EntryOut{}); st == fuse.OK {
		t.Error("the store has a path of that length")
	}
}

// TestPrivateVersionsFollowTheirDirectory: by a rename, an exchange and a removal.
func TestPrivateVersionsFollowTheirDirectory(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	h := header(rootID)
	ids := map[string]uint64{}
	for _, name := range []string{"a", "b", "c"} {
		var out fuse.EntryOut
		must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, name, &out))
		ids[name] = out.NodeId
		if name != "c" {
			file := create(t, f, out.NodeId, ".envrc", unix.O_RDWR, 0o644)
			must(t, write(f, file.Fh, 0, 0, "of "+name))
		}
	}
	rename := func(from, to string, flags uint32) {
		t.Helper()
		must(t, f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID, Flags: flags}, from, to))
	}
	has := func(dir, want string) {
		t.Helper()
		var e fuse.EntryOut
		d := header(lookup(t, f, rootID, dir))
		must(t, f.Lookup(nil, &d, ".envrc", &e))
		if want == "" {
			if e.NodeId != 0 {
				t.Errorf("%s has a version", dir)
			}
			return
		}
		var open fuse.OpenOut
		must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId)}, &open))
		if got := read(t, f, open.Fh); got != want {
			t.Errorf("%s has %q, want %q", dir, got, want)
		}
	}
	rename("a", "b", unix.RENAME_EXCHANGE)
	has("a", "of b")
	has("b", "of a")
	rename("b", "c", unix.RENAME_EXCHANGE)
	has("b", "")
	has("c", "of a")
	rename("c", "d", 0)
	has("d", "of a")
	if st := f.Rmdir(nil, &h, "d"); st != fuse.Status(unix.ENOTEMPTY) {
		t.Errorf("rmdir of a directory with a version: %v", st)
	}
	d := header(lookup(t, f, rootID, "d"))
	must(t, f.Unlink(nil, &d, ".envrc"))
	must(t, f.Rmdir(nil, &h, "d"))
	var out fuse.EntryOut
	must(t, f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, "d", &out))
	has("d", "")
}

// TestAShellStaysInADirectoryThatTheHostMoved: with a kernel, which asks again where the answer is
// "stale" (open(2)). The shell has done nothing in the directory before.
func TestAShellStaysInADirectoryThatTheHostMoved(t *testing.T) {
	mounted, f := mountTest(t, Options{})
	root := f.tempRoot(t)
	must(t, fuse.ToStatus(os.MkdirAll(filepath.Join(root, "above", "d"), 0o755)))
	must(t, fuse.ToStatus(os.WriteFile(filepath.Join(root, "above", "d", "f"), []byte("x\n"), 0o644)))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-euc", `cd "$0"; echo there; read x; ls; cat f; echo y >g; ls; read x; stat -c %F .; ls`, filepath.Join(mounted, "above", "d"))
	in, err := c.StdinPipe()
	must(t, fuse.ToStatus(err))
	out, err := c.StdoutPipe()
	must(t, fuse.ToStatus(err))
	must(t, fuse.ToStatus(c.Start()))
	lines := bufio.NewScanner(out)
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if !lines.Scan() || lines.Text() != w {
				t.Fatalf("%q, want %q", lines.Text(), w)
			}
		}
	}
	expect("there")
	must(t, fuse.ToStatus(os.Rename(filepath.Join(root, "above", "d"), filepath.Join(root, "above", "e"))))
	_, _ = io.WriteString(in, "\n")
	expect("f", "x", "f", "g")
	must(t, fuse.ToStatus(os.Rename(filepath.Join(root, "above"), filepath.Join(root, "top"))))
	_, _ = io.WriteString(in, "\n")
	expect("directory", "f", "g")
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "top", "e", "g")); err != nil || string(b) != "y\n" {
		t.Errorf("%q, %v", b, err)
	}
}
