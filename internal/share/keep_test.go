package share

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/undo"
)

// newKeptTest is newTest for a share that keeps what the guest changes.
func newKeptTest(t *testing.T) (f *fileSystem, root, store string) {
	t.Helper()
	root, store = t.TempDir(), t.TempDir()
	f = newTest(t, Options{Root: root, Undo: store})
	t.Cleanup(f.undo.Close)
	return f, root, store
}

// undoAll takes back what was changed since a restore point.
func undoAll(t *testing.T, root, store string, to int) *undo.Result {
	t.Helper()
	s, err := undo.Open(store)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	q := undo.Request{To: to}
	plan, err := s.Plan(dir, q)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Apply(dir, q, plan)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// listing describes a directory: paths, modes, contents, times of files, and user attributes.
func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v", strings.TrimPrefix(p, root), fi.Mode())
		switch {
		case fi.Mode().IsRegular():
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			buf := make([]byte, 100)
			n, _ := unix.Getxattr(p, ownerAttribute, buf)
			fmt.Fprintf(&b, " %q %d %q", text, fi.ModTime().UnixNano(), buf[:max(n, 0)])
		case fi.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			b.WriteString(" " + to)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// edit opens a file, writes to it, and closes it.
func edit(t *testing.T, f *fileSystem, dir uint64, name string, flags uint32, data string) {
	t.Helper()
	id := lookup(t, f, dir, name)
	var out fuse.OpenOut
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: flags}, &out); st != fuse.OK {
		t.Fatalf("open %s: %v", name, st)
	}
	if st := write(f, out.Fh, 0, 0, data); st != fuse.OK {
		t.Fatalf("write %s: %v", name, st)
	}
	f.release(out.Fh)
}

func must(t *testing.T, st fuse.Status) {
	t.Helper()
	if st != fuse.OK {
		t.Fatal(st)
	}
}

// TestWhatTheGuestChangesCanBeUndone makes every kind of change by FUSE requests.
func TestWhatTheGuestChangesCanBeUndone(t *testing.T) {
	h := header(rootID)
	for name, change := range map[string]func(t *testing.T, f *fileSystem){
		"write":    func(t *testing.T, f *fileSystem) { edit(t, f, rootID, "a", unix.O_RDWR, "X") },
		"truncate": func(t *testing.T, f *fileSystem) { edit(t, f, rootID, "a", unix.O_WRONLY|unix.O_TRUNC, "X") },
		"size": func(t *testing.T, f *fileSystem) {
			in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(lookup(t, f, rootID, "a")), Valid: fuse.FATTR_SIZE, Size: 1}}
			must(t, f.SetAttr(nil, &in, &fuse.AttrOut{}))
		},
		"mode and owner": func(t *testing.T, f *fileSystem) {
			id := lookup(t, f, rootID, "a")
			chmod(t, f, id, 0o4755)
			chown(t, f, id, 1234, 1234)
		},
		"create": func(t *testing.T, f *fileSystem) {
			out := create(t, f, rootID, "new", unix.O_RDWR, 0o644)
			must(t, write(f, out.Fh, 0, 0, "new"))
			f.release(out.Fh)
		},
		"a link and a FIFO": func(t *testing.T, f *fileSystem) {
			must(t, f.Symlink(nil, &h, "/etc/passwd", "link", &fuse.EntryOut{}))
			must(t, f.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFIFO | 0o644}, "fifo", &fuse.EntryOut{}))
		},
		"unlink": func(t *testing.T, f *fileSystem) { must(t, f.Unlink(nil, &h, "a")) },
		"unlink, with the file open": func(t *testing.T, f *fileSystem) {
			var out fuse.OpenOut
			must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "a")), Flags: unix.O_RDWR}, &out))
			must(t, f.Unlink(nil, &h, "a"))
			must(t, write(f, out.Fh, 0, 0, "late"))
			f.release(out.Fh)
		},
		"an editor's save": func(t *testing.T, f *fileSystem) {
			out := create(t, f, rootID, "a.tmp", unix.O_RDWR, 0o644)
			must(t, write(f, out.Fh, 0, 0, "saved"))
			must(t, f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "a.tmp", "a"))
			must(t, write(f, out.Fh, 0, 0, "and written again"))
			f.release(out.Fh)
		},
		"a hard link is written": func(t *testing.T, f *fileSystem) {
			must(t, f.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: lookup(t, f, rootID, "a")}, "b", &fuse.EntryOut{}))
			edit(t, f, rootID, "b", unix.O_RDWR, "X")
		},
		"directories": func(t *testing.T, f *fileSystem) {
			d := lookup(t, f, rootID, "d")
			must(t, f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "d", "n"))
			edit(t, f, d, "x", unix.O_RDWR, "X")
			made := mkdirAs(t, f, h, "d", 0o755)
			create(t, f, made.NodeId, "x", unix.O_RDWR, 0o644)
			dh := header(d)
			must(t, f.Unlink(nil, &dh, "y"))
		},
		"directories that are exchanged": func(t *testing.T, f *fileSystem) {
			d := lookup(t, f, rootID, "d")
			must(t, f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID, Flags: unix.RENAME_EXCHANGE}, "d", "e"))
			edit(t, f, d, "x", unix.O_RDWR, "X")
		},
		"an empty directory goes": func(t *testing.T, f *fileSystem) { must(t, f.Rmdir(nil, &h, "empty")) },
	} {
		t.Run(name, func(t *testing.T) {
			f, root, store := newKeptTest(t)
			for _, d := range []string{"d", "e", "empty"} {
				if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"a", "d/x", "d/y", "e/z"} {
				if err := os.WriteFile(filepath.Join(root, name), []byte("contents of "+name), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			before := listing(t, root)
			change(t, f)
			if listing(t, root) == before {
				t.Fatal("nothing was changed")
			}
			if res := undoAll(t, root, store, 1); len(res.Kept) > 0 {
				t.Errorf("kept: %v", res.Kept)
			}
			if after := listing(t, root); after != before {
				t.Errorf("after the undo:\n%s\nand not\n%s", after, before)
			}
		})
	}
}

// TestAShareThatIsOnlyReadKeepsNothing: no restore point is made before something changes.
func TestAShareThatIsOnlyReadKeepsNothing(t *testing.T) {
	f, root, store := newKeptTest(t)
	if err := os.WriteFile(filepath.Join(root, "a"), []byte("a"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "a")), Flags: unix.O_RDWR}, &out))
	read(t, f, out.Fh)
	f.release(out.Fh)
	if list, err := os.ReadDir(store); err != nil || len(list) != 0 {
		t.Errorf("the store has %v, %v", list, err)
	}
}

// TestARestorePointBeginsAnew: after Mark the first change is recorded again, also through a
// file that was open before.
func TestARestorePointBeginsAnew(t *testing.T) {
	f, root, store := newKeptTest(t)
	if err := os.WriteFile(filepath.Join(root, "a"), []byte("first"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "a")), Flags: unix.O_RDWR}, &out))
	must(t, write(f, out.Fh, 0, 0, "second"))
	f.undo.Mark(undo.WhySession)
	must(t, write(f, out.Fh, 0, 0, "THIRD!"))
	f.release(out.Fh)
	for i, want := range []string{"second", "first"} {
		to := 2 - i
		t.Run(want, func(t *testing.T) {
			undoAll(t, root, store, to)
			if b, err := os.ReadFile(filepath.Join(root, "a")); err != nil || string(b) != want {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
}

// changedFile is a file of a share that the guest has written and holds open.
type changedFile struct {
	t           *testing.T
	f           *fileSystem
	root, store string
	id, fh      uint64 // of the guest
}

func newChangedFile(t *testing.T) *changedFile {
	t.Helper()
	f, root, store := newKeptTest(t)
	writeFile(t, filepath.Join(root, "a"), "first")
	id := lookup(t, f, rootID, "a")
	var out fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &out))
	must(t, write(f, out.Fh, 0, 0, "guest"))
	return &changedFile{t, f, root, store, id, out.Fh}
}

// work is the person's, who writes the file in place.
func (c *changedFile) work() {
	c.t.Helper()
	writeFile(c.t, filepath.Join(c.root, "a"), "the person's work")
}

// checkUndo checks that an undo of all leaves the file as it is now, and tells so.
func (c *changedFile) checkUndo() {
	c.t.Helper()
	want := readText(c.t, filepath.Join(c.root, "a"))
	res := undoAll(c.t, c.root, c.store, 1)
	if got := readText(c.t, filepath.Join(c.root, "a")); got != want || len(res.Kept) == 0 {
		c.t.Errorf("after the undo: %q, not %q; %+v", got, want, res)
	}
}

// TestAttackWorkOfThePersonBetweenTwoChanges: the guest changes a file, the person does, and the guest again, in
// one session or in two, so that the file looks as the guest left it. An undo must not take the
// person's work away.
func TestAttackWorkOfThePersonBetweenTwoChanges(t *testing.T) {
	for name, again := range map[string]func(t *testing.T, f *fileSystem, id uint64){
		"write": func(t *testing.T, f *fileSystem, id uint64) {
			t.Helper()
			var out fuse.OpenOut
			st := f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &out)
			if st != fuse.OK { // it was changed: an honest kernel looks it up again
				st = f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "a")), Flags: unix.O_RDWR}, &out)
			}
			must(t, st)
			must(t, write(f, out.Fh, 0, unix.O_APPEND, " and the guest's"))
			f.release(out.Fh)
		},
		"touch": func(t *testing.T, f *fileSystem, id uint64) {
			t.Helper()
			must(t, f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(id), Valid: fuse.FATTR_MTIME, Mtime: 7}}, &fuse.AttrOut{}))
		},
		"replace": func(t *testing.T, f *fileSystem, _ uint64) {
			t.Helper()
			f.release(create(t, f, rootID, "new", unix.O_RDWR, 0o644).Fh)
			must(t, f.Rename(nil, &fuse.RenameIn{InHeader: header(rootID), Newdir: rootID}, "new", "a"))
		},
	} {
		for _, sessions := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s in %d", name, sessions), func(t *testing.T) {
				c := newChangedFile(t)
				c.f.release(c.fh)
				c.work()
				if sessions == 2 {
					c.f.leftAll()
					c.f.undo.Mark(undo.WhySession)
				}
				again(t, c.f, c.id)
				c.checkUndo()
			})
		}
	}
}

// TestAFileThatTheGuestKeepsWritingIsItsOwn: writes of two processes of the guest, over two sessions.
func TestAFileThatTheGuestKeepsWritingIsItsOwn(t *testing.T) {
	f, root, store := newKeptTest(t)
	writeFile(t, filepath.Join(root, "log"), "first")
	id := lookup(t, f, rootID, "log")
	var a, b fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &a))
	for range 3 {
		must(t, write(f, a.Fh, 0, unix.O_APPEND, "a"))
	}
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &b))
	must(t, write(f, b.Fh, 0, unix.O_APPEND, "b"))
	must(t, write(f, a.Fh, 0, unix.O_APPEND, "a"))
	f.leftAll()
	f.undo.Mark(undo.WhySession)
	must(t, write(f, a.Fh, 0, unix.O_APPEND, "a"))
	f.release(a.Fh)
	must(t, write(f, b.Fh, 0, unix.O_APPEND, "b"))
	f.release(b.Fh)
	if res := undoAll(t, root, store, 1); readText(t, filepath.Join(root, "log")) != "first" {
		t.Errorf("%+v", res)
	}
}

// TestHardLinksComeBack: the names of one file that the guest wrote, removed or replaced are names of
// one file again after an undo.
func TestHardLinksComeBack(t *testing.T) {
	for what, change := range map[string]func(*testing.T, *fileSystem){
		"written": func(t *testing.T, f *fileSystem) { edit(t, f, 1, "a", unix.O_WRONLY, "new") },
		"removed": func(t *testing.T, f *fileSystem) {
			h := header(1)
			must(t, f.Unlink(nil, &h, "b"))
		},
		"replaced": func(t *testing.T, f *fileSystem) {
			must(t, f.Rename(nil, &fuse.RenameIn{InHeader: header(1), Newdir: 1}, "n", "a"))
		},
	} {
		t.Run(what, func(t *testing.T) {
			f, root, store := newKeptTest(t)
			a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
			if err := errors.Join(os.WriteFile(a, []byte("old"), 0o644), os.Link(a, b), os.WriteFile(filepath.Join(root, "n"), []byte("x"), 0o644)); err != nil {
				t.Fatal(err)
			}
			lookup(t, f, 1, "a") // both names are known to be in the share
			lookup(t, f, 1, "b")
			change(t, f)
			f.undo.Sync()
			undoAll(t, root, store, 1)
			first, err := os.Stat(a)
			if err != nil {
				t.Fatal(err)
			}
			if second, err := os.Stat(b); err != nil || !os.SameFile(first, second) {
				t.Errorf("a and b are two files: %v", err)
			}
			if text, err := os.ReadFile(b); err != nil || string(text) != "old" {
				t.Errorf("%q, %v", text, err)
			}
		})
	}
}
