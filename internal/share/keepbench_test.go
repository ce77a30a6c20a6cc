package share

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/undo"
)

// BenchmarkUndo compares a share that keeps what the guest changes with one that does not:
// files that are made, writes, and the first change of a file of 64 MiB.
func BenchmarkUndo(b *testing.B) {
	for _, kept := range []bool{false, true} {
		b.Run(fmt.Sprintf("kept=%v", kept), func(b *testing.B) {
			o := Options{Root: b.TempDir()}
			if kept {
				o.Undo = b.TempDir()
			}
			f, err := newFileSystem(o)
			if err != nil {
				b.Fatal(err)
			}
			h := header(rootID)
			made := 0
			b.Run("create-write-close", func(b *testing.B) {
				data := [][]byte{make([]byte, 4096)}
				defer cpuTime(b)()
				for b.Loop() {
					made++
					var out fuse.CreateOut
					if st := f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, fmt.Sprint("f", made), &out); st != fuse.OK {
						b.Fatal(st)
					}
					if _, st := f.Writev(nil, &fuse.WriteIn{Fh: out.Fh}, data); st != fuse.OK {
						b.Fatal(st)
					}
					f.release(out.Fh)
					f.Forget(out.NodeId, 1)
				}
			})
			benchLarge(b, f, filepath.Join(o.Root, "large"))
			if f.undo != nil {
				f.undo.Close()
			}
		})
	}
}

// benchLarge measures writes to a large file: the first one after a restore point, and others.
func benchLarge(b *testing.B, f *fileSystem, path string) {
	b.Helper()
	if err := os.WriteFile(path, make([]byte, 64<<20), 0o644); err != nil {
		b.Fatal(err)
	}
	h := header(rootID)
	var e fuse.EntryOut
	var out fuse.OpenOut
	if st := f.Lookup(nil, &h, "large", &e); st != fuse.OK {
		b.Fatal(st)
	}
	if st := f.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId), Flags: unix.O_RDWR}, &out); st != fuse.OK {
		b.Fatal(st)
	}
	data := [][]byte{make([]byte, 4096)}
	put := func(b *testing.B) {
		if _, st := f.Writev(nil, &fuse.WriteIn{Fh: out.Fh}, data); st != fuse.OK {
			b.Fatal(st)
		}
	}
	b.Run("first-write-of-64MiB", func(b *testing.B) {
		defer cpuTime(b)()
		for b.Loop() {
			if f.undo != nil {
				f.undo.Mark(undo.WhySession)
			}
			put(b)
		}
	})
	b.Run("write", func(b *testing.B) {
		defer cpuTime(b)()
		for b.Loop() {
			put(b)
		}
	})
	f.release(out.Fh)
}
