package share

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

const somebodysKey = "-----BEGIN PRIVATE KEY-----\nxyz"

// TestAttackAFileThatWaitsForASecret: the guest makes a file, or keeps one open, into which a program of the
// host then writes a secret in place.
func TestAttackAFileThatWaitsForASecret(t *testing.T) {
	for _, name := range []string{"server.key", ".npmrc", "credentials.json"} {
		t.Run(name, func(t *testing.T) {
			f := newTest(t, Options{Guard: &guard.Options{}})
			path := filepath.Join(f.tempRoot(t), name)
			open := create(t, f, rootID, name, unix.O_RDWR, 0o644)
			if st := write(f, open.Fh, 0, 0, "#"); st != fuse.OK {
				t.Fatal(st)
			}
			host, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			if _, err := host.WriteString(somebodysKey + " _authToken=secret token"); err != nil {
				t.Fatal(err)
			}
			if _, st := f.Read(nil, &fuse.ReadIn{Fh: open.Fh, Size: 100}, nil); st == fuse.OK {
				t.Error("it is read through the open file")
			}
			_ = write(f, open.Fh, 0, unix.O_APPEND, "more") // does not make it the guest's again
			if _, st := f.Read(nil, &fuse.ReadIn{Fh: open.Fh, Size: 100}, nil); st == fuse.OK {
				t.Error("it is read after another write")
			}
			f.release(open.Fh)
			h, e := header(rootID), fuse.EntryOut{}
			if st := f.Lookup(nil, &h, name, &e); st == fuse.OK && e.NodeId != 0 {
				t.Error("it is found")
			}
			if st := f.Open(nil, &fuse.OpenIn{InHeader: header(open.NodeId)}, &fuse.OpenOut{}); st == fuse.OK {
				t.Error("it is opened")
			}
		})
	}
}

// TestAKeyOfTheGuestStaysReadable: what the guest wrote itself is not hidden from it, also from another
// process of the guest while it is being written, and in the next server.
func TestAKeyOfTheGuestStaysReadable(t *testing.T) {
	o := Options{Root: t.TempDir(), Guard: &guard.Options{}}
	f := newTest(t, o)
	open := create(t, f, rootID, "server.key", unix.O_RDWR, 0o600)
	for range 2 {
		if st := write(f, open.Fh, 0, unix.O_APPEND, somebodysKey); st != fuse.OK {
			t.Fatal(st)
		}
		if got := read(t, f, open.Fh); got[:10] != somebodysKey[:10] {
			t.Errorf("reads %q", got)
		}
		lookup(t, f, rootID, "server.key")
	}
	set := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(open.NodeId), Valid: fuse.FATTR_MTIME, Mtime: 7}}
	if st := f.SetAttr(nil, &set, &fuse.AttrOut{}); st != fuse.OK {
		t.Fatal(st)
	}
	lookup(t, f, rootID, "server.key")
	f.release(open.Fh)
	h := header(rootID)
	if st := f.Rename(nil, &fuse.RenameIn{InHeader: h, Newdir: rootID}, "server.key", "tls.key"); st != fuse.OK {
		t.Fatal(st)
	}
	lookup(t, f, rootID, "tls.key")
	if st, err := statAt(f.tree.root.fd.fd, "tls.key"); err == nil && f.owners.hasAttributes(st) {
		lookup(t, newTest(t, o), rootID, "tls.key")
	}
}
