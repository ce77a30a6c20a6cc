package share

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
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
