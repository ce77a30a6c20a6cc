package share

import (
	"fmt"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// TestPrivateVersionsAreBounded fills the store with bytes and with files, by each way.
func TestPrivateVersionsAreBounded(t *testing.T) {
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir()})
	full := fuse.Status(unix.ENOSPC)
	h := header(rootID)
	var dir fuse.EntryOut
	if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: h, Mode: 0o755}, ".vscode", &dir); st != fuse.OK {
		t.Fatal(st)
	}
	file := create(t, f, dir.NodeId, "big", unix.O_RDWR, 0o644)
	if st := write(f, file.Fh, maxPrivateBytes, 0, "x"); st != full {
		t.Errorf("write: %v", st)
	}
	if st := f.Fallocate(nil, &fuse.FallocateIn{Fh: file.Fh, Length: maxPrivateBytes + 1}); st != full {
		t.Errorf("fallocate: %v", st)
	}
	size := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(file.NodeId), Valid: fuse.FATTR_SIZE, Size: maxPrivateBytes + 1}}
	if st := f.SetAttr(nil, &size, &fuse.AttrOut{}); st != full {
		t.Errorf("truncate: %v", st)
	}
	if st := write(f, file.Fh, 0, 0, "fits"); st != fuse.OK {
		t.Errorf("a write that fits: %v", st)
	}
	var last fuse.Status
	for i := range maxPrivateFiles + 1 {
		if last = f.Mknod(nil, &fuse.MknodIn{InHeader: header(dir.NodeId), Mode: unix.S_IFREG | 0o644}, fmt.Sprint(i), &fuse.EntryOut{}); last != fuse.OK {
			break
		}
	}
	if last != full {
		t.Errorf("files: %v", last)
	}
	for i := range 10 {
		h := header(dir.NodeId)
		if st := f.Unlink(nil, &h, fmt.Sprint(i)); st != fuse.OK {
			t.Fatal(st)
		}
	}
	create(t, f, dir.NodeId, "again", unix.O_RDWR, 0o644)
}
