package share

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func newTest(t testing.TB, o Options) *fileSystem {
	t.Helper()
	if o.Root == "" {
		o.Root = t.TempDir()
	}
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
	f, err := newFileSystem(o)
	if err != nil {
		t.Fatal(err)
	}
	f.space.looked = f.space.looked.AddDate(1000, 0, 0) // tests of room set it themselves
	f.space.bytes, f.space.inodes = 1<<60, 1<<60
	t.Cleanup(func() { unix.Close(f.tree.root.fd.fd); f.tree.mounts.close() })
	return f
}

func header(id uint64) fuse.InHeader { return fuse.InHeader{NodeId: id} }

func lookup(t *testing.T, f *fileSystem, dir uint64, name string) uint64 {
	t.Helper()
	h, out := header(dir), fuse.EntryOut{}
	if st := f.Lookup(nil, &h, name, &out); st != fuse.OK {
		t.Fatalf("lookup %q: %v", name, st)
	}
	return out.NodeId
}

func create(t *testing.T, f *fileSystem, dir uint64, name string, flags, mode uint32) fuse.CreateOut {
	t.Helper()
	var out fuse.CreateOut
	in := fuse.CreateIn{InHeader: header(dir), Flags: flags, Mode: mode}
	if st := f.Create(nil, &in, name, &out); st != fuse.OK {
		t.Fatalf("create %q: %v", name, st)
	}
	return out
}

func write(f *fileSystem, fh, off uint64, flags uint32, data string) fuse.Status {
	_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh, Offset: off, Flags: flags}, [][]byte{[]byte(data)})
	return st
}

func read(t *testing.T, f *fileSystem, fh uint64) string {
	t.Helper()
	r, st := f.Read(nil, &fuse.ReadIn{Fh: fh, Size: 4096}, nil)
	if st != fuse.OK {
		t.Fatal(st)
	}
	defer r.Done()
	buf := make([]byte, 4096)
	b, st := r.Bytes(buf)
	if st != fuse.OK {
		t.Fatal(st)
	}
	return string(b)
}

func TestNamesThatAreNoComponentsAreRefused(t *testing.T) {
	f := newTest(t, Options{})
	outside := filepath.Join(filepath.Dir(f.tempRoot(t)), "outside")
	for _, name := range []string{"", ".", "..", "a/b", "../outside", "/etc/passwd", "x\x00y"} {
		h := header(rootID)
		var e fuse.EntryOut
		if st := f.Lookup(nil, &h, name, &e); st != fuse.EINVAL {
			t.Errorf("lookup %q: %v", name, st)
		}
		if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, name, &e); st != fuse.EINVAL {
			t.Errorf("mkdir %q: %v", name, st)
		}
		if st := f.Create(nil, &fuse.CreateIn{InHeader: h}, name, &fuse.CreateOut{}); st != fuse.EINVAL {
			t.Errorf("create %q: %v", name, st)
		}
		if st := f.Symlink(nil, &h, "x", name, &e); st != fuse.EINVAL {
			t.Errorf("symlink %q: %v", name, st)
		}
		if st := f.Unlink(nil, &h, name); st != fuse.EINVAL {
			t.Errorf("unlink %q: %v", name, st)
		}
		if st := f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "a", name); st != fuse.EINVAL {
			t.Errorf("rename to %q: %v", name, st)
		}
	}
	if _, err := os.Lstat(outside); err == nil {
		t.Error("something was made outside")
	}
}

// tempRoot is the path of the root, by its descriptor.
func (f *fileSystem) tempRoot(t testing.TB) string {
	t.Helper()
	p, err := os.Readlink(magic(f.tree.root.fd.fd))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestADirectorySwappedForALinkLeadsNowhere is the race that path-based servers
// lose: the guest knows a directory, and its place becomes a link to elsewhere.
func TestADirectorySwappedForALinkLeadsNowhere(t *testing.T) {
	f := newTest(t, Options{})
	f.tree.maxOpen = 0 // each walk starts at the root
	root := f.tempRoot(t)
	secret := t.TempDir()
	if err := os.WriteFile(filepath.Join(secret, "key"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "d", "key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := lookup(t, f, rootID, "d")
	k := lookup(t, f, d, "key")
	if err := os.RemoveAll(filepath.Join(root, "d")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(root, "d")); err != nil {
		t.Fatal(err)
	}
	stale := fuse.Status(syscall.ESTALE)
	h := header(d)
	if st := f.Lookup(nil, &h, "key", &fuse.EntryOut{}); st != stale {
		t.Errorf("lookup: %v", st)
	}
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(k)}, &fuse.OpenOut{}); st != stale {
		t.Errorf("open: %v", st)
	}
	if st := f.Create(nil, &fuse.CreateIn{InHeader: header(d), Flags: uint32(os.O_RDWR)}, "new", &fuse.CreateOut{}); st != stale {
		t.Errorf("create: %v", st)
	}
	if st := f.Unlink(nil, &h, "key"); st != stale {
		t.Errorf("unlink: %v", st)
	}
	if b, err := os.ReadFile(filepath.Join(secret, "key")); err != nil || string(b) != "secret" {
		t.Errorf("the file outside: %q, %v", b, err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	f := newTest(t, Options{})
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := header(rootID)
	var e fuse.EntryOut
	if st := f.Symlink(nil, &h, secret, "link", &e); st != fuse.OK {
		t.Fatal(st)
	}
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId)}, &fuse.OpenOut{}); st != fuse.Status(syscall.ELOOP) {
		t.Errorf("open: %v", st)
	}
	in := fuse.CreateIn{InHeader: h, Flags: uint32(os.O_RDWR)}
	if st := f.Create(nil, &in, "link", &fuse.CreateOut{}); st != fuse.Status(syscall.ELOOP) {
		t.Errorf("create: %v", st)
	}
	set := fuse.SetAttrIn{}
	set.NodeId, set.Valid, set.Size = e.NodeId, fuse.FATTR_SIZE, 0
	if st := f.SetAttr(nil, &set, &fuse.AttrOut{}); st != fuse.Status(syscall.ELOOP) {
		t.Errorf("truncate: %v", st)
	}
	set.Valid, set.Mode = fuse.FATTR_MODE, 0o777
	if st := f.SetAttr(nil, &set, &fuse.AttrOut{}); st != fuse.Status(syscall.EOPNOTSUPP) {
		t.Errorf("chmod: %v", st)
	}
	lh := header(e.NodeId)
	if target, st := f.Readlink(nil, &lh); st != fuse.OK || string(target) != secret {
		t.Errorf("readlink: %q, %v", target, st)
	}
	if fi, err := os.Stat(secret); err != nil || fi.Size() != 6 || fi.Mode().Perm() != 0o600 {
		t.Errorf("the file outside: %v, %v", fi, err)
	}
}

// TestAFIFOIsNeverOpened: opening one would hang the server.
func TestAFIFOIsNeverOpened(t *testing.T) {
	f := newTest(t, Options{})
	var e fuse.EntryOut
	in := fuse.MknodIn{InHeader: header(rootID), Mode: unix.S_IFIFO | 0o666}
	if st := f.Mknod(nil, &in, "fifo", &e); st != fuse.OK {
		t.Fatal(st)
	}
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId)}, &fuse.OpenOut{}); st != fuse.EACCES {
		t.Errorf("open: %v", st)
	}
	c := fuse.CreateIn{InHeader: header(rootID), Flags: uint32(os.O_RDONLY)}
	if st := f.Create(nil, &c, "fifo", &fuse.CreateOut{}); st != fuse.EACCES {
		t.Errorf("create: %v", st)
	}
}

func TestReadOnlyRefusesEveryChange(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "a")
	if err := os.WriteFile(file, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := newTest(t, Options{Root: root, ReadOnly: true})
	a := lookup(t, f, rootID, "a")
	h, e := header(rootID), &fuse.EntryOut{}
	set := fuse.SetAttrIn{}
	set.NodeId, set.Valid = a, fuse.FATTR_MODE
	for name, st := range map[string]fuse.Status{
		"create":    f.Create(nil, &fuse.CreateIn{InHeader: h}, "b", &fuse.CreateOut{}),
		"tmpfile":   f.Tmpfile(nil, &fuse.CreateIn{InHeader: h}, &fuse.CreateOut{}),
		"mkdir":     f.Mkdir(nil, &fuse.MkdirIn{InHeader: h}, "b", e),
		"mknod":     f.Mknod(nil, &fuse.MknodIn{InHeader: h}, "b", e),
		"symlink":   f.Symlink(nil, &h, "a", "b", e),
		"link":      f.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: a}, "b", e),
		"unlink":    f.Unlink(nil, &h, "a"),
		"rmdir":     f.Rmdir(nil, &h, "a"),
		"rename":    f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "a", "b"),
		"setattr":   f.SetAttr(nil, &set, &fuse.AttrOut{}),
		"open":      f.Open(nil, &fuse.OpenIn{InHeader: header(a), Flags: uint32(os.O_RDWR)}, &fuse.OpenOut{}),
		"trunc":     f.Open(nil, &fuse.OpenIn{InHeader: header(a), Flags: uint32(os.O_TRUNC)}, &fuse.OpenOut{}),
		"write":     write(f, 1, 0, 0, "x"),
		"fallocate": f.Fallocate(nil, &fuse.FallocateIn{Fh: 1, Length: 1}),
		"setxattr":  f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(a)}, "user.x", []byte("y")),
		"rmxattr":   f.RemoveXAttr(nil, &fuse.InHeader{NodeId: a}, "user.x"),
	} {
		if st != fuse.EROFS {
			t.Errorf("%s: %v", name, st)
		}
	}
	var o fuse.OpenOut
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(a)}, &o); st != fuse.OK || read(t, f, o.Fh) != "text" {
		t.Errorf("reading: %v", st)
	}
}

func TestOneFileOnly(t *testing.T) {
	root := t.TempDir()
	for _, n := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(root, n), []byte(n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := newTest(t, Options{Root: root, File: "a"})
	h := header(rootID)
	if st := f.Lookup(nil, &h, "b", &fuse.EntryOut{}); st != fuse.ENOENT {
		t.Errorf("lookup: %v", st)
	}
	a := lookup(t, f, rootID, "a")
	if st := f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "b", "a"); st != fuse.EPERM {
		t.Errorf("rename: %v", st)
	}
	if st := f.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: a}, "c", &fuse.EntryOut{}); st != fuse.EPERM {
		t.Errorf("link: %v", st)
	}
	var o fuse.OpenOut
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(a), Flags: uint32(os.O_RDWR)}, &o); st != fuse.OK {
		t.Fatal(st)
	}
	if st := write(f, o.Fh, 0, 0, "new"); st != fuse.OK {
		t.Errorf("write: %v", st)
	}
}

func TestRenamesAreFollowed(t *testing.T) {
	f := newTest(t, Options{})
	f.tree.maxOpen = 0
	var d, e fuse.EntryOut
	if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID), Mode: 0o755}, "d", &d); st != fuse.OK {
		t.Fatal(st)
	}
	c := create(t, f, d.NodeId, "f", uint32(os.O_RDWR), 0o644)
	if st := f.Rename(nil, &fuse.RenameIn{InHeader: header(rootID), Newdir: rootID}, "d", "e"); st != fuse.OK {
		t.Fatal(st)
	}
	if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(c.NodeId)}, &fuse.AttrOut{}); st != fuse.OK {
		t.Errorf("after the directory's rename: %v", st)
	}
	if st := f.Link(nil, &fuse.LinkIn{InHeader: header(rootID), Oldnodeid: c.NodeId}, "hard", &e); st != fuse.OK || e.NodeId != c.NodeId {
		t.Errorf("hard link: %v, node %d and %d", st, e.NodeId, c.NodeId)
	}
	if e.Nlink != 2 {
		t.Errorf("%d links", e.Nlink)
	}
}

// TestAnOpenFileOutlivesItsName: create, unlink, go on.
func TestAnOpenFileOutlivesItsName(t *testing.T) {
	f := newTest(t, Options{})
	c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
	h := header(rootID)
	if st := f.Unlink(nil, &h, "f"); st != fuse.OK {
		t.Fatal(st)
	}
	if st := write(f, c.Fh, 0, 0, "still"); st != fuse.OK {
		t.Fatal(st)
	}
	var a fuse.AttrOut
	if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(c.NodeId)}, &a); st != fuse.OK || a.Size != 5 || a.Nlink != 0 {
		t.Errorf("%v: size %d, links %d", st, a.Size, a.Nlink)
	}
	if got := read(t, f, c.Fh); got != "still" {
		t.Errorf("read %q", got)
	}
	f.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
	f.Forget(c.NodeId, 1)
	if n := len(f.tree.byID); n != 1 {
		t.Errorf("%d nodes are left", n)
	}
	if st := write(f, c.Fh, 0, 0, "x"); st != fuse.Status(syscall.EBADF) {
		t.Errorf("after release: %v", st)
	}
}

// TestAFileThatWasUnlinkedIsNotOpenedAgain: by its node, as by /proc/self/fd in the guest. A
// file that has its name by now is another, and so is what a link of its name leads to.
func TestAFileThatWasUnlinkedIsNotOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	f := newTest(t, Options{Root: dir})
	outside := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "f")
	for what, replace := range map[string]func() error{
		"nothing":        func() error { return nil },
		"another file":   func() error { return os.WriteFile(name, []byte("other"), 0o600) },
		"a link outside": func() error { return os.Symlink(outside, name) },
		"a hard link":    func() error { return os.Link(outside, name) },
	} {
		c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
		h := header(rootID)
		if st := f.Unlink(nil, &h, "f"); st != fuse.OK {
			t.Fatal(st)
		}
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		for _, flags := range []uint32{uint32(os.O_RDONLY), uint32(os.O_RDWR | os.O_TRUNC)} {
			var out fuse.OpenOut
			if st := f.Open(nil, &fuse.OpenIn{InHeader: header(c.NodeId), Flags: flags}, &out); st == fuse.OK {
				if got := read(t, f, out.Fh); got != "" {
					t.Errorf("%s in its place: it was opened again and has %q", what, got)
				}
			}
		}
		f.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
		_ = os.Remove(name)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "secret" {
		t.Errorf("the file outside: %q, %v", b, err)
	}
}

func TestAppendKeepsWhatTheHostAppended(t *testing.T) {
	f := newTest(t, Options{})
	c := create(t, f, rootID, "log", uint32(os.O_WRONLY), 0o644)
	if err := os.WriteFile(filepath.Join(f.tempRoot(t), "log"), []byte("host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if st := write(f, c.Fh, 0, unix.O_APPEND, "guest\n"); st != fuse.OK {
		t.Fatal(st)
	}
	b, err := os.ReadFile(filepath.Join(f.tempRoot(t), "log"))
	if err != nil || string(b) != "host\nguest\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestCacheIsKeptOnlyWhileNothingChanged(t *testing.T) {
	f := newTest(t, Options{})
	path := filepath.Join(f.tempRoot(t), "f")
	if err := os.WriteFile(path, []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	f.tree.mounts.rootType = unix.EXT4_SUPER_MAGIC
	n := lookup(t, f, rootID, "f")
	keeps := func() bool {
		var o fuse.OpenOut
		st := f.Open(nil, &fuse.OpenIn{InHeader: header(n)}, &o)
		if st == fuse.Status(syscall.ESTALE) { // the kernel looks it up again, too
			st = f.Open(nil, &fuse.OpenIn{InHeader: header(n)}, &o)
		}
		if st != fuse.OK {
			t.Fatal(st)
		}
		f.Release(nil, &fuse.ReleaseIn{Fh: o.Fh})
		return o.OpenFlags&fuse.FOPEN_KEEP_CACHE != 0
	}
	if first, second := keeps(), keeps(); first || second {
		t.Error("kept while it may still be changing")
	}
	nd, err := f.tree.get(n)
	if err != nil {
		t.Fatal(err)
	}
	nd.stamp.at = nd.stamp.at.Add(settled * 2)
	if keeps() {
		t.Error("kept while a page that a host's mapping changed may change again without a trace")
	}
	nd.stamp.at = nd.stamp.at.Add(writtenBack * 2)
	if !keeps() {
		t.Error("not kept though nothing changed")
	}
	nd.stamp.at = nd.stamp.at.Add(writtenBack * 2)
	if err := os.WriteFile(path, []byte("two"), 0o644); err != nil {
		t.Fatal(err)
	}
	if keeps() {
		t.Error("kept over a change")
	}
	nd.stamp.at = nd.stamp.at.Add(writtenBack * 2)
	f.tree.mounts.rootType = unix.TMPFS_MAGIC // a mapping never changes its times
	if keeps() {
		t.Error("kept on tmpfs")
	}
}

// TestCacheOfTheGuestsOwnFileIsKept: what the guest wrote itself, no mapping of the host changed.
func TestCacheOfTheGuestsOwnFileIsKept(t *testing.T) {
	f := newTest(t, Options{})
	f.tree.mounts.rootType = unix.EXT4_SUPER_MAGIC
	c := create(t, f, rootID, "own", uint32(os.O_WRONLY), 0o644)
	if st := write(f, c.Fh, 0, 0, "data"); st != fuse.OK {
		t.Fatal(st)
	}
	f.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
	n, err := f.tree.get(c.NodeId)
	if err != nil {
		t.Fatal(err)
	}
	open := func() bool {
		var o fuse.OpenOut
		if st := f.Open(nil, &fuse.OpenIn{InHeader: header(c.NodeId)}, &o); st != fuse.OK {
			t.Fatal(st)
		}
		f.Release(nil, &fuse.ReleaseIn{Fh: o.Fh})
		return o.OpenFlags&fuse.FOPEN_KEEP_CACHE != 0
	}
	open()
	n.stamp.at = n.stamp.at.Add(settled * 2)
	if !open() {
		t.Error("not kept")
	}
}

func TestDirectoriesAreListedWhole(t *testing.T) {
	f := newTest(t, Options{})
	want := map[string]bool{".": true, "..": true}
	for i := range 1500 {
		name := "file-\xff-" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		want[name] = true
		if err := os.WriteFile(filepath.Join(f.tempRoot(t), name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var o fuse.OpenOut
	if st := f.OpenDir(nil, &fuse.OpenIn{InHeader: header(rootID)}, &o); st != fuse.OK {
		t.Fatal(st)
	}
	for _, plus := range []bool{false, true} {
		got := map[string]bool{}
		for off := uint64(0); ; {
			in := &fuse.ReadIn{InHeader: header(rootID), Fh: o.Fh, Offset: off}
			buf := make([]byte, 4096)
			list := fuse.NewDirEntryList(buf, off)
			var entries []fuse.DirEntry
			var err error
			if plus {
				if st := f.ReadDirPlus(nil, in, list); st != fuse.OK {
					t.Fatal(st)
				}
				entries, _, err = fuse.ParseDirLookupEntries(list.Bytes())
			} else {
				if st := f.ReadDir(nil, in, list); st != fuse.OK {
					t.Fatal(st)
				}
				entries, err = fuse.ParseDirEntries(list.Bytes())
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) == 0 {
				break
			}
			for _, e := range entries {
				if got[e.Name] {
					t.Fatalf("%q twice", e.Name)
				}
				got[e.Name] = true
				off = e.Off
			}
		}
		if len(got) != len(want) {
			t.Errorf("plus %v: %d names, not %d", plus, len(got), len(want))
		}
	}
}

func TestAttributesOfTheHostStayOut(t *testing.T) {
	f := newTest(t, Options{})
	c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
	for _, name := range []string{"security.capability", "system.posix_acl_access", "trusted.x"} {
		st := f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(c.NodeId)}, name, []byte("x"))
		if st != fuse.Status(syscall.EOPNOTSUPP) {
			t.Errorf("%s: %v", name, st)
		}
	}
}

// TestTheReserveIsKept: a guest that fills the disk stops before the host's end.
func TestTheReserveIsKept(t *testing.T) {
	f := newTest(t, Options{})
	c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
	f.space.bytes = 0
	if st := write(f, c.Fh, 0, 0, "x"); st != fuse.Status(syscall.ENOSPC) {
		// The budget is asked for anew; it is as much as there is.
		if got, err := f.space.look(); err != nil || got.Bavail == 0 {
			t.Errorf("write: %v with %d blocks (%v)", st, got.Bavail, err)
		}
	}
	var raw unix.Statfs_t
	if err := unix.Fstatfs(f.space.fd, &raw); err != nil {
		t.Fatal(err)
	}
	kept, err := f.space.look()
	if err != nil {
		t.Fatal(err)
	}
	if reserve := (raw.Bavail - kept.Bavail) * uint64(raw.Bsize); raw.Bavail > raw.Blocks/20 && reserve == 0 {
		t.Error("no reserve")
	}
	if st := f.Fallocate(nil, &fuse.FallocateIn{Fh: c.Fh, Length: raw.Blocks * uint64(raw.Bsize)}); st != fuse.Status(syscall.ENOSPC) {
		t.Errorf("fallocate of the whole disk: %v", st)
	}
}

// request is a FUSE message as the guest's kernel writes it.
func request(op uint32, node uint64, body ...[]byte) []byte {
	b := make([]byte, headerLen)
	for _, part := range body {
		b = append(b, part...)
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], op)
	binary.NativeEndian.PutUint64(b[8:], 42)
	binary.NativeEndian.PutUint64(b[16:], node)
	return b
}

func TestMessages(t *testing.T) {
	f := newTest(t, Options{})
	if err := os.WriteFile(filepath.Join(f.tempRoot(t), "f"), []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := newHandler(f)
	const opLookup = 1
	out := make([]byte, 4096)
	// In several parts, as the guest's memory may have it.
	req := request(opLookup, rootID, []byte("f\x00"))
	n := h.Handle([][]byte{req[:10], req[10:41], req[41:]}, [][]byte{out[:16], out[16:]})
	if n != 16+int(unsafe.Sizeof(fuse.EntryOut{})) || binary.NativeEndian.Uint32(out[4:]) != 0 {
		t.Fatalf("%d bytes: %v", n, out[:16])
	}
	for name, in := range map[string][][]byte{
		"empty":   {},
		"short":   {make([]byte, 12)},
		"unknown": {request(999, rootID)},
		"no body": {request(opWrite, rootID)},
	} {
		clear(out)
		n := h.Handle(in, [][]byte{out})
		if n < 16 || int32(binary.NativeEndian.Uint32(out[4:])) >= 0 {
			t.Errorf("%s: %d bytes: %v", name, n, out[:16])
		}
	}
}

func FuzzHandle(f *testing.F) {
	f.Add(request(1, rootID, []byte("f\x00")), 4096)
	f.Add(request(opWrite, rootID, make([]byte, 40), []byte("data")), 64)
	f.Add(request(28, rootID, make([]byte, 40)), 100) // READDIR
	f.Fuzz(func(t *testing.T, in []byte, room int) {
		if room < 0 || room > 1<<16 || bytes.Contains(in, []byte("..")) {
			return
		}
		fs := newTest(t, Options{})
		h := newHandler(fs)
		out := make([]byte, room)
		if n := h.Handle([][]byte{in}, [][]byte{out}); n < 0 || n > room {
			t.Fatalf("%d bytes in %d", n, room)
		}
	})
}

func TestARootBehindALinkIsRefused(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "real", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, err := newFileSystem(Options{Root: filepath.Join(dir, "real", "sub")}); err != nil {
		t.Error(err)
	}
	for _, root := range []string{"link", "link/sub"} {
		if _, err := newFileSystem(Options{Root: filepath.Join(dir, root)}); !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %v", root, err)
		}
	}
}
