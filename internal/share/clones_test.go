package share

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/mounttest"
	"bawn.dev/bawn/internal/sys/reserve"
)

// megabytes returns that much data that does not compress and differs in each block.
func megabytes(n int) []byte {
	b := make([]byte, n<<20)
	for i := range b {
		b[i] = byte(i>>12 ^ i*7)
	}
	return b
}

// clonedShare is a share on a file system that can clone, or one with its store elsewhere.
func clonedShare(t *testing.T, typ string) (f *fileSystem, root, store, outside string) {
	t.Helper()
	top := mounttest.Loop(t, typ)
	root, store, outside = filepath.Join(top, "project"), filepath.Join(top, "undo"), filepath.Join(top, "outside")
	for _, dir := range []string{root, store, outside} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f = newTest(t, Options{Root: root, Undo: store})
	t.Cleanup(func() { f.undo.Close() })
	return f, root, store, outside
}

// fill takes the room of a file system but for so many bytes beside the reserve.
func fill(t *testing.T, root string, leave int64) {
	t.Helper()
	f, err := os.Create(filepath.Join(filepath.Dir(root), "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unix.Sync()
	st, err := reserve.Left(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(reserve.Bytes(&st)) - leave; n > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	unix.Sync()
}

// TestALinkedFileIsSeparatedByAClone: a file that a store outside of the share has too is separated
// before the first change without a byte of it being copied.
func TestALinkedFileIsSeparatedByAClone(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	for _, typ := range mounttest.Cloning {
		t.Run(typ, func(t *testing.T) {
			f, root, store, outside := clonedShare(t, typ)
			stored, name, data := filepath.Join(outside, "stored"), filepath.Join(root, "a"), megabytes(8)
			if err := errors.Join(os.WriteFile(stored, data, 0o644), unix.Setxattr(stored, "user.of.the.store", []byte("1"), 0), os.Link(stored, name)); err != nil {
				t.Fatal(err)
			}
			before := inode(t, stored)
			edit(t, f, rootID, "a", unix.O_RDWR, "X")
			if after := inode(t, stored); after != before {
				t.Errorf("the store has %.100s, not %.100s", after, before)
			}
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, append([]byte("X"), data[1:]...)) {
				t.Errorf("the guest's file is not what it wrote: %v", err)
			}
			if shared, all := mounttest.Shared(t, name); all-shared > 1<<20 {
				t.Errorf("%d bytes of %d were copied", all-shared, all)
			}
			if res := undoAll(t, root, store, 1); len(res.Kept) > 0 {
				t.Errorf("kept: %v", res.Kept)
			}
			if after := inode(t, name); after != before {
				t.Errorf("after the undo the file is %.100s, not %.100s", after, before)
			}
			if shared, all := mounttest.Shared(t, name); shared != all || all == 0 {
				t.Errorf("the undo copied %d bytes of %d", all-shared, all)
			}
		})
	}
}

// TestALinkedFileOnAFullDisk: where a clone needs no room, a full disk does not keep a linked file
// from having its mode changed.
func TestALinkedFileOnAFullDisk(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	for _, typ := range mounttest.Cloning {
		t.Run(typ, func(t *testing.T) {
			f, root, _, outside := clonedShare(t, typ)
			stored, name := filepath.Join(outside, "stored"), filepath.Join(root, "a")
			if err := errors.Join(os.WriteFile(stored, megabytes(30), 0o644), os.Link(stored, name)); err != nil {
				t.Fatal(err)
			}
			fill(t, root, 10<<20)
			f.space.looked = time.Time{} // this is about room
			in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(lookup(t, f, rootID, "a")), Valid: fuse.FATTR_MODE, Mode: 0o755}}
			must(t, f.SetAttr(nil, &in, &fuse.AttrOut{}))
			if fi, err := os.Stat(stored); err != nil || fi.Mode().Perm() != 0o644 {
				t.Errorf("the store has %v, %v", fi, err)
			}
			if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o755 {
				t.Errorf("the guest's file has %v, %v", fi, err)
			}
			if f.space.held != 0 || f.space.heldInodes != 0 {
				t.Errorf("%d bytes and %d inodes are never given back", f.space.held, f.space.heldInodes)
			}
		})
	}
}

// TestAProjectOfSubvolumes: files of a subvolume of Btrfs in the project, which has a device number of its
// own and inode numbers that others have too, are kept by clones, separated and brought back.
func TestAProjectOfSubvolumes(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	f, root, store, _ := clonedShare(t, "btrfs")
	sub := filepath.Join(root, "sub")
	if out, err := exec.CommandContext(t.Context(), "btrfs", "subvolume", "create", sub).CombinedOutput(); err != nil {
		t.Skipf("btrfs subvolume create: %v: %s", err, out)
	}
	data := megabytes(4)
	outside := filepath.Join(filepath.Dir(root), "other name")
	if err := errors.Join(os.WriteFile(filepath.Join(sub, "a"), data, 0o600), os.WriteFile(filepath.Join(root, "b"), data, 0o600),
		os.Link(filepath.Join(root, "b"), outside)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, root)
	id := lookup(t, f, rootID, "sub")
	edit(t, f, id, "a", unix.O_RDWR, "XX")
	edit(t, f, rootID, "b", unix.O_RDWR, "YY")
	for _, name := range []string{"sub/a", "b"} {
		if shared, all := mounttest.Shared(t, filepath.Join(root, name)); all-shared > 1<<20 {
			t.Errorf("%d bytes of %d of %s were copied", all-shared, all, name)
		}
	}
	if got, err := os.ReadFile(outside); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the name outside was changed: %v", err)
	}
	if res := undoAll(t, root, store, 1); len(res.Kept) > 0 {
		t.Errorf("kept: %v", res.Kept)
	}
	if after := listing(t, root); after != before {
		t.Errorf("after the undo the project is not as before")
	}
}

// TestAttackAFloodOfClones is an attack on the disk of a host whose file system gives room when data
// reaches the disk, and clones: as much as a guest can write, write over, copy or allocate. The reserve
// stays free.
func TestAttackAFloodOfClones(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	piece := megabytes(1)
	writes := func(f *fileSystem, fh uint64, n int) fuse.Status {
		return flood(n, func(i int) fuse.Status {
			_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh, Offset: uint64(i) << 20}, [][]byte{piece})
			return st
		})
	}
	for _, typ := range mounttest.Cloning {
		for name, attack := range map[string]func(t *testing.T, f *fileSystem, fh uint64){
			"writes": func(t *testing.T, f *fileSystem, fh uint64) {
				if st := writes(f, fh, 120); st != fuse.Status(unix.ENOSPC) {
					t.Errorf("it ended with %v", st)
				}
			},
			"over what an undo keeps": func(_ *testing.T, f *fileSystem, _ uint64) {
				for _, name := range []string{"old1", "old2"} {
					var out fuse.OpenOut
					if f.Open(nil, &fuse.OpenIn{InHeader: header(lookup(t, f, rootID, name)), Flags: unix.O_RDWR}, &out) == fuse.OK {
						writes(f, out.Fh, 40)
					}
				}
			},
			"copies that are written over": func(t *testing.T, f *fileSystem, fh uint64) {
				writes(f, fh, 20)
				var to [6]fuse.CreateOut
				for i := range to {
					to[i] = create(t, f, rootID, fmt.Sprint("copy", i), uint32(os.O_RDWR), 0o644)
				}
				for _, to := range to {
					_, _ = f.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: fh, FhOut: to.Fh, Len: 20 << 20})
					writes(f, to.Fh, 20)
				}
			},
			"allocations": func(_ *testing.T, f *fileSystem, fh uint64) {
				flood(20, func(i int) fuse.Status {
					return f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Offset: uint64(i) * 30 << 20, Length: 30 << 20})
				})
			},
		} {
			t.Run(typ+", "+name, func(t *testing.T) {
				f, root, _, _ := clonedShare(t, typ)
				for _, name := range []string{"old1", "old2"} {
					if err := os.WriteFile(filepath.Join(root, name), megabytes(40), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				fill(t, root, 60<<20)
				f.space.looked = time.Time{} // this is about room
				attack(t, f, create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644).Fh)
				unix.Sync()
				st, err := reserve.Left(f.tree.root.fd.fd)
				var whole unix.Statfs_t
				if err := errors.Join(err, unix.Statfs(root, &whole)); err != nil {
					t.Fatal(err)
				}
				// What the file system needs for itself may take a little of the reserve.
				left, want := whole.Bavail*uint64(whole.Bsize), whole.Blocks*uint64(whole.Bsize)/20
				if left < want/2 {
					t.Errorf("%d bytes are left, not %d (reserve: %d)", left, want, reserve.Bytes(&st))
				}
				t.Logf("left %d of %d, want %d", left, whole.Blocks*uint64(whole.Bsize), want)
			})
		}
	}
}
