package share

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// TestPrivateVersionsAreBounded fills the store with bytes and with files, by each way.
func TestPrivateVersionsAreBounded(t *testing.T) {
	log := filepath.Join(t.TempDir(), "files.log")
	f := newTest(t, Options{Guard: &guard.Options{}, Private: t.TempDir(), Events: log})
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
	refused := func(path string) bool {
		t.Helper()
		return strings.Contains(readText(t, log), `"path":"`+path+`","action":"refused"`)
	}
	if !refused(".vscode/big") {
		t.Error("the log does not say that there was no room")
	}
	if st := write(f, file.Fh, 0, 0, "fits"); st != fuse.OK {
		t.Errorf("a write that fits: %v", st)
	}
	var last fuse.Status
	made := 0
	for ; made <= maxPrivateFiles; made++ {
		i := made
		if last = f.Mknod(nil, &fuse.MknodIn{InHeader: header(dir.NodeId), Mode: unix.S_IFREG | 0o644}, fmt.Sprint(i), &fuse.EntryOut{}); last != fuse.OK {
			break
		}
	}
	if last != full || !refused(fmt.Sprintf(".vscode/%d", made)) {
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
