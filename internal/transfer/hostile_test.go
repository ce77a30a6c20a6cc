package transfer_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/transfer"
)

// hostileFiles is an SFTP server's file system that a guest makes up: every path is there.
type hostileFiles struct {
	isDir func(p string) bool
	list  func(p string, i int64) string // the i-th name; "" is the end
	size  int64                          // that files say they have
	data  int64                          // that they do have
}

type hostileInfo struct {
	name string
	dir  bool
	size int64
}

func (i hostileInfo) Name() string       { return i.name }
func (i hostileInfo) Size() int64        { return i.size }
func (i hostileInfo) ModTime() time.Time { return time.Unix(1, 0) }
func (i hostileInfo) IsDir() bool        { return i.dir }
func (i hostileInfo) Sys() any           { return nil }
func (i hostileInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

func (h *hostileFiles) info(p string) hostileInfo {
	return hostileInfo{path.Base(p), h.isDir(p), h.size}
}

func (h *hostileFiles) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "List" {
		return lister(func(i int64) os.FileInfo {
			if name := h.list(r.Filepath, i); name != "" {
				return hostileInfo{name, false, h.size}
			}
			return nil
		}), nil
	}
	return lister(func(i int64) os.FileInfo {
		if i > 0 {
			return nil
		}
		return h.info(r.Filepath)
	}), nil
}

func (h *hostileFiles) Lstat(r *sftp.Request) (sftp.ListerAt, error) { return h.Filelist(r) }

type lister func(i int64) os.FileInfo

func (l lister) ListAt(to []os.FileInfo, offset int64) (int, error) {
	for n := range to {
		if to[n] = l(offset + int64(n)); to[n] == nil {
			return n, io.EOF
		}
	}
	return len(to), nil
}

func (h *hostileFiles) Fileread(*sftp.Request) (io.ReaderAt, error) { return endless(h.data), nil }

type endless int64

func (e endless) ReadAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > int64(e) {
		return max(0, int(int64(e)-off)), io.EOF
	}
	return len(b), nil
}

func (h *hostileFiles) Filewrite(*sftp.Request) (io.WriterAt, error) {
	return nil, errors.ErrUnsupported
}
func (h *hostileFiles) Filecmd(*sftp.Request) error { return errors.ErrUnsupported }

// from returns a transfer from a guest with the files.
func (h *hostileFiles) from(t *testing.T) *transfer.Transfer {
	t.Helper()
	here, there := net.Pipe()
	server := sftp.NewRequestServer(there, sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h})
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve() })
	client, err := transfer.NewGuest(here)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close(); client.Close(); serving.Wait() })
	return &transfer.Transfer{Guest: client, Sandbox: "shop", Limits: transfer.DefaultLimits, Progress: &counter{}, Skipped: func(error) {}}
}

// TestACopyFromAHostileGuestEnds is an attack: a guest's SFTP server has no end. The error
// says which bound was met.
func TestACopyFromAHostileGuestEnds(t *testing.T) {
	all := func(string) bool { return true }
	root := func(p string) bool { return p == "/tree" }
	name := func(_ string, i int64) string { return fmt.Sprint("f", i) }
	for what, c := range map[string]struct {
		files hostileFiles
		limit func(*transfer.Limits)
		bound string
	}{
		"endless depth":             {hostileFiles{isDir: all, list: func(_ string, i int64) string { return []string{"d", ""}[min(i, 1)] }}, func(l *transfer.Limits) { l.Depth = 20 }, "20 directories in each other"},
		"an endless list":           {hostileFiles{isDir: root, list: name}, func(l *transfer.Limits) { l.Listing = 1 << 20 }, "bytes in the list of one directory"},
		"an endless list of dots":   {hostileFiles{isDir: root, list: func(string, int64) string { return "." }}, func(l *transfer.Limits) { l.Listing = 1 << 20 }, "bytes in the list of one directory"},
		"an endless list, long":     {hostileFiles{isDir: root, list: func(string, int64) string { return strings.Repeat("n", 1000) }}, func(l *transfer.Limits) { l.Listing = 1 << 20 }, "bytes in the list of one directory"},
		"many entries":              {hostileFiles{isDir: root, list: func(p string, i int64) string { return []string{name(p, i), ""}[min(i/200, 1)] }}, func(l *transfer.Limits) { l.Entries = 100 }, "100 entries"},
		"many entries of many":      {hostileFiles{isDir: func(p string) bool { return strings.Count(p, "/") < 3 }, list: func(p string, i int64) string { return []string{name(p, i), ""}[min(i/20, 1)] }}, func(l *transfer.Limits) { l.Entries = 100 }, "100 entries"},
		"long lists at each depth":  {hostileFiles{isDir: all, list: func(p string, i int64) string { return []string{name(p, i), ""}[min(i/100, 1)] }}, func(l *transfer.Limits) { l.Held = 10_000 }, "bytes of names"},
		"many names, none too long": {hostileFiles{isDir: root, list: func(p string, i int64) string { return []string{name(p, i), ""}[min(i/5000, 1)] }}, func(l *transfer.Limits) { l.Held = 10_000 }, "bytes of names"},
	} {
		t.Run(what, func(t *testing.T) {
			tr := c.files.from(t)
			c.limit(&tr.Limits)
			to := t.TempDir()
			err := tr.Download(t.Context(), "/tree", to, false)
			if !errors.Is(err, transfer.ErrTooMuch) || !strings.Contains(err.Error(), c.bound) || !strings.Contains(err.Error(), "shop:/tree") {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// TestALongListTakesLittleMemory: the default bound holds the memory that a list takes.
func TestALongListTakesLittleMemory(t *testing.T) {
	h := &hostileFiles{isDir: func(string) bool { return true }, list: func(string, int64) string { return strings.Repeat("n", 200) }}
	tr := h.from(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tr.Limits.Listing = 16 << 20
	if err := tr.Download(t.Context(), "/tree", t.TempDir(), false); !errors.Is(err, transfer.ErrTooMuch) {
		t.Errorf("it ended with %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.HeapSys - before.HeapSys; n > 256<<20 {
		t.Errorf("%d MiB for a list of 16 MiB", n>>20)
	}
}

// TestACopyKeepsTheReserve is an attack on the host's disk: a file that never ends, or is
// longer than it says, and more files than the disk has inodes.
func TestACopyKeepsTheReserve(t *testing.T) {
	const size, inodes = 64 << 20, 10_000
	file := func(string) bool { return false }
	for what, h := range map[string]hostileFiles{
		"a file without an end":             {isDir: file, size: 1 << 62, data: 1 << 62},
		"a file that says it is empty":      {isDir: file, size: 0, data: 1 << 62},
		"a file longer than it says":        {isDir: file, size: 1000, data: 1 << 62},
		"more files than the disk can hold": {isDir: func(p string) bool { return p == "/tree" }, list: func(_ string, i int64) string { return []string{fmt.Sprint(i), ""}[min(i/(2*inodes), 1)] }},
	} {
		t.Run(what, func(t *testing.T) {
			to := t.TempDir()
			if err := unix.Mount("none", to, "tmpfs", 0, fmt.Sprintf("size=%d,nr_inodes=%d", size, inodes)); err != nil {
				t.Skipf("tmpfs cannot be mounted here: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(to, unix.MNT_DETACH) })
			err := h.from(t).Download(t.Context(), "/tree", to, false)
			if !errors.Is(err, transfer.ErrTooMuch) || !strings.Contains(err.Error(), "full up to its reserve") {
				t.Errorf("it ended with %v", err)
			}
			var st unix.Statfs_t
			if err := unix.Statfs(to, &st); err != nil {
				t.Fatal(err)
			}
			if st.Bavail*uint64(st.Bsize) < size/20 || st.Ffree < inodes/20 {
				t.Errorf("%d blocks and %d inodes are left", st.Bavail, st.Ffree)
			}
			if left, err := filepath.Glob(filepath.Join(to, ".bawn-cp-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}
