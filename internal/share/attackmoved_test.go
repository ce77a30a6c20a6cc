package share

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// changesOf are all requests that change an open file, by its handle and by its node.
func changesOf(f *fileSystem, fh, id uint64) map[string]func() fuse.Status {
	setattr := func(valid uint32, fh uint64) fuse.Status {
		in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(id), Valid: valid, Fh: fh, Mode: 0o777}}
		return f.SetAttr(nil, &in, &fuse.AttrOut{})
	}
	open := func(flags uint32) fuse.Status {
		st := fuse.OK
		for range 3 { // the first answer makes an honest kernel look the name up again
			var out fuse.OpenOut
			if st = f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: flags}, &out); st == fuse.OK {
				return write(f, out.Fh, 0, 0, "EVIL")
			}
		}
		return st
	}
	return map[string]func() fuse.Status{
		"write":     func() fuse.Status { return write(f, fh, 0, 0, "EVIL") },
		"append":    func() fuse.Status { return write(f, fh, 0, unix.O_APPEND, "EVIL") },
		"fallocate": func() fuse.Status { return f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Length: 100}) },
		"copy": func() fuse.Status {
			_, st := f.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: fh, FhOut: fh, OffOut: 50, Len: 2})
			return st
		},
		"ftruncate": func() fuse.Status { return setattr(fuse.FATTR_SIZE|fuse.FATTR_FH, fh) },
		"truncate":  func() fuse.Status { return setattr(fuse.FATTR_SIZE, 0) },
		"chmod":     func() fuse.Status { return setattr(fuse.FATTR_MODE, 0) },
		"setxattr": func() fuse.Status {
			return f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(id)}, "user.x", []byte("y"))
		},
		"open":          func() fuse.Status { return open(unix.O_WRONLY) },
		"open-truncate": func() fuse.Status { return open(unix.O_WRONLY | unix.O_TRUNC) },
		"link": func() fuse.Status {
			return f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: id}, "second", &fuse.EntryOut{})
		},
	}
}

// TestAttackAFileThatTheHostMovesToItsPlace: the guest has a file open, or knows its node, and the host
// makes of it what it runs (git's config.lock becomes config), or moves it out of the project.
func TestAttackAFileThatTheHostMovesToItsPlace(t *testing.T) {
	for _, c := range []struct{ name, from, to string }{
		{"a file beside it", ".git/config.x1y2z3", ".git/config"},
		{"a draft", "draft", ".envrc"},
		{"below a directory that is renamed", "drafts/tasks.json", ".vscode/tasks.json"},
		{"out of the project", "draft", "../outside/bin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			root := filepath.Join(top, "project")
			for _, d := range []string{".git", "drafts"} {
				if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(top, "outside"), 0o755); err != nil {
				t.Fatal(err)
			}
			f := newTest(t, Options{Root: root, Guard: &guard.Options{}, Private: filepath.Join(top, "private")})
			writeFile(t, filepath.Join(root, c.from), "host")
			dir := uint64(rootID)
			if d := filepath.Dir(c.from); d != "." {
				dir = lookup(t, f, rootID, d)
			}
			id := lookup(t, f, dir, filepath.Base(c.from))
			var open fuse.OpenOut
			if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_RDWR}, &open); st != fuse.OK {
				t.Fatal(st)
			}
			if st := write(f, open.Fh, 0, 0, "host"); st != fuse.OK {
				t.Fatal(st)
			}
			from, to := filepath.Join(root, c.from), filepath.Join(root, c.to)
			if filepath.Base(from) == filepath.Base(to) {
				from, to = filepath.Dir(from), filepath.Dir(to)
			}
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
			to = filepath.Join(root, c.to)
			before, err := os.Stat(to)
			if err != nil {
				t.Fatal(err)
			}
			for name, change := range changesOf(f, open.Fh, id) {
				if st := change(); st == fuse.OK {
					t.Errorf("%s: it is done", name)
				}
			}
			after, err := os.Stat(to)
			if got := readText(t, to); err != nil || got != "host" || after.Mode() != before.Mode() {
				t.Errorf("the host has %q, %v", got, after.Mode())
			}
		})
	}
}

// TestAFileThatTheHostMovesElsewhereIsWritten: nothing is refused that is not guarded.
func TestAFileThatTheHostMovesElsewhereIsWritten(t *testing.T) {
	for _, c := range []struct{ name, to string }{{"renamed", "b"}, {"to an odd name", "a (deleted)"}, {"into a directory", "d/a"}, {"removed", ""}} {
		t.Run(c.name, func(t *testing.T) {
			f := newTest(t, Options{Guard: &guard.Options{}})
			root := f.tempRoot(t)
			if err := os.Mkdir(filepath.Join(root, "d"), 0o755); err != nil {
				t.Fatal(err)
			}
			open := create(t, f, rootID, "a", unix.O_RDWR, 0o644)
			move := func() error { return os.Rename(filepath.Join(root, "a"), filepath.Join(root, c.to)) }
			if c.to == "" {
				move = func() error { return os.Remove(filepath.Join(root, "a")) }
			}
			if err := move(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if st := write(f, open.Fh, 0, 0, "guest"); st != fuse.OK {
					t.Errorf("write: %v", st)
				}
			}
			if got := read(t, f, open.Fh); got != "guest" {
				t.Errorf("reads %q", got)
			}
			if c.to != "" && readText(t, filepath.Join(root, c.to)) != "guest" {
				t.Error("the host does not see it")
			}
		})
	}
}

// TestAttackAFileThatTheHostLinksToItsPlace: as above, where the host links the file and removes its
// old name, or the guest made it without one.
func TestAttackAFileThatTheHostLinksToItsPlace(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}})
	root := f.tempRoot(t)
	draft := create(t, f, rootID, "draft", unix.O_RDWR, 0o644)
	if st := write(f, draft.Fh, 0, 0, "host"); st != fuse.OK {
		t.Fatal(st)
	}
	if err := os.Link(filepath.Join(root, "draft"), filepath.Join(root, ".envrc")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "draft")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if st := write(f, draft.Fh, 0, 0, "EVIL"); st != fuse.OK {
			t.Errorf("the guest's file: %v", st)
		}
	}
	if got := readText(t, filepath.Join(root, ".envrc")); got != "host" {
		t.Errorf("the host's file is %q", got)
	}
	if got := read(t, f, draft.Fh); got != "EVIL" {
		t.Errorf("the guest's file is %q", got)
	}

	var unnamed fuse.CreateOut
	if st := f.Tmpfile(nil, &fuse.CreateIn{InHeader: header(rootID), Flags: unix.O_RDWR, Mode: 0o644}, &unnamed); st != fuse.OK {
		t.Skip(st)
	}
	if st := write(f, unnamed.Fh, 0, 0, "host"); st != fuse.OK {
		t.Fatal(st)
	}
	if st := f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: unnamed.NodeId}, "named", &fuse.EntryOut{}); st != fuse.OK {
		t.Fatal(st)
	}
	if err := os.Rename(filepath.Join(root, "named"), filepath.Join(root, ".tool-versions")); err != nil {
		t.Fatal(err)
	}
	if st := write(f, unnamed.Fh, 0, 0, "EVIL"); st == fuse.OK {
		t.Error("a file that was made without a name is written")
	}
	if got := readText(t, filepath.Join(root, ".tool-versions")); got != "host" {
		t.Errorf("the host's file is %q", got)
	}
}

// TestAttackAFileThatBecomesHidden: the host moves a file to a hidden name, and writes secrets to it.
func TestAttackAFileThatBecomesHidden(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}})
	root := f.tempRoot(t)
	writeFile(t, filepath.Join(root, "draft"), "nothing")
	if err := os.Mkdir(filepath.Join(root, "keys"), 0o755); err != nil {
		t.Fatal(err)
	}
	id, keys := lookup(t, f, rootID, "draft"), lookup(t, f, rootID, "keys")
	writeFile(t, filepath.Join(root, "keys/a"), "x")
	lookup(t, f, keys, "a")
	for from, to := range map[string]string{"draft": ".env", "keys": ".ssh"} {
		if err := os.Rename(filepath.Join(root, from), filepath.Join(root, to)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(root, ".env"), "SECRET")
	writeFile(t, filepath.Join(root, ".ssh/new"), "SECRET")
	ids := []uint64{id}
	h, e := header(keys), fuse.EntryOut{}
	if st := f.Lookup(nil, &h, "new", &e); st == fuse.OK && e.NodeId != 0 {
		ids = append(ids, e.NodeId)
	}
	for _, id := range ids {
		for range 3 {
			var open fuse.OpenOut
			if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id)}, &open); st == fuse.OK {
				t.Errorf("node %d reads %q", id, read(t, f, open.Fh))
			}
		}
	}
}

// TestAttackAnOpenFileWhoseOnlyNameIsOutside: the host replaces a file in the project whose other name lies
// in a store of packages, while the guest has it open.
func TestAttackAnOpenFileWhoseOnlyNameIsOutside(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}})
	root := f.tempRoot(t)
	store := filepath.Join(t.TempDir(), "index.js")
	for name, way := range map[string]func(fh, id uint64) fuse.Status{
		"write": func(fh, _ uint64) fuse.Status { return write(f, fh, 0, 0, "EVIL") },
		"truncate": func(_, id uint64) fuse.Status {
			return f.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(id), Valid: fuse.FATTR_SIZE}}, &fuse.AttrOut{})
		},
		"open": func(_, id uint64) fuse.Status {
			var out fuse.OpenOut
			st := fuse.OK
			for range 3 {
				if st = f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: unix.O_WRONLY | unix.O_TRUNC}, &out); st == fuse.OK {
					return st
				}
			}
			return st
		},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, store, "host")
			inside := filepath.Join(root, name)
			if err := os.Link(store, inside); err != nil {
				t.Fatal(err)
			}
			id := lookup(t, f, rootID, name)
			var open fuse.OpenOut
			if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id)}, &open); st != fuse.OK {
				t.Fatal(st)
			}
			f.mu.Lock()
			h := f.handles[open.Fh]
			f.mu.Unlock()
			h.flags = unix.O_RDWR // as one that was open for writing before the host linked the file
			fd, err := unix.Open(magic(h.fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Dup3(fd, h.fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			unix.Close(fd)
			writeFile(t, inside+".new", "new")
			if err := os.Rename(inside+".new", inside); err != nil {
				t.Fatal(err)
			}
			way(open.Fh, id)
			if got := readText(t, store); got != "host" {
				t.Errorf("the file in the store is %q", got)
			}
		})
	}
}

// TestAttackCreateOfANameThatIsThere truncates files by a request to make them, which the guest's kernel
// sends only for names that it does not know.
func TestAttackCreateOfANameThatIsThere(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: filepath.Join(t.TempDir(), "private")})
	root := f.tempRoot(t)
	store := filepath.Join(t.TempDir(), "index.js")
	writeFile(t, store, "host")
	writeFile(t, filepath.Join(root, ".envrc"), "host")
	writeFile(t, filepath.Join(root, ".env"), "host")
	if err := os.Link(store, filepath.Join(root, "index.js")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index.js", ".envrc", ".env"} {
		create(t, f, rootID, name, unix.O_RDWR|unix.O_TRUNC, 0o644)
	}
	for _, path := range []string{store, filepath.Join(root, ".envrc"), filepath.Join(root, ".env")} {
		if got := readText(t, path); got != "host" {
			t.Errorf("%s is %q", path, got)
		}
	}
	if got := readText(t, filepath.Join(root, "index.js")); got != "" {
		t.Errorf("the guest's copy is %q", got)
	}
}

// TestAttackADirectoryThatBecomesHidden: a process of the guest works in a directory, and the host moves it to a
// hidden name.
func TestAttackADirectoryThatBecomesHidden(t *testing.T) {
	for _, at := range []string{"draft", "a/draft", "a/b/c/draft"} {
		f := newTest(t, Options{Guard: &guard.Options{}, Private: filepath.Join(t.TempDir(), "private"), Undo: t.TempDir()})
		up := filepath.Join(f.tempRoot(t), filepath.Dir(at))
		if err := os.MkdirAll(filepath.Join(up, "draft/empty"), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(up, "draft/id"), "KEY")
		dir := uint64(rootID)
		for name := range strings.SplitSeq(at, "/") {
			dir = lookup(t, f, dir, name)
		}
		h := header(dir)
		lookup(t, f, dir, "id")
		create(t, f, dir, "mine", unix.O_RDWR, 0o644)
		if err := os.Rename(filepath.Join(up, "draft"), filepath.Join(up, ".ssh")); err != nil {
			t.Fatal(err)
		}
		for name, do := range map[string]func() fuse.Status{
			"create": func() fuse.Status {
				return f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "config", &fuse.CreateOut{})
			},
			"mkdir":  func() fuse.Status { return f.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, "new", &fuse.EntryOut{}) },
			"link":   func() fuse.Status { return f.Symlink(nil, &h, "/etc/passwd", "link", &fuse.EntryOut{}) },
			"unlink": func() fuse.Status { return f.Unlink(nil, &h, "id") },
			"rmdir":  func() fuse.Status { return f.Rmdir(nil, &h, "empty") },
			"rename": func() fuse.Status {
				return f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: dir}, "mine", "authorized_keys")
			},
			"out": func() fuse.Status {
				return f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "id", "id")
			},
		} {
			for range 2 {
				if st := do(); st == fuse.OK {
					t.Errorf("%s in %s: it is done", name, at)
				}
			}
		}
		list, err := os.ReadDir(filepath.Join(up, ".ssh"))
		if err != nil || len(list) != 3 {
			t.Errorf("%s: the host has %v, %v", at, list, err)
		}
	}
}

// TestAttackADirectoryBehindALink: the host moves a directory of which the guest holds another one below, and a link
// leads there from the old place, so that the path which the guest knows still leads to the directory.
func TestAttackADirectoryBehindALink(t *testing.T) {
	for _, c := range []struct{ moved, below, name string }{{"draft", "", "tasks.json"}, {"draft", "sub", "x"}, {"draft", "sub/deep", "x"}, {"a/draft", "sub", "x"}} {
		f := newTest(t, Options{Guard: &guard.Options{}, Private: filepath.Join(t.TempDir(), "private")})
		root := f.tempRoot(t)
		at := filepath.Join(c.moved, c.below)
		if err := os.MkdirAll(filepath.Join(root, at), 0o755); err != nil {
			t.Fatal(err)
		}
		dir := uint64(rootID)
		for name := range strings.SplitSeq(at, "/") {
			dir = lookup(t, f, dir, name)
		}
		create(t, f, dir, "mine", unix.O_RDWR, 0o644)
		to := filepath.Join(root, filepath.Dir(c.moved), ".vscode")
		if err := os.Rename(filepath.Join(root, c.moved), to); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(".vscode", filepath.Join(root, c.moved)); err != nil {
			t.Fatal(err)
		}
		h := header(dir)
		for range 2 {
			_ = f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, c.name, &fuse.CreateOut{})
			_ = f.Unlink(nil, &h, "mine")
		}
		list, err := os.ReadDir(filepath.Join(to, c.below))
		if err != nil || !slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == "mine" }) || slices.ContainsFunc(list, func(e os.DirEntry) bool { return e.Name() == c.name }) {
			t.Errorf("%s: the host has %v, %v", at, list, err)
		}
	}
}

// TestTheRootMoves: the host moves the whole project while the guest works in it.
func TestTheRootMoves(t *testing.T) {
	top := t.TempDir()
	f := newTest(t, Options{Root: mkdir(t, top, "project/a/b"), Guard: &guard.Options{}, Undo: t.TempDir()})
	dir := lookup(t, f, lookup(t, f, rootID, "a"), "b")
	open := create(t, f, dir, "open", unix.O_RDWR, 0o644)
	if err := os.Rename(filepath.Join(top, "project"), filepath.Join(top, "moved")); err != nil {
		t.Fatal(err)
	}
	if st := write(f, open.Fh, 0, 0, "guest"); st != fuse.OK {
		t.Errorf("write: %v", st)
	}
	next := create(t, f, dir, "next", unix.O_RDWR, 0o644)
	if st := write(f, next.Fh, 0, 0, "guest"); st != fuse.OK {
		t.Errorf("write: %v", st)
	}
	create(t, f, rootID, "top", unix.O_RDWR, 0o644)
	mkdir(t, top, "project/a/b") // another directory at the old path
	if err := os.Rename(filepath.Join(top, "moved/a/b"), filepath.Join(top, "project/a/c")); err != nil {
		t.Fatal(err)
	}
	if st := write(f, open.Fh, 0, 0, "EVIL"); st == fuse.OK {
		t.Error("a file that is out of the project is written")
	}
	if st := f.Create(nil, &fuse.CreateIn{InHeader: header(dir), Flags: unix.O_RDWR, Mode: 0o644}, "out", &fuse.CreateOut{}); st == fuse.OK {
		t.Error("a file is made out of the project")
	}
	if got := readText(t, filepath.Join(top, "project/a/c/open")); got != "guest" {
		t.Errorf("the host has %q", got)
	}
}

// mkdir makes a directory below another one, and returns the first one that it made.
func mkdir(t *testing.T, top, at string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(top, at), 0o755); err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(at, "/")
	return filepath.Join(top, first)
}
