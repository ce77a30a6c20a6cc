package share

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// newLinkedTest is a share whose file "a" has another name outside, in a store as package
// managers have one.
func newLinkedTest(t *testing.T) (f *fileSystem, root, stored string) {
	t.Helper()
	root = t.TempDir()
	stored = filepath.Join(t.TempDir(), "stored")
	if err := os.WriteFile(stored, []byte("of the store"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(stored, "user.of.the.store", []byte("1"), 0); err != nil {
		t.Skip("no extended attributes:", err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(stored), "undo"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(stored, filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	f = newTest(t, Options{Root: root, Undo: filepath.Join(filepath.Dir(stored), "undo")})
	return f, root, stored
}

// inode describes the file at a path of the host.
func inode(t *testing.T, path string) string {
	t.Helper()
	buf := make([]byte, maxAttributeList)
	n, err := unix.Listxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s%q", listing(t, path), buf[:n])
}

// TestAStoreOutsideKeepsItsFiles makes each kind of change to a file that a store outside of
// the share has too.
func TestAStoreOutsideKeepsItsFiles(t *testing.T) {
	attr := func(valid uint32, mode uint32, size uint64) func(t *testing.T, f *fileSystem, id uint64) {
		return func(t *testing.T, f *fileSystem, id uint64) {
			in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(id), Valid: valid, Mode: mode, Size: size, Mtime: 1}}
			must(t, f.SetAttr(nil, &in, &fuse.AttrOut{}))
		}
	}
	for name, change := range map[string]func(t *testing.T, f *fileSystem, id uint64){
		"write":    func(t *testing.T, f *fileSystem, _ uint64) { edit(t, f, rootID, "a", unix.O_RDWR, "X") },
		"truncate": func(t *testing.T, f *fileSystem, _ uint64) { edit(t, f, rootID, "a", unix.O_WRONLY|unix.O_TRUNC, "X") },
		"size":     attr(fuse.FATTR_SIZE, 0, 1),
		"mode":     attr(fuse.FATTR_MODE, 0o755, 0),
		"time":     attr(fuse.FATTR_MTIME, 0, 0),
		"owner":    func(t *testing.T, f *fileSystem, id uint64) { chown(t, f, id, 1234, 1234) },
		"an attribute": func(t *testing.T, f *fileSystem, id uint64) {
			must(t, f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(id)}, "user.x", []byte("x")))
		},
		"an attribute goes": func(t *testing.T, f *fileSystem, id uint64) {
			h := header(id)
			must(t, f.RemoveXAttr(nil, &h, "user.of.the.store"))
		},
		"room": func(t *testing.T, f *fileSystem, id uint64) {
			var out fuse.OpenOut
			must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &out))
			must(t, f.Fallocate(nil, &fuse.FallocateIn{Fh: out.Fh, Length: 4096}))
			f.release(out.Fh)
		},
		"a write after its name went": func(t *testing.T, f *fileSystem, id uint64) {
			var out fuse.OpenOut
			must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDONLY}, &out))
			h := header(rootID)
			must(t, f.Unlink(nil, &h, "a"))
			var w fuse.OpenOut
			must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &w))
			must(t, write(f, w.Fh, 0, 0, "X"))
			if got := read(t, f, out.Fh); !strings.HasPrefix(got, "X") {
				t.Errorf("the file that was open reads %q", got)
			}
		},
		"a name that the guest made": func(t *testing.T, f *fileSystem, id uint64) {
			must(t, f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: id}, "b", &fuse.EntryOut{}))
			edit(t, f, rootID, "b", unix.O_RDWR, "X")
			if got := fileOf(t, f, "a"); !strings.HasPrefix(got, "X") {
				t.Errorf("the other name in the share reads %q", got)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, stored := newLinkedTest(t)
			t.Cleanup(f.undo.Close)
			before := inode(t, stored)
			change(t, f, lookup(t, f, rootID, "a"))
			if after := inode(t, stored); after != before {
				t.Errorf("the store has %s, not %s", after, before)
			}
		})
	}
}

// fileOf returns the contents of a file of the root, on the host.
func fileOf(t *testing.T, f *fileSystem, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.tempRoot(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestASeparatedFileIsTheSameForTheGuest: attributes, and what the guest has open.
func TestASeparatedFileIsTheSameForTheGuest(t *testing.T) {
	f, root, stored := newLinkedTest(t)
	t.Cleanup(f.undo.Close)
	id := lookup(t, f, rootID, "a")
	before := inode(t, filepath.Join(root, "a"))
	var r, w fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDONLY}, &r))
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &w))
	if after := inode(t, filepath.Join(root, "a")); after != before {
		t.Errorf("the copy is %s, not %s", after, before)
	}
	buf := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(root, "a"), "user.of.the.store", buf); err != nil || string(buf[:n]) != "1" {
		t.Errorf("its attribute is %q, %v", buf[:max(n, 0)], err)
	}
	must(t, write(f, w.Fh, 0, 0, "OF"))
	if got := read(t, f, r.Fh); got != "OF the store" {
		t.Errorf("who had it open reads %q", got)
	}
	var out fuse.AttrOut
	must(t, f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(id)}, &out))
	if again := lookup(t, f, rootID, "a"); again != id || out.Nlink != 1 {
		t.Errorf("node %d is %d now, with %d names", id, again, out.Nlink)
	}
	if list, err := os.ReadDir(root); err != nil || len(list) != 1 {
		t.Errorf("the directory has %v, %v", list, err)
	}

	// A backup of the host links the file while the guest has it open.
	backup := stored + ".backup"
	if err := os.Link(filepath.Join(root, "a"), backup); err != nil {
		t.Fatal(err)
	}
	must(t, write(f, w.Fh, 0, 0, "xx"))
	if b, err := os.ReadFile(backup); err != nil || string(b) != "OF the store" {
		t.Errorf("the backup has %q, %v", b, err)
	}
	if got := fileOf(t, f, "a"); got != "xx the store" {
		t.Errorf("the share has %q", got)
	}
}

// TestLinksInTheShareStayTogether: a file all of whose names the guest has seen is not copied.
func TestLinksInTheShareStayTogether(t *testing.T) {
	f, root, _ := newLinkedTest(t)
	t.Cleanup(f.undo.Close)
	out := create(t, f, rootID, "x", unix.O_RDWR, 0o644)
	for _, name := range []string{"y", "z"} {
		must(t, f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: out.NodeId}, name, &fuse.EntryOut{}))
	}
	must(t, write(f, out.Fh, 0, 0, "written"))
	edit(t, f, rootID, "y", unix.O_RDWR, "W")
	var x, z unix.Stat_t
	if unix.Stat(filepath.Join(root, "x"), &x) != nil || unix.Stat(filepath.Join(root, "z"), &z) != nil || x.Ino != z.Ino || x.Nlink != 3 {
		t.Errorf("inodes %d and %d, %d names", x.Ino, z.Ino, x.Nlink)
	}
	if got := fileOf(t, f, "z"); got != "Written" {
		t.Errorf("z is %q", got)
	}
}

// TestASeparatedFileCanBeUndone: what comes back is what the store has.
func TestASeparatedFileCanBeUndone(t *testing.T) {
	f, root, stored := newLinkedTest(t)
	t.Cleanup(f.undo.Close)
	before := inode(t, stored)
	store := filepath.Join(filepath.Dir(stored), "undo")
	edit(t, f, rootID, "a", unix.O_RDWR, "X")
	if res := undoAll(t, root, store, 1); len(res.Kept) > 0 {
		t.Errorf("kept: %v", res.Kept)
	}
	if after := inode(t, filepath.Join(root, "a")); after != before {
		t.Errorf("the file is %s, not %s", after, before)
	}
}
