package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A user of the guest whom the host does not know as the owner of anything.
const guestUID, guestGID = 70, 71

// asGuest is the header of a request by that user.
func asGuest(id uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: id, Caller: fuse.Caller{Owner: fuse.Owner{Uid: guestUID, Gid: guestGID}}}
}

// asHost is the header of a request by the guest's user with the numbers of the host's.
func asHost(id uint64) fuse.InHeader {
	return fuse.InHeader{NodeId: id, Caller: fuse.Caller{Owner: fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}}}
}

func newFileAs(t *testing.T, f *fileSystem, h fuse.InHeader, name string, mode uint32) fuse.CreateOut {
	t.Helper()
	var out fuse.CreateOut
	if st := f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: uint32(os.O_RDWR), Mode: mode}, name, &out); st != fuse.OK {
		t.Fatalf("create %q: %v", name, st)
	}
	return out
}

func mkdirAs(t *testing.T, f *fileSystem, h fuse.InHeader, name string, mode uint32) fuse.EntryOut {
	t.Helper()
	var out fuse.EntryOut
	if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: mode}, name, &out); st != fuse.OK {
		t.Fatalf("mkdir %q: %v", name, st)
	}
	return out
}

func chown(t *testing.T, f *fileSystem, id uint64, uid, gid uint32) {
	t.Helper()
	in := fuse.SetAttrIn{}
	in.NodeId, in.Valid, in.Uid, in.Gid = id, fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_KILL_SUIDGID, uid, gid
	if st := f.SetAttr(nil, &in, &fuse.AttrOut{}); st != fuse.OK {
		t.Fatalf("chown: %v", st)
	}
}

func chmod(t *testing.T, f *fileSystem, id uint64, mode uint32) {
	t.Helper()
	in := fuse.SetAttrIn{}
	in.NodeId, in.Valid, in.Mode = id, fuse.FATTR_MODE, mode
	if st := f.SetAttr(nil, &in, &fuse.AttrOut{}); st != fuse.OK {
		t.Fatalf("chmod %o: %v", mode, st)
	}
}

// seen is what the guest sees of a node: "UID:GID MODE".
func seen(t *testing.T, f *fileSystem, id uint64) string {
	t.Helper()
	var out fuse.AttrOut
	if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(id)}, &out); st != fuse.OK {
		t.Fatalf("getattr: %v", st)
	}
	return fmt.Sprintf("%d:%d %04o", out.Uid, out.Gid, out.Mode&modeBits)
}

// onHost is the same for the host, with the user's own numbers as "me".
func onHost(t *testing.T, path string) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if int(st.Uid) != os.Geteuid() || int(st.Gid) != os.Getegid() {
		return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&modeBits)
	}
	return fmt.Sprintf("me %04o", st.Mode&modeBits)
}

func TestARecordIsParsedStrictly(t *testing.T) {
	for _, o := range []ownership{
		{}, {uid: 1, gid: 2, mode: 0o644}, {uid: nobody - 1, gid: nobody - 1, mode: modeBits},
		{mode: 0o600, device: unix.S_IFBLK, rdev: 2048}, {mode: 0o20, device: unix.S_IFCHR, rdev: nobody},
	} {
		if got, ok := parseOwnership(o.String()); !ok || got != o {
			t.Errorf("%+v: %q is %+v, %v", o, o.String(), got, ok)
		}
	}
	for _, text := range []string{
		"", "1", "1 0 0", "2 0 0 0644", "1 0 0 644", "1 0 0 00644", "1 0 0 10644", "1 0 0 100644", "1 -1 0 0644", "1 +1 0 0644",
		"1 4294967295 0 0644", "1 0 4294967295 0644", "1 4294967296 0 0644", "1 0 0 0648", "1 0 0 0644 ", " 1 0 0 0644", "1  0 0 0644",
		"1 0 0 0644\n", "1 0 0 0644\x00", "1 00 0 0644", "1 0x1 0 0644", "1 root 0 0644", "1 0 0 0644 x", "1 0 0 0644 b", "1 0 0 0644 b -1",
		"1 0 0 0644 p 1", "1 0 0 0644 b 01", "1 0 0 0644 b 4294967296", "1 0 0 0644 b 1 1", "1 0 0 0644" + strings.Repeat(" ", maxRecord),
	} {
		if o, ok := parseOwnership(text); ok {
			t.Errorf("%q was taken for %+v", text, o)
		}
	}
}

// TestAFileBelongsToWhomMadeIt: also for a server that comes later; on the host all files
// belong to the server's user, who may edit them.
func TestAFileBelongsToWhomMadeIt(t *testing.T) {
	f := newTest(t, Options{})
	dir := f.tempRoot(t)
	sgid := mkdirAs(t, f, asHost(rootID), "sgid", 0o775)
	chown(t, f, sgid.NodeId, 5, 6)
	chmod(t, f, sgid.NodeId, 0o2775)
	newFileAs(t, f, asGuest(rootID), "secret", 0o600)
	newFileAs(t, f, asGuest(rootID), "none", 0)
	newFileAs(t, f, asGuest(rootID), "program", 0o4711)
	newFileAs(t, f, asGuest(rootID), "for-others", 0o1)
	mkdirAs(t, f, asGuest(rootID), "tmp", 0o1777)
	mkdirAs(t, f, asGuest(rootID), "closed", 0o55)
	newFileAs(t, f, asHost(rootID), "own", 0o640)
	newFileAs(t, f, asHost(rootID), "own-readonly", 0o444)
	newFileAs(t, f, asGuest(sgid.NodeId), "in", 0o644)
	mkdirAs(t, f, asGuest(sgid.NodeId), "sub", 0o755)
	me := fmt.Sprintf("%d:%d ", os.Geteuid(), os.Getegid())
	later := newTest(t, Options{Root: dir})
	for name, want := range map[string]struct{ guest, host string }{
		"secret":       {"70:71 0600", "me 0600"},
		"none":         {"70:71 0000", "me 0600"},
		"program":      {"70:71 4711", "me 0711"},
		"for-others":   {"70:71 0001", "me 0701"},
		"tmp":          {"70:71 1777", "me 0777"},
		"closed":       {"70:71 0055", "me 0755"},
		"own":          {me + "0640", "me 0640"},
		"own-readonly": {me + "0444", "me 0644"},
		"sgid":         {"5:6 2775", "me 0775"},
		"sgid/in":      {"70:6 0644", "me 0644"},
		"sgid/sub":     {"70:6 2755", "me 0755"},
	} {
		for i, f := range []*fileSystem{f, later} {
			id := uint64(rootID)
			for part := range strings.SplitSeq(name, "/") {
				id = lookup(t, f, id, part)
			}
			if got := seen(t, f, id); got != want.guest {
				t.Errorf("server %d: %s: the guest sees %s, want %s", i, name, got, want.guest)
			}
		}
		if got := onHost(t, filepath.Join(dir, name)); got != want.host {
			t.Errorf("%s: the host sees %s, want %s", name, got, want.host)
		}
	}
	if _, err := unix.Lgetxattr(filepath.Join(dir, "own"), ownerAttribute, nil); err == nil {
		t.Error("a file that needs no record has one")
	}
}

// TestOwnersAndModesAreTheGuests: chown and chmod, with the bits that only the guest has.
func TestOwnersAndModesAreTheGuests(t *testing.T) {
	f := newTest(t, Options{})
	path := filepath.Join(f.tempRoot(t), "f")
	c := newFileAs(t, f, asHost(rootID), "f", 0o644)
	id := c.NodeId
	step := func(what, guest, host string) {
		t.Helper()
		if got := seen(t, f, id); got != guest {
			t.Errorf("%s: the guest sees %s, want %s", what, got, guest)
		}
		if got := onHost(t, path); got != host {
			t.Errorf("%s: the host sees %s, want %s", what, got, host)
		}
	}
	me := fmt.Sprintf("%d:%d ", os.Geteuid(), os.Getegid())
	chown(t, f, id, 5, 6)
	step("chown", "5:6 0644", "me 0644")
	chmod(t, f, id, 0o6755)
	step("chmod 6755", "5:6 6755", "me 0755")
	chown(t, f, id, 7, 6)
	step("chown of a set-user-ID program", "7:6 0755", "me 0755")
	chmod(t, f, id, 0o2644)
	chown(t, f, id, 8, 6)
	step("chown of a file with mandatory locks", "8:6 2644", "me 0644")
	for name, change := range map[string]func() fuse.Status{
		"a write": func() fuse.Status {
			_, st := f.Writev(nil, &fuse.WriteIn{Fh: c.Fh, WriteFlags: fuse.WRITE_KILL_SUIDGID}, [][]byte{[]byte("x")})
			return st
		},
		"truncate": func() fuse.Status {
			in := fuse.SetAttrIn{}
			in.NodeId, in.Valid = id, fuse.FATTR_SIZE|fuse.FATTR_KILL_SUIDGID
			return f.SetAttr(nil, &in, &fuse.AttrOut{})
		},
		"O_TRUNC": func() fuse.Status {
			var out fuse.OpenOut
			st := f.Open(nil, &fuse.OpenIn{InHeader: header(id), Flags: uint32(os.O_WRONLY | os.O_TRUNC), Mode: fuse.OPEN_KILL_SUIDGID}, &out)
			f.Release(nil, &fuse.ReleaseIn{Fh: out.Fh})
			return st
		},
		"fallocate": func() fuse.Status {
			return f.Fallocate(nil, &fuse.FallocateIn{InHeader: asGuest(id), Fh: c.Fh, Length: 10})
		},
	} {
		chmod(t, f, id, 0o6755)
		if st := change(); st != fuse.OK {
			t.Errorf("%s: %v", name, st)
		}
		step(name, "8:6 0755", "me 0755")
	}
	chmod(t, f, id, 0o4755)
	if st := write(f, c.Fh, 0, 0, "by root"); st != fuse.OK {
		t.Error(st)
	}
	step("a write by root", "8:6 4755", "me 0755")
	chmod(t, f, id, 0)
	step("chmod 0", "8:6 0000", "me 0600")
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	step("chmod on the host", "8:6 0664", "me 0664")
	chown(t, f, id, uint32(os.Geteuid()), uint32(os.Getegid()))
	step("back to the host's owner", me+"0664", "me 0664")
	if _, err := unix.Getxattr(path, ownerAttribute, nil); err == nil {
		t.Error("the record stayed")
	}
}

// TestTheServersAttributesAreHidden from the guest.
func TestTheServersAttributesAreHidden(t *testing.T) {
	f := newTest(t, Options{})
	c := newFileAs(t, f, asGuest(rootID), "f", 0o644)
	h := header(c.NodeId)
	if st := f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h}, "user.seen", []byte("x")); st != fuse.OK {
		t.Fatal(st)
	}
	for _, name := range []string{ownerAttribute, ownAttributes, ownAttributes + "other"} {
		if _, st := f.GetXAttr(nil, &h, name, make([]byte, 100)); st != fuse.Status(unix.EOPNOTSUPP) {
			t.Errorf("get %s: %v", name, st)
		}
		if st := f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: h}, name, []byte("1 0 0 4755")); st != fuse.Status(unix.EOPNOTSUPP) {
			t.Errorf("set %s: %v", name, st)
		}
		if st := f.RemoveXAttr(nil, &h, name); st != fuse.Status(unix.EOPNOTSUPP) {
			t.Errorf("remove %s: %v", name, st)
		}
	}
	buf := make([]byte, 1000)
	if n, st := f.ListXAttr(nil, &h, buf); st != fuse.OK || string(buf[:n]) != "user.seen\x00" {
		t.Errorf("list: %q, %v", buf[:n], st)
	}
	if n, st := f.ListXAttr(nil, &h, nil); st != fuse.OK || n != uint32(len("user.seen\x00")) {
		t.Errorf("size of the list: %d, %v", n, st)
	}
	if got := seen(t, f, c.NodeId); got != "70:71 0644" {
		t.Errorf("the guest sees %s", got)
	}
}

// TestAForgedRecordChangesNothingOnTheHost: records may come with the project.
func TestAForgedRecordChangesNothingOnTheHost(t *testing.T) {
	f := newTest(t, Options{})
	dir := f.tempRoot(t)
	me := fmt.Sprintf("%d:%d ", os.Geteuid(), os.Getegid())
	for name, c := range map[string]struct{ record, text, want string }{
		"set-user-ID":             {"1 0 0 4755", "", "0:0 4755"},
		"unreadable":              {"1 5 5 0155", "", "5:5 0155"},
		"another mode":            {"1 5 5 4777", "", "5:5 0755"}, // not what follows from the host's
		"not a record":            {"1 0 0 47777", "", me + "0755"},
		"endless":                 {"1 0 0 4755" + strings.Repeat(" ", 3000), "", me + "0755"},
		"a device":                {"1 0 0 0755 b 2048", "", "0:0 0755"},
		"a device, with contents": {"1 0 0 0755 b 2048", "text", "0:0 0755"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(path, ownerAttribute, []byte(c.record), 0); err != nil {
			t.Skip("the file system of the test has no user attributes:", err)
		}
		id := lookup(t, f, rootID, name)
		if got := seen(t, f, id); got != c.want {
			t.Errorf("%s: the guest sees %s, want %s", name, got, c.want)
		}
		var out fuse.OpenOut
		if st := f.Open(nil, &fuse.OpenIn{InHeader: header(id)}, &out); st != fuse.OK || read(t, f, out.Fh) != c.text {
			t.Errorf("%s: open: %v", name, st)
		}
		if got := onHost(t, path); got != "me 0755" {
			t.Errorf("%s: the host sees %s", name, got)
		}
	}
}

// TestADeviceIsAnEmptyFileOnTheHost, whoever runs bawn.
func TestADeviceIsAnEmptyFileOnTheHost(t *testing.T) {
	f := newTest(t, Options{})
	for typ, rdev := range map[uint32]uint32{unix.S_IFCHR: uint32(unix.Mkdev(1, 3)), unix.S_IFBLK: uint32(unix.Mkdev(259, 70000))} {
		name := fmt.Sprintf("device-%o", typ)
		in := fuse.MknodIn{InHeader: header(rootID), Mode: typ | 0o4666, Rdev: rdev}
		var e fuse.EntryOut
		if st := f.Mknod(nil, &in, name, &e); st != fuse.OK {
			t.Fatalf("mknod: %v", st)
		}
		path := filepath.Join(f.tempRoot(t), name)
		var out fuse.AttrOut
		if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(e.NodeId)}, &out); st != fuse.OK || out.Mode != typ|0o4666 || out.Rdev != rdev || e.Mode != out.Mode {
			t.Errorf("%v: mode %o and %o, device %x", st, e.Mode, out.Mode, out.Rdev)
		}
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode() != 0o666 || fi.Size() != 0 {
			t.Fatalf("the host has %v, %v", fi.Mode(), err)
		}
		if err := os.WriteFile(path, []byte("text"), 0); err != nil {
			t.Fatal(err)
		}
		if st := f.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(e.NodeId)}, &out); st != fuse.OK || out.Mode != unix.S_IFREG|0o4666 {
			t.Errorf("with contents: %v, mode %o", st, out.Mode)
		}
	}
}

// ownersOfAllTypes makes one file of each type, gives them away and returns their nodes.
func ownersOfAllTypes(t *testing.T, f *fileSystem) map[string]uint64 {
	t.Helper()
	h := asHost(rootID)
	var link, fifo fuse.EntryOut
	if st := f.Symlink(nil, &h, "target", "link", &link); st != fuse.OK {
		t.Fatal(st)
	}
	if st := f.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFIFO | 0o600}, "fifo", &fifo); st != fuse.OK {
		t.Fatal(st)
	}
	made := map[string]uint64{
		"link": link.NodeId, "fifo": fifo.NodeId,
		"file": newFileAs(t, f, h, "file", 0o600).NodeId, "dir": mkdirAs(t, f, h, "dir", 0o700).NodeId,
	}
	for _, id := range made {
		chown(t, f, id, 5, 6)
	}
	return made
}

// TestOwnersWithoutAttributes: links and FIFOs have none anywhere, and some file systems
// have none for any file. They are kept over a suspension.
func TestOwnersWithoutAttributes(t *testing.T) {
	for name, plain := range map[string]bool{"of some types": false, "in the whole file system": true} {
		t.Run(name, func(t *testing.T) {
			f := newTest(t, Options{})
			if plain {
				st, err := statFD(f.tree.root.fd.fd)
				if err != nil {
					t.Fatal(err)
				}
				f.owners.noAttributes(st)
			}
			made := ownersOfAllTypes(t, f)
			b, err := json.Marshal(f.save())
			if err != nil {
				t.Fatal(err)
			}
			var s Saved
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
			later := newTest(t, Options{Root: f.tempRoot(t)})
			if plain {
				later.owners.noAttributes(&unix.Statx_t{Dev_major: unix.Major(f.tree.root.key.dev), Dev_minor: unix.Minor(f.tree.root.key.dev)})
			}
			if err := later.load(&s, false); err != nil {
				t.Fatal(err)
			}
			for name, id := range made {
				for i, f := range []*fileSystem{f, later} {
					if got := seen(t, f, id); !strings.HasPrefix(got, "5:6 ") {
						t.Errorf("server %d: %s: the guest sees %s", i, name, got)
					}
				}
				if got := onHost(t, filepath.Join(f.tempRoot(t), name)); !strings.HasPrefix(got, "me ") {
					t.Errorf("%s: the host sees %s", name, got)
				}
			}
			for _, name := range []string{"link", "fifo"} {
				h := header(rootID)
				if st := f.Unlink(nil, &h, name); st != fuse.OK {
					t.Fatal(st)
				}
			}
			if n := len(f.owners.table.byKey); n != 0 && !plain || n != 2 && plain {
				t.Errorf("%d records are left in the table", n)
			}
		})
	}
}

// TestARecordNeedsRoom: without it, owners and modes that the host has can still be set.
func TestARecordNeedsRoom(t *testing.T) {
	f := newTest(t, Options{})
	id := newFileAs(t, f, asHost(rootID), "f", 0o644).NodeId
	f.space.bytes = 0
	f.space.room.Take(1 << 62)
	in := fuse.SetAttrIn{}
	in.NodeId, in.Valid, in.Uid = id, fuse.FATTR_UID, guestUID
	if st := f.SetAttr(nil, &in, &fuse.AttrOut{}); st != fuse.Status(unix.ENOSPC) {
		t.Errorf("chown: %v", st)
	}
	chmod(t, f, id, 0o600)
	if got := onHost(t, filepath.Join(f.tempRoot(t), "f")); got != "me 0600" {
		t.Errorf("the host sees %s", got)
	}
	if st := f.Create(nil, &fuse.CreateIn{InHeader: asGuest(rootID)}, "g", &fuse.CreateOut{}); st != fuse.Status(unix.ENOSPC) {
		t.Errorf("create: %v", st)
	}
	if _, err := os.Lstat(filepath.Join(f.tempRoot(t), "g")); err == nil {
		t.Error("the file was left")
	}
}

func TestTheTableOfOwnersIsBounded(t *testing.T) {
	table := newOwnerTable()
	table.max = 3
	for i := range uint64(5) {
		table.set(key{ino: i}, &ownership{uid: uint32(i)})
	}
	table.set(key{ino: 3}, &ownership{uid: 33})
	if len(table.byKey) != 3 || table.oldest.Len() != 3 || table.get(key{ino: 1}) != nil {
		t.Errorf("%d records in a table of 3", len(table.byKey))
	}
	if r := table.get(key{ino: 3}); r == nil || r.uid != 33 {
		t.Errorf("the record is %v", r)
	}
}

// TestAKnownRecordIsReadAgainWhenItChanges on the host.
func TestAKnownRecordIsReadAgainWhenItChanges(t *testing.T) {
	f := newTest(t, Options{})
	path := filepath.Join(f.tempRoot(t), "f")
	id := newFileAs(t, f, asGuest(rootID), "f", 0o644).NodeId
	n, err := f.tree.get(id)
	if err != nil {
		t.Fatal(err)
	}
	for i, record := range []string{"1 5 5 0644", "1 6 6 0644"} {
		n.owner.at += int64(time.Hour) // as if it had been read long after the last change
		if i == 0 {
			n.owner.record = &ownership{uid: 1, gid: 1, mode: 0o644}
			if got := seen(t, f, id); got != "1:1 0644" {
				t.Errorf("the record was read again: %s", got)
			}
		}
		for was := n.owner.ctime; ; {
			if err := unix.Setxattr(path, ownerAttribute, []byte(record), 0); err != nil {
				t.Skip("the file system of the test has no user attributes:", err)
			}
			if st, err := statAt(unix.AT_FDCWD, path); err != nil || st.Ctime != was {
				break // the clock has ticked
			}
		}
		if got, want := seen(t, f, id), record[2:3]; !strings.HasPrefix(got, want+":") {
			t.Errorf("the guest sees %s after %s", got, record)
		}
	}
}

// asOrdinaryUser calls do in a thread without root's rights, on a directory of its own.
func asOrdinaryUser(t *testing.T, do func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		do(dir)
		return
	}
	const ordinary = 1234
	if err := os.Chown(dir, ordinary, ordinary); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		for _, call := range []uintptr{unix.SYS_SETRESGID, unix.SYS_SETRESUID} {
			if _, _, errno := unix.RawSyscall(call, ordinary, ordinary, ordinary); errno != 0 {
				t.Error(errno)
				return
			}
		}
		do(dir)
	}()
	<-done
}

// TestTheGuestsRootIsNotStoppedByModes of the host's files, which keep their modes for the
// guest.
func TestTheGuestsRootIsNotStoppedByModes(t *testing.T) {
	asOrdinaryUser(t, func(dir string) {
		for _, err := range []error{
			os.WriteFile(dir+"/readonly", []byte("text"), 0o444), os.WriteFile(dir+"/none", []byte("text"), 0),
			os.Mkdir(dir+"/closed", 0o755), os.WriteFile(dir+"/closed/f", nil, 0o444), os.Chmod(dir+"/closed", 0o555),
			os.Mkdir(dir+"/dark", 0o755), os.WriteFile(dir+"/dark/f", nil, 0o444), os.Chmod(dir+"/dark", 0),
		} {
			if err != nil {
				t.Error(err)
				return
			}
		}
		f := newTest(t, Options{Root: dir})
		in := func(name string, id uint64) uint64 {
			var out fuse.EntryOut
			h := header(id)
			if st := (forRoot{f}).Lookup(nil, &h, name, &out); st != fuse.OK {
				t.Errorf("lookup %q: %v", name, st)
			}
			return out.NodeId
		}
		for name, flags := range map[string]int{"readonly": os.O_RDWR, "none": os.O_RDONLY} {
			id := in(name, rootID)
			open := fuse.OpenIn{InHeader: asHost(id), Flags: uint32(flags)}
			if st := (forRoot{f}).Open(nil, &open, &fuse.OpenOut{}); st != fuse.EACCES {
				t.Errorf("%s for its owner: %v", name, st)
			}
			open.InHeader = header(id)
			before := seen(t, f, id)
			if st := (forRoot{f}).Open(nil, &open, &fuse.OpenOut{}); st != fuse.OK {
				t.Errorf("%s for root: %v", name, st)
			}
			if after := seen(t, f, id); after != before {
				t.Errorf("%s: the guest sees %s, and saw %s", name, after, before)
			}
		}
		closed, dark := in("closed", rootID), in("dark", rootID)
		in("f", dark)
		for _, id := range []uint64{closed, dark} {
			h := header(id)
			if st := (forRoot{f}).Unlink(nil, &h, "f"); st != fuse.OK {
				t.Errorf("unlink: %v", st)
			}
		}
		me := fmt.Sprintf("%d:%d ", os.Geteuid(), os.Getegid())
		if a, b := seen(t, f, closed), seen(t, f, dark); a != me+"0555" || b != me+"0000" {
			t.Errorf("the guest sees %s and %s", a, b)
		}
	})
}

// TestReadOnlyModesOfTheHostStay in a share that is read-only.
func TestReadOnlyModesOfTheHostStay(t *testing.T) {
	asOrdinaryUser(t, func(dir string) {
		if err := os.WriteFile(dir+"/none", []byte("text"), 0); err != nil {
			t.Error(err)
			return
		}
		f := newTest(t, Options{Root: dir, ReadOnly: true})
		open := fuse.OpenIn{InHeader: header(lookup(t, f, rootID, "none"))}
		if st := (forRoot{f}).Open(nil, &open, &fuse.OpenOut{}); st != fuse.EACCES {
			t.Errorf("open: %v", st)
		}
		if got := onHost(t, dir+"/none"); got != "me 0000" {
			t.Errorf("the host sees %s", got)
		}
	})
}

// TestAStaleChmodDoesNotMakeAWrittenProgramSetUserID: the host's kernel takes set-user-ID
// away at a write, and a chmod of the guest that began before puts it back.
func TestAStaleChmodDoesNotMakeAWrittenProgramSetUserID(t *testing.T) {
	asOrdinaryUser(t, func(dir string) {
		path := dir + "/program"
		if err := errors.Join(os.WriteFile(path, []byte("text"), 0o755), unix.Chmod(path, 0o6755)); err != nil {
			t.Error(err)
			return
		}
		f := newTest(t, Options{Root: dir})
		n, err := f.tree.get(lookup(t, f, rootID, "program"))
		if err != nil {
			t.Error(err)
			return
		}
		fd, st, err := f.open(n)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		had := f.ownership(n, file{fd: fd}, st)
		var out fuse.OpenOut
		if st := f.Open(nil, &fuse.OpenIn{InHeader: header(n.id), Flags: uint32(os.O_WRONLY)}, &out); st != fuse.OK {
			t.Error(st)
			return
		}
		if st := write(f, out.Fh, 0, 0, "hostile"); st != fuse.OK {
			t.Error(st)
		}
		if got := onHost(t, path); got != "me 0755" {
			t.Errorf("after the write: %s", got)
		}
		if err := f.setOwnership(n, fd, st, had); err != nil {
			t.Error(err)
		}
		if got := onHost(t, path); got != "me 0755" {
			t.Errorf("after the chmod: %s", got)
		}
		if got := seen(t, f, n.id); !strings.HasSuffix(got, " 6755") {
			t.Errorf("the guest sees %s", got)
		}
	})
}
