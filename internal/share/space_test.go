package share

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/mounttest"
)

// TestAFloodKeepsTheReserve is an attack on the host's disk: as much as a guest can write,
// allocate or make, in requests that are large or many at once. The reserve stays free.
func TestAFloodKeepsTheReserve(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	const size, inodes = 64 << 20, 20000
	noSpace := fuse.Status(unix.ENOSPC)
	for name, attack := range map[string]func(t *testing.T, f *fileSystem, fh uint64) fuse.Status{
		"one oversized write": func(_ *testing.T, f *fileSystem, fh uint64) fuse.Status {
			_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh}, [][]byte{make([]byte, size-1<<20)})
			return st
		},
		"many writes": func(t *testing.T, f *fileSystem, fh uint64) fuse.Status {
			data := make([]byte, 1<<20)
			return flood(100, func(i int) fuse.Status {
				_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh, Offset: uint64(i) << 20}, [][]byte{data})
				return st
			})
		},
		"allocations at once": func(_ *testing.T, f *fileSystem, fh uint64) fuse.Status {
			return flood(8, func(i int) fuse.Status {
				return f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Offset: uint64(i) * 30 << 20, Length: 30 << 20})
			})
		},
		"allocations beside writes": func(_ *testing.T, f *fileSystem, fh uint64) fuse.Status {
			data := make([]byte, 4<<20)
			return flood(40, func(i int) fuse.Status {
				if i%2 == 0 {
					return f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Offset: uint64(i) * 30 << 20, Length: 10 << 20})
				}
				_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh, Offset: uint64(i) * 30 << 20}, [][]byte{data})
				return st
			})
		},
		"an allocation that keeps the size": func(_ *testing.T, f *fileSystem, fh uint64) fuse.Status {
			return f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Length: size - 1<<20, Mode: unix.FALLOC_FL_KEEP_SIZE})
		},
		"an allocation of everything": func(_ *testing.T, f *fileSystem, fh uint64) fuse.Status {
			return f.Fallocate(nil, &fuse.FallocateIn{Fh: fh, Length: 1<<63 - 1})
		},
		"copies at once": func(t *testing.T, f *fileSystem, fh uint64) fuse.Status {
			_, st := f.Writev(nil, &fuse.WriteIn{Fh: fh}, [][]byte{make([]byte, 10<<20)})
			if st != fuse.OK {
				t.Fatal(st)
			}
			var to [8]uint64
			for i := range to {
				to[i] = create(t, f, rootID, fmt.Sprint("copy", i), uint32(os.O_RDWR), 0o644).Fh
			}
			return flood(len(to), func(i int) fuse.Status {
				_, st := f.CopyFileRange(nil, &fuse.CopyFileRangeIn{FhIn: fh, FhOut: to[i], Len: 10 << 20})
				return st
			})
		},
		"files": func(_ *testing.T, f *fileSystem, _ uint64) fuse.Status {
			return flood(inodes, func(i int) fuse.Status {
				return f.Mknod(nil, &fuse.MknodIn{InHeader: header(rootID), Mode: unix.S_IFREG}, fmt.Sprint(i), &fuse.EntryOut{})
			})
		},
		"directories": func(_ *testing.T, f *fileSystem, _ uint64) fuse.Status {
			return flood(inodes, func(i int) fuse.Status {
				return f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootID)}, fmt.Sprint(i), &fuse.EntryOut{})
			})
		},
		"links": func(_ *testing.T, f *fileSystem, _ uint64) fuse.Status {
			return flood(inodes, func(i int) fuse.Status {
				h := header(rootID)
				return f.Symlink(nil, &h, "x", fmt.Sprint(i), &fuse.EntryOut{})
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			if err := unix.Mount("none", root, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", size, inodes)); err != nil {
				t.Skipf("tmpfs cannot be mounted here: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
			f := newTest(t, Options{Root: root})
			f.space.looked = time.Time{} // this is about room
			c := create(t, f, rootID, "f", uint32(os.O_RDWR), 0o644)
			if st := attack(t, f, c.Fh); st != noSpace {
				t.Errorf("it ended with %v", st)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(root, &st); err != nil {
				t.Fatal(err)
			}
			if left, want := st.Bavail*uint64(st.Bsize), uint64(size/20); left < want {
				t.Errorf("%d bytes are left, not %d", left, want)
			}
			if want := uint64(inodes / 20); st.Ffree < want {
				t.Errorf("%d inodes are left, not %d", st.Ffree, want)
			}
			if f.space.held != 0 || f.space.heldInodes != 0 {
				t.Errorf("%d bytes and %d inodes are never given back", f.space.held, f.space.heldInodes)
			}
		})
	}
}

// flood makes n requests, 16 at once, and returns the last error.
func flood(n int, request func(i int) fuse.Status) fuse.Status {
	var mu sync.Mutex
	next, last := 0, fuse.OK
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= n {
					return
				}
				if st := request(i); st != fuse.OK {
					mu.Lock()
					last = st
					mu.Unlock()
				}
			}
		})
	}
	wait.Wait()
	return last
}
