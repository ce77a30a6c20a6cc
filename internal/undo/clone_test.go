package undo

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/mounttest"
)

// large returns contents of many blocks, in which each differs.
func large() []byte {
	b := make([]byte, 4<<20)
	for i := range b {
		b[i] = byte(i>>12 ^ i*7)
	}
	return b
}

// guestOn is newGuest for a project and a store in these directories.
func guestOn(t *testing.T, project, store string) *guest {
	t.Helper()
	g := &guest{t: t, dir: filepath.Join(project, "project"), store: filepath.Join(store, "undo")}
	for _, dir := range []string{g.dir, g.store} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(g.store, dirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	g.rec = NewRecorder(fd, WhySession)
	t.Cleanup(func() { g.rec.Close(); unix.Close(fd) })
	return g
}

// contents returns the paths of the contents that a store holds, by the letter that begins their names.
func (g *guest) contents(kind byte) []string {
	g.t.Helper()
	list, err := filepath.Glob(filepath.Join(g.store, "*", string(kind)+"[0-9]*"))
	g.must(err)
	return list
}

// TestAPointIsMadeByClone: on a file system that can clone, what a guest writes over, cuts or removes
// is kept and brought back without a byte of it being copied.
func TestAPointIsMadeByClone(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	for _, typ := range mounttest.Cloning {
		t.Run(typ, func(t *testing.T) {
			top := mounttest.Loop(t, typ)
			g := guestOn(t, top, top)
			names := []string{"over", "cut", "gone", "moved"}
			for _, name := range names {
				g.must(os.WriteFile(g.path(name), large(), 0o640))
				g.must(unix.Setxattr(g.path(name), "user.x", []byte(name), 0))
			}
			before := tree(t, g.dir)
			g.overwrite("X", "over")
			g.change(func() error { return os.Truncate(g.path("cut"), 10) }, "cut")
			g.remove("gone")
			g.rename("moved", "elsewhere")

			if list := g.contents(copied); len(list) > 0 {
				t.Errorf("copied: %q", list)
			}
			list := g.contents(cloned)
			if len(list) < 3 {
				t.Errorf("the store has %q", list)
			}
			if g.rec.used != 0 {
				t.Errorf("clones count as %d bytes", g.rec.used)
			}
			if shared, all := mounttest.Shared(t, g.path("over")); all-shared > 1<<20 {
				t.Errorf("%d bytes of %d of what the guest has written over were copied", all-shared, all)
			}
			g.rec.Mark(WhySession)
			if res := g.undo(); len(res.Kept) > 0 {
				t.Errorf("kept: %v", res.Kept)
			}
			if tree(t, g.dir) != before {
				t.Error("the project is not as before")
			}
			for _, name := range names[:3] {
				if shared, all := mounttest.Shared(t, g.path(name)); shared != all || all < 4<<20 {
					t.Errorf("the undo copied %d bytes of %d of %s", all-shared, all, name)
				}
			}
		})
	}
}

// TestAStoreOnAnotherFileSystem: where a clone leads to another file system, contents are copied, both
// ways, and count.
func TestAStoreOnAnotherFileSystem(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	for _, pair := range [][2]string{{"btrfs", "ext4"}, {"xfs", "btrfs"}, {"ext4", "xfs"}, {"xfs", "xfs"}} {
		t.Run(fmt.Sprintf("a project on %s, its state on %s", pair[0], pair[1]), func(t *testing.T) {
			g := guestOn(t, mounttest.Loop(t, pair[0]), mounttest.Loop(t, pair[1]))
			g.must(os.WriteFile(g.path("over"), large(), 0o640))
			before := tree(t, g.dir)
			g.overwrite("X", "over")
			if c, f := g.contents(cloned), g.contents(copied); len(c) > 0 || len(f) != 1 {
				t.Errorf("the store has the clones %q and the copies %q", c, f)
			}
			if g.rec.used != 4<<20 {
				t.Errorf("the copies count as %d bytes", g.rec.used)
			}
			g.rec.Mark(WhySession)
			if res := g.undo(); len(res.Kept) > 0 {
				t.Errorf("kept: %v", res.Kept)
			}
			if tree(t, g.dir) != before {
				t.Error("the project is not as before")
			}
		})
	}
}

// TestAPointOfFilesWithoutClones: a directory of Btrfs with chattr +C has files that cannot be cloned to
// others: they are copied.
func TestAPointOfFilesWithoutClones(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	top := mounttest.Loop(t, "btrfs")
	g := guestOn(t, top, top)
	const noCow = 0x00800000 // FS_NOCOW_FL (linux/fs.h)
	dir, err := os.Open(g.dir)
	g.must(err)
	defer dir.Close()
	g.must(unix.IoctlSetPointerInt(int(dir.Fd()), unix.FS_IOC_SETFLAGS, noCow))
	g.must(os.WriteFile(g.path("over"), large(), 0o640))
	g.overwrite("X", "over")
	if c, f := g.contents(cloned), g.contents(copied); len(c) > 0 || len(f) != 1 {
		t.Errorf("the store has the clones %q and the copies %q", c, f)
	}
	g.rec.Mark(WhySession)
	if res := g.undo(); len(res.Kept) > 0 {
		t.Errorf("kept: %v", res.Kept)
	}
	if b, err := os.ReadFile(g.path("over")); err != nil || !bytes.Equal(b, large()) {
		t.Errorf("it is not as before: %v", err)
	}
}
