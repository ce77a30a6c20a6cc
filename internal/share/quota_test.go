package share

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestQuota: the files of a share with a limit take no more than that, whatever makes them, and
// what is deleted is room again.
func TestQuota(t *testing.T) {
	const limit = 8 << 20
	mib := make([]byte, 1<<20)
	noSpace := fuse.Status(unix.ENOSPC)
	fill := func(f *fileSystem, fh uint64, n int) fuse.Status {
		return flood(n, func(i int) fuse.Status {
			_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh, Offset: uint64(i) << 20}, [][]byte{mib})
			return st
		})
	}
	for name, attack := range map[string]func(t *testing.T, f *fileSystem) fuse.Status{
		"one file": func(t *testing.T, f *fileSystem) fuse.Status {
			return fill(f, create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644).Fh, 40)
		},
		"a file that has no name": func(t *testing.T, f *fileSystem) fuse.Status {
			c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
			h := header(rootID)
			if st := f.Unlink(nil, &h, "f"); st != fuse.OK {
				t.Fatal(st)
			}
			return fill(f, c.Fh, 40)
		},
		"files that a guest knows and has removed": func(t *testing.T, f *fileSystem) fuse.Status {
			var last fuse.Status
			for i := range 4 {
				name := fmt.Sprint(i)
				c := create(t, f, rootID, name, uint32(os.O_RDWR), 0o644)
				last = fill(f, c.Fh, 6)
				f.Release(nil, &fuse.ReleaseIn{Fh: c.Fh}) // the node stays known
				h := header(rootID)
				if st := f.Unlink(nil, &h, name); st != fuse.OK {
					t.Fatal(st)
				}
			}
			if n := f.tree.pins.Len(); n > 1 {
				t.Errorf("%d files without a name are kept", n)
			}
			if last != fuse.OK {
				return last
			}
			return fill(f, create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644).Fh, 40)
		},
		"an allocation": func(t *testing.T, f *fileSystem) fuse.Status {
			c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
			return f.Fallocate(nil, &fuse.FallocateIn{Fh: c.Fh, Length: limit + 1})
		},
		"directories": func(_ *testing.T, f *fileSystem) fuse.Status {
			return flood(limit/inodeBytes+1000, func(i int) fuse.Status {
				return f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID), Mode: 0o755}, fmt.Sprint(i), &fuse.EntryOut{})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newTest(t, Options{Root: t.TempDir(), Limit: limit})
			if st := attack(t, f); st != noSpace {
				t.Errorf("it ended with %v", st)
			}
			if used, err := f.usage(); err != nil || used > limit+1<<20 { // and the directory itself
				t.Errorf("%d bytes are in use, %v", used, err)
			}
		})
	}
	f := newTest(t, Options{Root: t.TempDir(), Limit: limit})
	c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
	for i := range 100 { // written over again and again, it takes no more
		if st := write(f, c.Fh, 0, 0, string(mib)+string(mib)); st != fuse.OK {
			t.Fatalf("write %d: %v", i, st)
		}
	}
	if st := fill(f, c.Fh, 40); st != noSpace {
		t.Errorf("filled: %v", st)
	}
	var full fuse.StatfsOut
	if st := f.StatFs(nil, &fuse.InHeader{}, &full); st != fuse.OK || full.Blocks*uint64(full.Bsize) != limit {
		t.Errorf("the guest sees %+v, %v", full, st)
	}
	h := header(rootID)
	if st := f.Unlink(nil, &h, "f"); st != fuse.OK {
		t.Fatal(st)
	}
	f.Release(nil, &fuse.ReleaseIn{Fh: c.Fh})
	f.space.quota.done(opRelease) // as Handle does
	c = create(t, f, rootID, "g", uint32(os.O_RDWR), 0o644)
	if st := fill(f, c.Fh, 5); st != fuse.OK {
		t.Errorf("after a deletion: %v", st)
	}
}

// TestQuotaCounts: bytes that other requests hold are not room, what is larger than the limit
// costs no count, and a share that cannot be counted is full.
func TestQuotaCounts(t *testing.T) {
	counts, used := 0, uint64(60)
	var fails error
	q := &quota{limit: 100, count: func() (uint64, error) { counts++; return used, fails }}
	if err := q.take(30, 20); !errors.Is(err, unix.ENOSPC) || counts != 1 {
		t.Errorf("%v after %d counts", err, counts)
	}
	if err := q.take(101, 0); !errors.Is(err, unix.ENOSPC) || counts != 1 {
		t.Errorf("more than the limit: %v after %d counts", err, counts)
	}
	if err := errors.Join(q.take(10, 0), q.take(10, 0), q.take(20, 0)); err != nil || counts != 2 {
		t.Errorf("%v after %d counts", err, counts)
	}
	q.next = time.Now().Add(time.Hour)
	if left, err := q.left(0); left != 20 || err != nil || counts != 2 {
		t.Errorf("%d left, %v, after %d counts", left, err, counts)
	}
	q.stale.Store(false)
	if err := q.take(30, 0); !errors.Is(err, unix.ENOSPC) || counts != 2 { // at once
		t.Errorf("nothing was freed: %v after %d counts", err, counts)
	}
	q.next, fails = time.Time{}, errTooDeep
	if err := q.take(1, 0); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("not counted: %v", err)
	}
	q.next = time.Time{}
	if _, err := q.left(0); !errors.Is(err, errTooDeep) {
		t.Errorf("not counted: %v", err)
	}
}

// TestUsage: a file with several names counts once, and a tree that is too deep is an error.
func TestUsage(t *testing.T) {
	root := t.TempDir()
	f := newTest(t, Options{Root: root})
	before, err := f.usage()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(root+"/a", make([]byte, 1<<20), 0o600), os.Link(root+"/a", root+"/b"), os.Symlink("/", root+"/c")); err != nil {
		t.Fatal(err)
	}
	if used, err := f.usage(); err != nil || used < before+1<<20 || used > before+1<<20+1<<16 {
		t.Errorf("%d bytes, %v; before %d", used, err, before)
	}
	at, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	for range maxCountDepth + 2 {
		if err == nil {
			err = unix.Mkdirat(at, "d", 0o700)
		}
		if err == nil {
			above := at
			at, err = unix.Openat(above, "d", unix.O_PATH|unix.O_DIRECTORY, 0)
			unix.Close(above)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(at)
	if _, err := f.usage(); !errors.Is(err, errTooDeep) {
		t.Errorf("too deep: %v", err)
	}
}
