package share

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/undo"
)

// truncateBy is ftruncate(2) by an open file, with the number of a node.
func truncateBy(f *fileSystem, node, fh, size uint64) fuse.Status {
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node), Valid: fuse.FATTR_SIZE | fuse.FATTR_FH, Fh: fh, Size: size}}
	return f.SetAttr(nil, &in, &fuse.AttrOut{})
}

// TestAttackTruncateByAnotherNode: a request names a file of the guest's own, and the open file of another. What
// is cut off must be kept for an undo, and a link that leads out must stay whole.
func TestAttackTruncateByAnotherNode(t *testing.T) {
	f, root, store := newKeptTest(t)
	writeFile(t, filepath.Join(root, "a"), "the person's work")
	var out fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "a")), Flags: unix.O_RDWR}, &out))
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.Link(filepath.Join(root, "a"), backup); err != nil {
		t.Fatal(err)
	}
	mine := create(t, f, rootID, "mine", unix.O_RDWR, 0o644)
	if st := truncateBy(f, mine.NodeId, out.Fh, 0); st == fuse.OK {
		t.Error("the request was answered as done")
	}
	if got := readText(t, backup); got != "the person's work" {
		t.Errorf("the link outside has %q", got)
	}
	undoAll(t, root, store, 1)
	if got := readText(t, filepath.Join(root, "a")); got != "the person's work" {
		t.Errorf("after the undo: %q", got)
	}
}

// TestAttackAHandleThatCannotFollow: the guest takes the right to write away from its open file, and then a
// program of the host links it. The copy cannot be opened like the file, so the first write is refused, and
// so must be all others.
func TestAttackAHandleThatCannotFollow(t *testing.T) {
	if os.Geteuid() == 0 {
		asOther(t)
		return
	}
	f, root, _ := newKeptTest(t)
	path := filepath.Join(root, "a")
	writeFile(t, path, "of the host")
	id := lookup(t, f, rootID, "a")
	var out fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &out))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Link(path, outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o444); err != nil { // as package stores do
		t.Fatal(err)
	}
	for range 3 {
		write(f, out.Fh, 0, 0, "EVIL")
		truncateBy(f, id, out.Fh, 2)
		f.Fallocate(nil, &fuse.FallocateIn{Fh: out.Fh, Length: 4096})
	}
	if got := readText(t, outside); got != "of the host" {
		t.Errorf("the link outside has %.20q", got)
	}
}

// TestAttackALinkThatComesWhileNamesAreCounted: the guest makes another name of a file after the server has read
// how many names the file has, and before it counts those that the guest knows. The one outside must not be
// taken for it.
func TestAttackALinkThatComesWhileNamesAreCounted(t *testing.T) {
	f := newTest(t, Options{})
	out := create(t, f, rootID, "a", unix.O_RDWR, 0o644)
	must(t, write(f, out.Fh, 0, 0, "of the store"))
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Link(filepath.Join(f.tempRoot(t), "a"), outside); err != nil {
		t.Fatal(err)
	}
	linked := make(chan fuse.Status, 1)
	f.separator.counting = func() {
		f.separator.counting = nil
		go func() {
			linked <- f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: out.NodeId}, "b", &fuse.EntryOut{})
		}()
		select {
		case st := <-linked:
			linked <- st
		case <-time.After(200 * time.Millisecond):
		}
	}
	must(t, write(f, out.Fh, 0, 0, "EVIL"))
	<-linked
	if got := readText(t, outside); got != "of the store" {
		t.Errorf("the link outside has %q", got)
	}
	if got := fileOf(t, f, "a"); got != "EVILhe store" {
		t.Errorf("the share has %q", got)
	}
}

// TestAttackNamesThatAFileSystemFolds: two spellings of a name count as one, since they may be one.
func TestAttackNamesThatAFileSystemFolds(t *testing.T) {
	f := newTest(t, Options{})
	out := create(t, f, rootID, "name", unix.O_RDWR, 0o644)
	must(t, f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: out.NodeId}, "NAME", &fuse.EntryOut{}))
	places := f.placesOf(f.tree.byID[out.NodeId])
	if n := distinct(places); len(places) != 2 || n != 1 {
		t.Errorf("%d places count as %d", len(places), n)
	}
	for _, p := range places {
		p.close()
	}
	must(t, write(f, out.Fh, 0, 0, "x")) // where they are two they stay names of one file
	var a, b unix.Stat_t
	if unix.Stat(filepath.Join(f.tempRoot(t), "name"), &a) != nil || unix.Stat(filepath.Join(f.tempRoot(t), "NAME"), &b) != nil || a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("inodes %d and %d with %d names", a.Ino, b.Ino, a.Nlink)
	}
}

// TestAttackFlagsOfAReadOnlyOpen: the guest's kernel asks to take set-user-ID away from a file that it opens
// only to read. Nothing may change on the host: the share may be read-only, and the file may have links
// outside.
func TestAttackFlagsOfAReadOnlyOpen(t *testing.T) {
	for _, readOnly := range []bool{true, false} {
		t.Run(fmt.Sprint("read-only ", readOnly), func(t *testing.T) {
			root, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
			path := filepath.Join(root, "a")
			writeFile(t, path, "program")
			if err := unix.Chmod(path, 0o4755); err != nil {
				t.Fatal(err)
			}
			if err := os.Link(path, outside); err != nil {
				t.Fatal(err)
			}
			f := newTest(t, Options{Root: root, ReadOnly: readOnly})
			before := inode(t, outside)
			var out fuse.OpenOut
			f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "a")), Flags: unix.O_RDONLY, Mode: fuse.OPEN_KILL_SUIDGID}, &out)
			if after := inode(t, outside); after != before {
				t.Errorf("the file outside is %s, not %s", after, before)
			}
		})
	}
}

// TestAttackWorkOfThePersonInAnOpenFile: the guest has written a file and holds it open. The person changes it in
// place, and the guest writes again.
func TestAttackWorkOfThePersonInAnOpenFile(t *testing.T) {
	for name, again := range map[string]func(t *testing.T, f *fileSystem, id, fh uint64){
		"write":    func(t *testing.T, f *fileSystem, _, fh uint64) { must(t, write(f, fh, 0, unix.O_APPEND, " guest")) },
		"truncate": func(t *testing.T, f *fileSystem, id, fh uint64) { must(t, truncateBy(f, id, fh, 14)) },
		"allocate": func(t *testing.T, f *fileSystem, _, fh uint64) {
			must(t, f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Length: 30}))
		},
		"copy": func(t *testing.T, f *fileSystem, _, fh uint64) {
			from := create(t, f, rootID, "from", unix.O_RDWR, 0o644)
			must(t, write(f, from.Fh, 0, 0, "guest"))
			_, st := f.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: from.Fh, FhOut: fh, OffOut: 20, Len: 5})
			must(t, st)
		},
		"time": func(t *testing.T, f *fileSystem, id, _ uint64) {
			must(t, f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(id), Valid: fuse.FATTR_MTIME, Mtime: 7}}, &fuse.AttrOut{}))
		},
		"open and truncate": func(t *testing.T, f *fileSystem, id, fh uint64) {
			must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_WRONLY | unix.O_TRUNC}, &fuse.OpenOut{}))
			must(t, write(f, fh, 0, unix.O_APPEND, " guest"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChangedFile(t)
			c.work()
			again(t, c.f, c.id, c.fh)
			c.f.release(c.fh)
			c.checkUndo()
		})
	}
}

// TestAttackChangesOfAFileAtOnce: the guest changes a file in all ways at the same time, so that its changes look
// like those of the host. They must be undone nevertheless.
func TestAttackChangesOfAFileAtOnce(t *testing.T) {
	f, root, store := newKeptTest(t)
	path := filepath.Join(root, "a")
	writeFile(t, path, "first")
	id := lookup(t, f, rootID, "a")
	var out fuse.OpenOut
	must(t, f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &out))
	var all sync.WaitGroup
	for i, change := range []func(i uint64){
		func(i uint64) { write(f, out.Fh, i, 0, "x") },
		func(i uint64) { write(f, out.Fh, 0, unix.O_APPEND, "y") },
		func(i uint64) { truncateBy(f, id, out.Fh, i) },
		func(i uint64) {
			f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(id), Valid: fuse.FATTR_MTIME, Mtime: i}}, &fuse.AttrOut{})
		},
		func(i uint64) {
			var w fuse.OpenOut
			if f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_WRONLY | unix.O_TRUNC}, &w) == fuse.OK {
				write(f, w.Fh, i, 0, "z")
				f.release(w.Fh)
			}
		},
		func(i uint64) { f.Fallocate(nil, &fuse.FallocateIn{Fh: out.Fh, Offset: i, Length: 8}) },
	} {
		all.Go(func() {
			for j := range uint64(200) {
				change(j + uint64(i))
			}
		})
	}
	all.Wait()
	f.release(out.Fh)
	if res := undoAll(t, root, store, 1); len(res.Kept) > 0 || readText(t, path) != "first" {
		t.Errorf("%+v, %.40q", res.Kept, readText(t, path))
	}
}

// TestAttackChangesOfANameAtOnce: the guest makes, removes and replaces a name in several requests at the same
// time. What is there in the end must be undone.
func TestAttackChangesOfANameAtOnce(t *testing.T) {
	for i := range 10 {
		f, root, store := newKeptTest(t)
		writeFile(t, filepath.Join(root, "a"), "first")
		h := header(rootID)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for range 50 {
					f.Unlink(nil, &h, "a")
					var out fuse.CreateOut
					if f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "a", &out) == fuse.OK {
						f.release(out.Fh)
					}
				}
			})
			all.Go(func() {
				for range 50 {
					var out fuse.CreateOut
					if f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "b", &out) == fuse.OK {
						f.release(out.Fh)
					}
					f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "b", "a")
				}
			})
		}
		all.Wait()
		if res := undoAll(t, root, store, 1); len(res.Kept) > 0 || readText(t, filepath.Join(root, "a")) != "first" {
			t.Fatalf("round %d: %+v", i, res.Kept)
		}
	}
}

// TestAttackRequestsThatChangeNothing: after a change the guest sends requests that fail, or that change what an
// undo does not compare. The change must be undone nevertheless.
func TestAttackRequestsThatChangeNothing(t *testing.T) {
	for name, request := range map[string]func(f *fileSystem, file, link uint64){
		"chmod of a link": func(f *fileSystem, _, link uint64) {
			f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(link), Valid: fuse.FATTR_MODE}}, &fuse.AttrOut{})
		},
		"truncate to what is too large": func(f *fileSystem, file, _ uint64) {
			f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(file), Valid: fuse.FATTR_SIZE, Size: 1 << 62}}, &fuse.AttrOut{})
		},
		"attribute": func(f *fileSystem, file, _ uint64) {
			f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(file)}, "user.x", []byte("x"))
		},
		"attribute that is not there": func(f *fileSystem, file, _ uint64) {
			h := header(file)
			f.RemoveXAttr(nil, &h, "user.none")
		},
		"put a directory in its place": func(f *fileSystem, _, _ uint64) {
			h := header(rootID)
			f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, "d", &fuse.EntryOut{})
			f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "d", "a")
			f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "d", "link")
		},
		"make it again": func(f *fileSystem, _, _ uint64) {
			for _, name := range []string{"a", "link"} {
				for _, flags := range []uint32{0, unix.O_EXCL} {
					var out fuse.CreateOut
					if f.Create(nil, &fuse.CreateIn{InHeader: header(rootID), Flags: unix.O_RDONLY | flags, Mode: 0o644}, name, &out) == fuse.OK {
						f.release(out.Fh)
					}
				}
			}
		},
		"allocate nothing": func(f *fileSystem, file, _ uint64) {
			var out fuse.OpenOut
			f.Open(nil, &fuse.OpenIn{InHeader: header(file), Flags: unix.O_RDWR}, &out)
			f.Fallocate(nil, &fuse.FallocateIn{Fh: out.Fh})
			f.release(out.Fh)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, root, store := newKeptTest(t)
			writeFile(t, filepath.Join(root, "a"), "first")
			before := listing(t, root)
			h := header(rootID)
			edit(t, f, rootID, "a", unix.O_RDWR, "guest")
			must(t, f.Symlink(nil, &h, "/etc/passwd", "link", &fuse.EntryOut{}))
			f.leftAll()
			f.undo.Mark(undo.WhySession)
			request(f, lookup(t, f, rootID, "a"), lookup(t, f, rootID, "link"))
			if res := undoAll(t, root, store, 1); len(res.Kept) > 0 || listing(t, root) != before {
				t.Errorf("after the undo:\n%s%+v", listing(t, root), res.Kept)
			}
		})
	}
}

// TestAttackUndoBringsWhatIsGuarded: the guest renames a directory in which guarded paths may lie, makes one of them
// where it is free, in a way that no record has, and lets the person undo the rename.
func TestAttackUndoBringsWhatIsGuarded(t *testing.T) {
	for dir, file := range map[string]string{".claude": "settings.json", "deploy": "up.sh"} {
		t.Run(dir, func(t *testing.T) {
			root, store := t.TempDir(), t.TempDir()
			writeFile(t, filepath.Join(root, "other"), "x")
			if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(root, dir, "notes.md"), "x")
			f := newTest(t, Options{Root: root, Undo: store, Guard: &guard.Options{Guard: []string{"deploy/*.sh"}}, Private: filepath.Join(t.TempDir(), "private")})
			t.Cleanup(f.undo.Close)
			h := header(rootID)
			edit(t, f, rootID, "other", unix.O_RDWR, "guest") // so that there is something to undo
			st := f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, dir, "n")
			if st == fuse.OK { // what the guest makes when the records are full
				recorder := f.undo
				f.undo = nil
				f.release(create(t, f, lookup(t, f, rootID, "n"), file, unix.O_RDWR, 0o755).Fh)
				f.undo = recorder
			}
			undoAll(t, root, store, 1)
			if _, err := os.Lstat(filepath.Join(root, dir, file)); err == nil || st != fuse.Status(unix.EXDEV) {
				t.Errorf("the rename is answered %v, and the host has %s/%s: %v", st, dir, file, err == nil)
			}
		})
	}
}
