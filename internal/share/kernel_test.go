package share

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mountTest mounts a share here with the kernel's own FUSE client, which is the guest's
// too: only the queue between the two is another. It skips the test where that is not
// possible.
func mountTest(t testing.TB, o Options) (mounted string, f *fileSystem) {
	t.Helper()
	f = newTest(t, o)
	return mountOf(t, f), f
}

// mountOf is mountTest of a file system that is made already.
func mountOf(t testing.TB, f *fileSystem) (mounted string) {
	t.Helper()
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no FUSE here: ", err)
	}
	mounted = t.TempDir()
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other", dev)
	if err := unix.Mount("share", mounted, "fuse.bawn", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(dev)
		t.Skip("no mounts here: ", err)
	}
	h := newHandler(f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveKernel(dev, h)
	}()
	t.Cleanup(func() {
		_ = unix.Unmount(mounted, unix.MNT_DETACH)
		<-done
		unix.Close(dev)
	})
	refusePoll(t, f, mounted)
	return mounted
}

// refusePoll lets the kernel find out that the share knows no poll(2). Otherwise it asks
// while Go's runtime adds a file to its poller, and the runtime waits for the server, which is
// in the same process.
func refusePoll(t testing.TB, f *fileSystem, mounted string) {
	t.Helper()
	const name = "gc.log.poll" // no rules apply to it, in any kind of share
	path := filepath.Join(f.tempRoot(t), name)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(filepath.Join(mounted, name), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// kernelBuffer holds a request of the kernel and its answer. They are used again: two megabytes
// made anew for each request would keep the collector busy.
type kernelBuffer struct {
	in  [maxIO + 64<<10]byte
	out [maxIO + 4096]byte
}

var kernelBuffers = sync.Pool{New: func() any { return new(kernelBuffer) }}

// serveKernel answers the kernel's requests until the file system is unmounted.
func serveKernel(dev int, h *handler) {
	for {
		b, ok := kernelBuffers.Get().(*kernelBuffer)
		if !ok {
			panic("share: the pool holds buffers")
		}
		n, err := unix.Read(dev, b.in[:])
		if err == unix.EINTR || err == unix.ENOENT {
			kernelBuffers.Put(b)
			continue
		}
		if err != nil {
			return
		}
		answer := func() {
			if n := h.Handle([][]byte{b.in[:n]}, [][]byte{b.out[:16], b.out[16:]}); n > 0 { // as virtiofs has it
				_, _ = unix.Write(dev, b.out[:n])
			}
			kernelBuffers.Put(b)
		}
		if h.Blocks([][]byte{b.in[:n]}) {
			go answer()
			continue
		}
		answer()
	}
}

func writeFile(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replaceFile writes a file as editors do: another one, renamed to the name.
func replaceFile(t *testing.T, path, data string) {
	t.Helper()
	writeFile(t, path+".new", data)
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func appendFile(t *testing.T, path, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(data); err != nil {
		t.Fatal(err)
	}
}

// TestWhoOpensAFileReadsWhatTheHostWrote changes a file on the host in each way, right after
// the guest has read it, and opens it again at once.
func TestWhoOpensAFileReadsWhatTheHostWrote(t *testing.T) {
	root := t.TempDir()
	mounted, _ := mountTest(t, Options{Root: root})
	host, guest := filepath.Join(root, "f"), filepath.Join(mounted, "f")
	writeFile(t, host, "")
	ways := []struct {
		name   string
		change func(i int) (want string)
	}{
		{"cut", func(int) string { writeFile(t, host, ""); return "" }},
		{"cut and written", func(i int) string { s := strings.Repeat("v", i); writeFile(t, host, s); return s }},
		{"appended", func(i int) string {
			writeFile(t, host, "a")
			if b, err := os.ReadFile(guest); err != nil || string(b) != "a" {
				t.Errorf("before: %q, %v", b, err)
			}
			appendFile(t, host, fmt.Sprint(i))
			return "a" + fmt.Sprint(i)
		}},
		{"replaced", func(i int) string { s := strings.Repeat("r", i+1); replaceFile(t, host, s); return s }},
	}
	for i := range 40 {
		way := ways[i%len(ways)]
		want := way.change(i)
		f, err := os.Open(guest)
		if err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		fi, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		_, err = got.ReadFrom(f)
		f.Close()
		on, herr := os.Stat(host)
		if herr != nil {
			t.Fatal(herr)
		}
		if err != nil || got.String() != want || fi.Size() != int64(len(want)) || !fi.ModTime().Equal(on.ModTime()) {
			t.Errorf("%s (%d): %q of size %d at %v, %v; the host has %q at %v",
				way.name, i, got.String(), fi.Size(), fi.ModTime(), err, want, on.ModTime())
		}
	}
}

// TestTheGuestsOwnWritesCostNoLookUp: only the host's changes make the guest look a file up again.
func TestTheGuestsOwnWritesCostNoLookUp(t *testing.T) {
	mounted, f := mountTest(t, Options{})
	path := filepath.Join(mounted, "f")
	for i := range 20 {
		appendOrMake, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(appendOrMake, i); err != nil {
			t.Fatal(err)
		}
		appendOrMake.Close()
		if i%2 == 0 {
			if err := os.Rename(path, path+"2"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+"2", path); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.reopened.Load(); n != 0 {
		t.Errorf("%d files were looked up again", n)
	}
}

// TestWhatHasLostItsNameStaysReachable: files and directories that the guest holds without
// having them open, when their name goes.
func TestWhatHasLostItsNameStaysReachable(t *testing.T) {
	root := t.TempDir()
	mounted, _ := mountTest(t, Options{Root: root})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	host := func(p string) string { return filepath.Join(root, p) }
	guest := func(p string) string { return filepath.Join(mounted, p) }
	hold := func(t *testing.T, p string) int {
		fd, err := unix.Open(guest(p), unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	stat := func(t *testing.T, fd int) {
		t.Helper()
		time.Sleep(staleAfter * 2) // what the kernel knew is old now
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Error(err)
		}
	}
	t.Run("O_PATH, removed by the guest", func(t *testing.T) {
		writeFile(t, host("a"), "a")
		fd := hold(t, "a")
		must(os.Remove(guest("a")))
		stat(t, fd)
	})
	t.Run("O_PATH, removed by the host", func(t *testing.T) {
		writeFile(t, host("b"), "b")
		fd := hold(t, "b")
		must(os.Remove(host("b")))
		stat(t, fd)
	})
	t.Run("replaced by the host, as below a bind mount", func(t *testing.T) {
		writeFile(t, host("c"), "old")
		fd := hold(t, "c")
		replaceFile(t, host("c"), "new")
		stat(t, fd)
		if b, err := os.ReadFile(magic(fd)); err != nil || string(b) != "old" {
			t.Errorf("%q, %v", b, err)
		}
		if b, err := os.ReadFile(guest("c")); err != nil || string(b) != "new" {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("the name seen last of two", func(t *testing.T) {
		writeFile(t, host("d1"), strings.Repeat("d", maxPinned+1))
		must(os.Link(host("d1"), host("d2")))
		fd := hold(t, "d1")
		hold(t, "d2")
		must(os.Remove(host("d2")))
		stat(t, fd)
		if _, err := os.ReadFile(guest("d1")); err != nil {
			t.Error(err)
		}
	})
	t.Run("working directory, removed", func(t *testing.T) {
		for _, remove := range []func(string) error{func(p string) error { return os.Remove(host(p)) }, func(p string) error { return os.Remove(guest(p)) }} {
			must(os.Mkdir(host("e"), 0o755))
			fd := hold(t, "e/.")
			_, err := os.Lstat(guest("e/x")) // a step below
			if !os.IsNotExist(err) {
				t.Error(err)
			}
			must(remove("e"))
			stat(t, fd)
		}
	})
	t.Run("the parent of the working directory, renamed by the host", func(t *testing.T) {
		must(os.MkdirAll(host("f/g"), 0o755))
		writeFile(t, host("f/g/x"), "x")
		fd := hold(t, "f/g")
		if _, err := os.ReadFile(guest("f/g/x")); err != nil {
			t.Fatal(err)
		}
		must(os.Rename(host("f"), host("h")))
		stat(t, fd)
		up, err := unix.Openat(fd, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(up)
		if n, err := unix.ReadDirent(up, make([]byte, 4096)); err != nil || n == 0 {
			t.Errorf("%d, %v", n, err)
		}
	})
	t.Run("moved out of the share by the host", func(t *testing.T) {
		writeFile(t, host("secret"), "secret")
		fd := hold(t, "secret")
		must(os.Rename(host("secret"), filepath.Join(t.TempDir(), "secret")))
		if b, err := os.ReadFile(magic(fd)); err == nil {
			t.Errorf("read %q", b)
		}
	})
}

// TestAProjectOnOverlay changes files of the lower directory, as in a development container.
func TestAProjectOnOverlay(t *testing.T) {
	for name, other := range map[string]string{"one file system": "", "two file systems": "/dev/shm"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lower, upper, work, root := filepath.Join(dir, "l"), filepath.Join(dir, "u"), filepath.Join(dir, "w"), filepath.Join(dir, "m")
			if other != "" {
				shm, err := os.MkdirTemp(other, "bawn-test")
				if err != nil {
					t.Skip(err)
				}
				t.Cleanup(func() { os.RemoveAll(shm) })
				lower = filepath.Join(shm, "l")
			}
			for _, d := range []string{lower + "/sub", upper, work, root} {
				if err := os.MkdirAll(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"f", "sub/g", "sub/h"} {
				writeFile(t, filepath.Join(lower, name), "lower")
			}
			if err := unix.Mount("overlay", root, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work); err != nil {
				t.Skip("no overlay here: ", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
			mounted, _ := mountTest(t, Options{Root: root})
			held, err := os.Open(filepath.Join(mounted, "sub"))
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			if err := os.Chmod(filepath.Join(mounted, "sub/h"), 0o600); err != nil {
				t.Error("chmod: ", err)
			}
			for range 2 {
				for _, name := range []string{"f", "sub/g", "sub/h"} {
					appendFile(t, filepath.Join(mounted, name), "+")
					if b, err := os.ReadFile(filepath.Join(mounted, name)); err != nil || b[len(b)-1] != '+' {
						t.Errorf("%s: %q, %v", name, b, err)
					}
				}
				time.Sleep(staleAfter * 2)
				for _, name := range []string{".", "sub", "sub/g", "f"} {
					if _, err := os.Lstat(filepath.Join(mounted, name)); err != nil {
						t.Error(err)
					}
				}
				if _, err := held.Readdirnames(-1); err != nil {
					t.Error(err)
				}
				writeFile(t, filepath.Join(mounted, "new"), "new")
			}
		})
	}
}

func TestTimeOfBirth(t *testing.T) {
	root := t.TempDir()
	mounted, _ := mountTest(t, Options{Root: root})
	writeFile(t, filepath.Join(root, "f"), "f")
	birth := func(path string) unix.StatxTimestamp {
		var st unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME|unix.STATX_BASIC_STATS, &st); err != nil {
			t.Fatal(err)
		}
		if st.Mask&unix.STATX_BTIME == 0 {
			return unix.StatxTimestamp{}
		}
		return st.Btime
	}
	want := birth(filepath.Join(root, "f"))
	if got := birth(filepath.Join(mounted, "f")); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestSyncFSReachesTheHost asks as the guest's kernel does: that of FUSE mounts without virtio
// does not.
func TestSyncFSReachesTheHost(t *testing.T) {
	h := newHandler(newTest(t, Options{}))
	in, out := make([]byte, headerLen+8), make([]byte, 16)
	binary.NativeEndian.PutUint32(in, uint32(len(in)))
	binary.NativeEndian.PutUint32(in[opOffset:], opSyncFS)
	binary.NativeEndian.PutUint64(in[8:], 77)
	if !h.Blocks([][]byte{in}) {
		t.Error("it holds up other requests")
	}
	n := h.Handle([][]byte{in}, [][]byte{out})
	if n != 16 || binary.NativeEndian.Uint32(out[4:]) != 0 || binary.NativeEndian.Uint64(out[8:]) != 77 {
		t.Errorf("%d bytes: %v", n, out)
	}
}

func TestInodeNumbersBelowMountsAreExactInJavaScript(t *testing.T) {
	f := newTest(t, Options{})
	seen := map[uint64]bool{}
	for i := range uint64(1000) {
		n := f.tree.inode(key{dev: f.tree.root.key.dev + 1 + i%3, ino: i})
		if n >= 1<<53 || seen[n] {
			t.Fatalf("%d", n)
		}
		seen[n] = true
	}
}
