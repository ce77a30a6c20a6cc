package transfer_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/transfer"
)

// guest is an SFTP server in this process that serves this host's files, and a folder in
// place of a guest's home.
func guest(t *testing.T) (client *transfer.Guest, home string) {
	t.Helper()
	home = t.TempDir()
	here, there := net.Pipe()
	server, err := sftp.NewServer(there)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve() })
	client, err = transfer.NewGuest(here)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close(); there.Close(); client.Close(); serving.Wait() })
	return client, home
}

// counter is a progress.Task that adds up.
type counter struct {
	mu    sync.Mutex
	bytes int64
}

func (c *counter) Add(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += n
}
func (c *counter) Note(string) {}
func (c *counter) Done(error)  {}

var _ progress.Task = &counter{}

// newTransfer is a transfer to and from a guest, the bytes that it copied, and what it
// skipped.
func newTransfer(t *testing.T, writable ...string) (tr *transfer.Transfer, home string, copied *counter, skipped *[]error) {
	t.Helper()
	client, home := guest(t)
	var ids []fileid.ID
	for _, path := range writable {
		id, err := fileid.Of(path)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	copied, skipped = &counter{}, &[]error{}
	return &transfer.Transfer{
		Guest: client, Sandbox: "shop", Limits: transfer.DefaultLimits, Writable: ids, Progress: copied,
		Skipped: func(err error) { *skipped = append(*skipped, err) },
	}, home, copied, skipped
}

func write(t *testing.T, file, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = os.WriteFile(file, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sample makes a tree with everything that is copied and a pipe, which is not.
func sample(t *testing.T) (dir string, size int64) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "tree")
	long := strings.Repeat("0123456789abcdef", 100_000) // many requests of SFTP
	write(t, filepath.Join(dir, "sub", "long"), long)
	write(t, filepath.Join(dir, "run"), "#!/bin/sh\n")
	write(t, filepath.Join(dir, "empty"), "")
	err := errors.Join(
		os.Chmod(filepath.Join(dir, "run"), 0o750),
		os.Symlink("../nowhere", filepath.Join(dir, "sub", "link")),
		syscall.Mkfifo(filepath.Join(dir, "sub", "pipe"), 0o600),
		os.Chtimes(filepath.Join(dir, "run"), time.Time{}, time.Unix(1e9, 0)),
		os.Chmod(filepath.Join(dir, "sub"), 0o711),
	)
	if err != nil {
		t.Fatal(err)
	}
	return dir, int64(len(long) + len("#!/bin/sh\n"))
}

// same compares a copy of the sample with it.
func same(t *testing.T, dir, copied string) {
	t.Helper()
	for _, name := range []string{"sub", "sub/long", "run", "empty", "sub/link"} {
		a, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Lstat(filepath.Join(copied, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if a.Mode() != b.Mode() || a.Mode().IsRegular() && (a.Size() != b.Size() || a.ModTime().Unix() != b.ModTime().Unix()) {
			t.Errorf("%s: %v %d %v, want %v %d %v", name, b.Mode(), b.Size(), b.ModTime(), a.Mode(), a.Size(), a.ModTime())
		}
	}
	if target, _ := os.Readlink(filepath.Join(copied, "sub", "link")); target != "../nowhere" {
		t.Errorf("the link leads to %q", target)
	}
	a, _ := os.ReadFile(filepath.Join(dir, "sub", "long"))
	if b, _ := os.ReadFile(filepath.Join(copied, "sub", "long")); string(a) != string(b) {
		t.Error("the contents differ")
	}
	if _, err := os.Lstat(filepath.Join(copied, "sub", "pipe")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pipe: %v", err)
	}
}

// TestBothWays: a tree is copied to a guest and back, whole, but for what cannot be.
func TestBothWays(t *testing.T) {
	tr, home, copied, skipped := newTransfer(t)
	dir, size := sample(t)
	if err := tr.Upload(t.Context(), dir, filepath.Join(home, "there"), false); err != nil {
		t.Fatal(err)
	}
	same(t, dir, filepath.Join(home, "there"))
	if len(*skipped) != 1 || !errors.Is((*skipped)[0], transfer.ErrKind) || copied.bytes != size {
		t.Errorf("skipped %v; %d bytes, want %d", *skipped, copied.bytes, size)
	}
	back := t.TempDir() // a directory: into it
	if err := tr.Download(t.Context(), filepath.Join(home, "there"), back, false); err != nil {
		t.Fatal(err)
	}
	same(t, dir, filepath.Join(back, "there"))
	if copied.bytes != 2*size {
		t.Errorf("%d bytes, want %d", copied.bytes, 2*size)
	}
}

// TestRefused: what is not copied has an error that a front end can tell apart.
func TestRefused(t *testing.T) {
	project, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "key"), "secret")
	err := errors.Join(
		os.Symlink(outside, filepath.Join(project, "out")),
		os.Symlink(filepath.Join(outside, "key"), filepath.Join(project, "key")),
		syscall.Mkfifo(filepath.Join(project, "pipe"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	tr, home, _, _ := newTransfer(t, project)
	file, got := filepath.Join(home, "file"), filepath.Join(home, "got")
	write(t, file, "the guest's")
	for _, c := range []struct {
		name string
		run  func(context.Context, string, string, bool) error
		src  string
		dst  string
		want error
	}{
		{"out of a share", tr.Upload, filepath.Join(project, "out", "key"), got, transfer.ErrLink},
		{"into what a link of the share leads to", tr.Download, file, filepath.Join(project, "out", "file"), transfer.ErrEscapes},
		{"over a link of the share", tr.Download, file, filepath.Join(project, "key"), transfer.ErrEscapes},
		{"over a pipe", tr.Download, file, filepath.Join(project, "pipe"), transfer.ErrSpecial},
		{"a pipe", tr.Upload, filepath.Join(project, "pipe"), got, transfer.ErrKind},
		{"what is not there", tr.Upload, filepath.Join(project, "none"), got, fs.ErrNotExist},
		{"what is not there in the guest", tr.Download, filepath.Join(home, "none"), project, fs.ErrNotExist},
		{"into what is no directory", tr.Download, file, filepath.Join(outside, "key") + "/", syscall.ENOTDIR},
	} {
		if err := c.run(t.Context(), c.src, c.dst, false); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(outside, "key")); string(b) != "secret" {
		t.Errorf("the file outside is now %q", b)
	}
	if _, err := os.Lstat(got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the guest got something: %v", err)
	}
	if list, _ := filepath.Glob(filepath.Join(outside, "*")); len(list) != 1 {
		t.Errorf("outside there is now %q", list)
	}
}

// TestCancelled: a copy ends with its context.
func TestCancelled(t *testing.T) {
	tr, home, _, _ := newTransfer(t)
	dir, _ := sample(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Upload(ctx, dir, filepath.Join(home, "there"), false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(home, "there")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it began: %v", err)
	}
}
