package share

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// cpuTime makes a benchmark report the processor time of an operation too, which other load of the
// machine changes less than the time. It is called before the loop; the caller calls the result after.
func cpuTime(b *testing.B) (done func()) {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	began := used()
	return func() { b.ReportMetric(float64(used()-began)/float64(b.N), "cpu-ns/op") }
}

// BenchmarkGuard measures what the rules of guarded paths cost a request, without the queue and
// the guest.
func BenchmarkGuard(b *testing.B) {
	for _, guarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded=%v", guarded), func(b *testing.B) {
			o := Options{Root: b.TempDir()}
			if guarded {
				o.Guard, o.Private = &guard.Options{}, filepath.Join(b.TempDir(), "private")
			}
			f, err := newFileSystem(o)
			if err != nil {
				b.Fatal(err)
			}
			dir := uint64(rootID)
			for _, name := range []string{"src", "packages", "app", "components"} {
				var out fuse.EntryOut
				if st := f.Mkdir(nil, &fuse.MkdirIn{InHeader: header(dir), Mode: 0o755}, name, &out); st != fuse.OK {
					b.Fatal(st)
				}
				dir = out.NodeId
			}
			h := header(dir)
			b.Run("create-remove", func(b *testing.B) {
				defer cpuTime(b)()
				for b.Loop() {
					var out fuse.CreateOut
					if st := f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "index.js", &out); st != fuse.OK {
						b.Fatal(st)
					}
					f.release(out.Fh)
					if st := f.Unlink(nil, &h, "index.js"); st != fuse.OK {
						b.Fatal(st)
					}
					f.Forget(out.NodeId, 1)
				}
			})
			var out fuse.CreateOut
			if st := f.Create(nil, &fuse.CreateIn{InHeader: h, Flags: unix.O_RDWR, Mode: 0o644}, "index.js", &out); st != fuse.OK {
				b.Fatal(st)
			}
			b.Run("lookup-open-close", func(b *testing.B) {
				defer cpuTime(b)()
				for b.Loop() {
					var e fuse.EntryOut
					var open fuse.OpenOut
					if st := f.Lookup(nil, &h, "index.js", &e); st != fuse.OK {
						b.Fatal(st)
					}
					if st := f.Open(nil, &fuse.OpenIn{InHeader: header(e.NodeId)}, &open); st != fuse.OK {
						b.Fatal(st)
					}
					f.release(open.Fh)
				}
			})
			b.Run("write", func(b *testing.B) {
				data := [][]byte{make([]byte, 4096)}
				defer cpuTime(b)()
				for b.Loop() {
					if _, st := f.Writev(nil, &fuse.WriteIn{Fh: out.Fh}, data); st != fuse.OK {
						b.Fatal(st)
					}
				}
			})
		})
	}
}

// BenchmarkList measures what the rules cost a listing with attributes of a directory of 1,000 files.
func BenchmarkList(b *testing.B) {
	for _, guarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded=%v", guarded), func(b *testing.B) {
			o := Options{Root: b.TempDir()}
			if guarded {
				o.Guard, o.Private = &guard.Options{}, filepath.Join(b.TempDir(), "private")
			}
			for i := range 1000 {
				if err := os.WriteFile(filepath.Join(o.Root, fmt.Sprintf("f%d.js", i)), nil, 0o644); err != nil {
					b.Fatal(err)
				}
			}
			f, err := newFileSystem(o)
			if err != nil {
				b.Fatal(err)
			}
			defer cpuTime(b)()
			for b.Loop() {
				listPlus(b, f, header(rootID))
			}
			if n := len(f.tree.byID); n < 1000 {
				b.Fatal(n)
			}
		})
	}
}

// listPlus lists a directory with attributes, as find(1) does.
func listPlus(b *testing.B, f *fileSystem, h fuse.InHeader) {
	b.Helper()
	var open fuse.OpenOut
	if st := f.OpenDir(nil, &fuse.OpenIn{InHeader: h}, &open); st != fuse.OK {
		b.Fatal(st)
	}
	defer f.release(open.Fh)
	buf := make([]byte, 64<<10)
	for at := uint64(0); ; {
		list := fuse.NewDirEntryList(buf, at)
		if st := f.ReadDirPlus(nil, &fuse.ReadIn{InHeader: h, Fh: open.Fh, Offset: at, Size: uint32(len(buf))}, list); st != fuse.OK {
			b.Fatal(st)
		}
		if list.Offset == at {
			return
		}
		at = list.Offset
	}
}
