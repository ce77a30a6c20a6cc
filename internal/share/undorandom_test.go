package share

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/undo"
)

// anyone is a guest that changes a project at random.
type anyone struct {
	t    *testing.T
	f    *fileSystem
	root string
	rnd  *rand.Rand
	open []uint64
	log  []string
}

// dirOf looks the directory of a path up.
func (a *anyone) dirOf(path string) uint64 {
	id := uint64(rootID)
	for dir := filepath.Dir(path); dir != "."; dir = "." {
		for _, name := range split(dir) {
			id = lookup(a.t, a.f, id, name)
		}
	}
	return id
}

func split(path string) (names []string) {
	for path != "." && path != "" {
		names = append([]string{filepath.Base(path)}, names...)
		path = filepath.Dir(path)
	}
	return names
}

// pick returns a path that is there, or one that may not be, below the project.
func (a *anyone) pick(fresh bool) string {
	var all []string
	dirs := []string{"."}
	_ = filepath.WalkDir(a.root, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(a.root, p)
		if err != nil || rel == "." {
			return nil //nolint:nilerr // a path that was removed meanwhile
		}
		all = append(all, rel)
		if d.IsDir() {
			dirs = append(dirs, rel)
		}
		return nil
	})
	if fresh || len(all) == 0 {
		return filepath.Join(dirs[a.rnd.IntN(len(dirs))], fmt.Sprintf("n%d", a.rnd.IntN(4)))
	}
	return all[a.rnd.IntN(len(all))]
}

// step makes one change, which may fail.
func (a *anyone) step(i int) {
	p, q := a.pick(a.rnd.IntN(3) == 0), a.pick(a.rnd.IntN(2) == 0)
	dir, other := a.dirOf(p), a.dirOf(q)
	h, name, to := header(dir), filepath.Base(p), filepath.Base(q)
	var st fuse.Status
	kind := a.rnd.IntN(11)
	switch kind {
	case 0:
		var out fuse.CreateOut
		if st = a.f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, name, &out); st == fuse.OK {
			write(a.f, out.Fh, 0, 0, fmt.Sprint("made ", i))
			a.open = append(a.open, out.Fh)
		}
	case 1:
		st = a.f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, name, &fuse.EntryOut{})
	case 2:
		st = a.f.Unlink(nil, &h, name)
	case 3:
		st = a.f.Rmdir(nil, &h, name)
	case 4, 5, 6:
		flags := []uint32{0, 0, unix.RENAME_EXCHANGE, unix.RENAME_NOREPLACE}[a.rnd.IntN(4)]
		st = a.f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: other, Flags: flags}, name, to)
		kind += int(flags) * 100
	case 7:
		st = a.f.Symlink(nil, &h, fmt.Sprint("to", i), name, &fuse.EntryOut{})
	case 8:
		var e fuse.EntryOut
		if st = a.f.Lookup(nil, &h, name, &e); st == fuse.OK && e.NodeId != 0 && e.Mode&unix.S_IFMT == unix.S_IFREG {
			st = a.f.Link(nil, &fuse.LinkIn{InHeader: header(other), Oldnodeid: e.NodeId}, to, &fuse.EntryOut{})
		}
	case 9:
		var e fuse.EntryOut
		if st = a.f.Lookup(nil, &h, name, &e); st == fuse.OK && e.NodeId != 0 {
			st = a.f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(e.NodeId), Valid: fuse.FATTR_MODE, Mode: 0o600 | uint32(a.rnd.IntN(64))}}, &fuse.AttrOut{})
		}
	case 10:
		var e fuse.EntryOut
		if st = a.f.Lookup(nil, &h, name, &e); st == fuse.OK && e.NodeId != 0 && e.Mode&unix.S_IFMT == unix.S_IFREG {
			var out fuse.OpenOut
			if st = a.f.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId), Flags: unix.O_RDWR | uint32(a.rnd.IntN(2))*unix.O_TRUNC}, &out); st == fuse.OK {
				write(a.f, out.Fh, 0, 0, fmt.Sprint("written ", i))
				a.open = append(a.open, out.Fh)
			}
		}
	}
	if len(a.open) > 3 || a.rnd.IntN(3) == 0 {
		for _, fh := range a.open {
			a.f.release(fh)
		}
		a.open = nil
	}
	if st == fuse.OK {
		a.log = append(a.log, fmt.Sprintf("%d: %d %s %s", i, kind, p, q))
	}
}

// TestUndoOfWhateverAGuestDoes makes changes of all kinds at random, in several sessions, and goes back over all.
func TestUndoOfWhateverAGuestDoes(t *testing.T) {
	for seed := range uint64(60) {
		f, root, store := newKeptTest(t)
		a := &anyone{t: t, f: f, root: root, rnd: rand.New(rand.NewPCG(seed, 2))}
		for i := range 6 {
			dir := filepath.Join(root, fmt.Sprintf("d%d/n%d", i%2, i%3))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, fmt.Sprint("f", i)), fmt.Sprint(i))
		}
		before := listing(t, root)
		for i := range 50 {
			a.step(i)
			if a.rnd.IntN(15) == 0 {
				f.leftAll()
				f.undo.Mark(undo.WhyStart)
				a.log = append(a.log, "mark")
			}
		}
		f.leftAll()
		changed := listing(t, root)
		if changed == before {
			continue
		}
		res := undoAll(t, root, store, 1)
		if got := listing(t, root); got != before || len(res.Kept) > 0 {
			t.Errorf("seed %d: kept %v\nbefore\n%s\nchanged\n%s\nafter\n%s\n%q", seed, res.Kept, before, changed, got, a.log)
			return
		}
	}
}
