package share

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// files makes files in a directory, and directories of that depth above them.
func makeFiles(t *testing.T, dir string, n int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte(fmt.Sprint(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAGuestThatForgetsNothingKeepsFewNodes is an attack on the server's memory: a guest
// looks up every name and never says that it forgot one. It keeps what it has open.
func TestAGuestThatForgetsNothingKeepsFewNodes(t *testing.T) {
	const most = 100
	for name, make1 := range map[string]func(f *fileSystem, i int) fuse.Status{
		"look-ups": func(f *fileSystem, i int) fuse.Status {
			h := header(rootID)
			return f.Lookup(nil, &h, fmt.Sprint(i), &fuse.EntryOut{})
		},
		"directories": func(f *fileSystem, i int) fuse.Status {
			return f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID), Mode: 0o755}, fmt.Sprint("d", i), &fuse.EntryOut{})
		},
		"links": func(f *fileSystem, i int) fuse.Status {
			h := header(rootID)
			return f.Symlink(nil, &h, "x", fmt.Sprint("l", i), &fuse.EntryOut{})
		},
		"files that were closed": func(f *fileSystem, i int) fuse.Status {
			var out fuse.CreateOut
			st := f.Create(nil, &fuse.CreateIn{InHeader: header(rootID), Flags: uint32(os.O_RDWR)}, fmt.Sprint("c", i), &out)
			f.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
			return st
		},
		"files without a name": func(f *fileSystem, _ int) fuse.Status {
			var out fuse.CreateOut
			st := f.Tmpfile(nil, &fuse.CreateIn{InHeader: header(rootID), Flags: uint32(os.O_RDWR)}, &out)
			f.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
			return st
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			makeFiles(t, root, 1000)
			f := newTest(t, Options{Root: root})
			f.tree.maxNodes = most
			open := create(t, f, rootID, "open", uint32(os.O_RDWR), 0o644)
			for i := range 1000 {
				if st := make1(f, i); st != fuse.OK {
					t.Fatalf("%d: %v", i, st)
				}
			}
			if n := len(f.tree.byID); n > most || len(f.tree.byKey) > most {
				t.Errorf("%d nodes, %d inodes", n, len(f.tree.byKey))
			}
			if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(open.NodeId)}, &fuse.AttrOut{}); st != fuse.OK {
				t.Errorf("what is open: %v", st)
			}
			if kids := f.tree.root.kids; kids >= most {
				t.Errorf("the root counts %d nodes in it", kids)
			}
		})
	}
}

// TestAFullTableIsNotForGood: where everything is in use a new name is ENFILE, until
// something is closed.
func TestAFullTableIsNotForGood(t *testing.T) {
	f := newTest(t, Options{})
	makeFiles(t, f.tempRoot(t), 20)
	f.tree.maxNodes = 11 // with the root
	var handles []uint64
	for i := range 10 {
		var o fuse.OpenOut
		if st := f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, fmt.Sprint(i)))}, &o); st != fuse.OK {
			t.Fatal(st)
		}
		handles = append(handles, o.Fh)
	}
	h := header(rootID)
	if st := f.Lookup(nil, &h, "15", &fuse.EntryOut{}); st != fuse.Status(unix.ENFILE) {
		t.Errorf("looked up: %v", st)
	}
	f.Release(nil, &fuse.ReleaseIn{Fh: handles[3]})
	lookup(t, f, rootID, "15")
}

// TestAnHonestGuestDoesNotNoticeEviction: the kernel's own client works with far more files
// than the server knows at a time.
func TestAnHonestGuestDoesNotNoticeEviction(t *testing.T) {
	root := t.TempDir()
	for d := range 10 {
		makeFiles(t, filepath.Join(root, fmt.Sprint("d", d), "deep"), 30)
	}
	f := newTest(t, Options{Root: root})
	f.tree.maxNodes = 60
	at := mountHere(t, f)
	open, err := os.OpenFile(filepath.Join(at, "d3/deep/7"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for range 3 {
		for d := range 10 {
			for i := range 30 {
				b, err := os.ReadFile(filepath.Join(at, fmt.Sprint("d", d), "deep", fmt.Sprint(i)))
				if err != nil || string(b) != fmt.Sprint(i) {
					t.Fatalf("d%d/%d: %q, %v", d, i, b, err)
				}
			}
		}
	}
	f.tree.mu.Lock()
	nodes := len(f.tree.byID)
	f.tree.mu.Unlock()
	if nodes > 60 {
		t.Errorf("%d nodes", nodes)
	}
	b := make([]byte, 10)
	n, err := open.ReadAt(b, 0)
	if fi, serr := open.Stat(); !errors.Is(err, io.EOF) || string(b[:n]) != "7" || serr != nil || fi.Size() != 1 {
		t.Errorf("what is open: %q, %v, %v", b[:n], err, serr)
	}
}

// TestOpenDirectoriesTakeLittleMemory is an attack: directories that are open, each in the
// middle of its list. They take no more memory than a few, and none loses or repeats a
// name.
func TestOpenDirectoriesTakeLittleMemory(t *testing.T) {
	f := newTest(t, Options{})
	f.listings.max = 4
	makeFiles(t, f.tempRoot(t), 300)
	type listing struct {
		fh, off uint64
		names   map[string]bool
	}
	var all []*listing
	for range 50 {
		var o fuse.OpenOut
		if st := f.OpenDir(nil, &fuse.OpenIn{InHeader: header(rootID)}, &o); st != fuse.OK {
			t.Fatal(st)
		}
		all = append(all, &listing{fh: o.Fh, names: map[string]bool{}})
	}
	step := func(l *listing) (more bool) {
		out := fuse.NewDirEntryList(make([]byte, 4096), l.off)
		if st := f.ReadDir(nil, &fuse.ReadIn{InHeader: header(rootID), Fh: l.fh, Offset: l.off}, out); st != fuse.OK {
			t.Fatal(st)
		}
		entries, err := fuse.ParseDirEntries(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if l.names[e.Name] {
				t.Fatalf("%q twice", e.Name)
			}
			l.names[e.Name] = true
			l.off = e.Off
		}
		return len(entries) > 0
	}
	for more := true; more; { // in turn, so that each has lost its place when it goes on
		more = false
		for _, l := range all {
			more = step(l) || more
		}
		buffers := 0
		for _, l := range all {
			if h := f.handles[l.fh]; h.dir.buf != nil {
				buffers++
			}
		}
		if buffers > 4 || f.listings.open.Len() > 4 {
			t.Fatalf("%d buffers", buffers)
		}
	}
	for i, l := range all {
		if len(l.names) != 302 {
			t.Errorf("list %d has %d names", i, len(l.names))
		}
		f.ReleaseDir(&fuse.ReleaseIn{Fh: l.fh})
	}
	if n := f.listings.open.Len(); n != 0 {
		t.Errorf("%d lists are left", n)
	}
}
