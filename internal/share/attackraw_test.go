package share

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// TestAttackRequestsThatNoKernelSends: a guest that speaks FUSE itself, at a guarded and a hidden file.
func TestAttackRequestsThatNoKernelSends(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: filepath.Join(t.TempDir(), "private")})
	root := f.tempRoot(t)
	for _, name := range []string{".envrc", ".env"} {
		writeFile(t, filepath.Join(root, name), "host")
	}
	h := header(rootID)
	envrc := lookup(t, f, rootID, ".envrc")
	mine := create(t, f, rootID, "mine", unix.O_RDWR, 0o755)
	var reading fuse.OpenOut
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(envrc)}, &reading); st != fuse.OK {
		t.Fatal(st)
	}
	rename := func(flags uint32, from, to string) fuse.Status {
		return f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID, Flags: flags}, from, to)
	}
	for name, attack := range map[string]struct {
		do   func() fuse.Status
		want fuse.Status
	}{
		"whiteout":                     {func() fuse.Status { return rename(unix.RENAME_WHITEOUT, "mine", ".envrc") }, fuse.EINVAL},
		"exchange":                     {func() fuse.Status { return rename(unix.RENAME_EXCHANGE, "mine", ".envrc") }, fuse.Status(unix.EXDEV)},
		"exchange with what is hidden": {func() fuse.Status { return rename(unix.RENAME_EXCHANGE, "mine", ".env") }, fuse.Status(unix.EXDEV)},
		"link to it": {func() fuse.Status {
			return f.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: mine.NodeId}, ".idea", &fuse.EntryOut{})
		}, fuse.Status(unix.EXDEV)},
		"unnamed and linked": {func() fuse.Status {
			var out fuse.CreateOut
			if st := f.Tmpfile(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR}, &out); st != fuse.OK {
				return fuse.Status(unix.EXDEV) // the file system has none
			}
			return f.Link(nil, &fuse.LinkIn{InHeader: h, Oldnodeid: out.NodeId}, ".tool-versions", &fuse.EntryOut{})
		}, fuse.Status(unix.EXDEV)},
		"write where it is read":    {func() fuse.Status { return write(f, reading.Fh, 0, 0, "EVIL") }, fuse.Status(unix.ESTALE)},
		"allocate where it is read": {func() fuse.Status { return f.Fallocate(nil, &fuse.FallocateIn{Fh: reading.Fh, Length: 9}) }, fuse.Status(unix.ESTALE)},
		"copy to where it is read": {func() fuse.Status {
			_, st := f.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: mine.Fh, FhOut: reading.Fh, Len: 4})
			return st
		}, fuse.Status(unix.ESTALE)},
		"forge the mark of what it made": {func() fuse.Status {
			return f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(mine.NodeId)}, madeAttribute, []byte("1"))
		}, fuse.Status(unix.EOPNOTSUPP)},
		"a label of the host": {func() fuse.Status {
			return f.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: header(mine.NodeId)}, "security.capability", []byte("x"))
		}, fuse.Status(unix.EOPNOTSUPP)},
		"remove what is hidden": {func() fuse.Status { return f.Unlink(nil, &h, ".env") }, fuse.ENOENT},
		"remove its directory":  {func() fuse.Status { return f.Rmdir(nil, &h, ".env") }, fuse.ENOENT},
		"a pipe in its place": {func() fuse.Status {
			return f.Mknod(nil, &fuse.MknodIn{InHeader: h, Mode: unix.S_IFIFO}, ".mcp.json", &fuse.EntryOut{})
		}, fuse.EPERM},
	} {
		t.Run(name, func(t *testing.T) {
			if st := attack.do(); st != attack.want {
				t.Errorf("%v, want %v", st, attack.want)
			}
			for _, name := range []string{".envrc", ".env"} {
				if got := readText(t, filepath.Join(root, name)); got != "host" {
					t.Errorf("the host's %s is %q", name, got)
				}
			}
			for _, name := range []string{".idea", ".tool-versions", ".mcp.json"} {
				if _, err := os.Lstat(filepath.Join(root, name)); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the host has %s: %v", name, err)
				}
			}
		})
	}
}

// TestAttackRoomBehindTheEnd: files of the store take room on disk without growing.
func TestAttackRoomBehindTheEnd(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: filepath.Join(t.TempDir(), "private")})
	var dir fuse.EntryOut
	if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID), Mode: 0o755}, ".idea", &dir); st != fuse.OK {
		t.Fatal(st)
	}
	for i := range 6 {
		out := create(t, f, dir.NodeId, string(rune('a'+i)), unix.O_RDWR, 0o644)
		st := f.Fallocate(nil, &fuse.FallocateIn{Fh: out.Fh, Length: maxPrivateBytes / 2, Mode: unix.FALLOC_FL_KEEP_SIZE})
		switch {
		case st == fuse.Status(unix.EOPNOTSUPP):
			t.Skip(st)
		case st == fuse.Status(unix.ENOSPC):
			return
		case st != fuse.OK:
			t.Fatal(st)
		}
	}
	t.Error("there is room for all of it")
}
