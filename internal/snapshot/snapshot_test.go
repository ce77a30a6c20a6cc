package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/diskuse"
)

const size = 1 << 20

func newMemory(t *testing.T, b byte) *os.File {
	t.Helper()
	ram, err := memory.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ram.Close() })
	if b != 0 {
		if _, err := ram.WriteAt(bytes.Repeat([]byte{b}, 8192), 65536); err != nil {
			t.Fatal(err)
		}
	}
	return ram
}

func commit(t *testing.T, path string, b byte) {
	t.Helper()
	d, err := Begin(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	if err := d.RAM(newMemory(t, b)); err != nil {
		t.Fatal(err)
	}
	if err := d.State(func(w io.Writer) error { _, err := w.Write([]byte{'s', b}); return err }); err != nil {
		t.Fatal(err)
	}
	if Exists(path) && b == 1 {
		t.Error("there before it is whole")
	}
	if err := d.Commit(t.Context(), path, Meta{Kind: "k", Spec: &sandbox.Spec{ID: "1"}}); err != nil {
		t.Fatal(err)
	}
}

func first(t *testing.T, s *Snapshot) byte {
	t.Helper()
	ram := newMemory(t, 0)
	if err := s.Unpack(ram); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := ram.ReadAt(b, 65536); err != nil {
		t.Fatal(err)
	}
	return b[0]
}

func open(t *testing.T, path string) *Snapshot {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWhatWasWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "one")
	if _, err := Open(path); !errors.Is(err, ErrNone) {
		t.Errorf("before: %v", err)
	}
	commit(t, path, 1)
	commit(t, path, 2) // in its place
	s := open(t, path)
	if got := first(t, s); got != 2 {
		t.Errorf("memory %d", got)
	}
	clone := filepath.Join(filepath.Dir(path), "two")
	if err := s.Clone(clone); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil || Exists(path) {
		t.Errorf("removed: %v", err)
	}
	c := open(t, clone)
	if got := first(t, c); got != 2 || c.Meta.Kind != "k" {
		t.Errorf("clone: %d, %+v", got, c.Meta)
	}
	r, err := c.State()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "s\x02" {
		t.Errorf("state %q, %v", b, err)
	}
}

func TestDamageShows(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"cut short": func(p string) error { return os.Truncate(filepath.Join(p, ramFile), 5000) },
		"gone":      func(p string) error { return os.Remove(filepath.Join(p, ramFile)) },
		"a bit": func(p string) error {
			b, err := os.ReadFile(filepath.Join(p, ramFile))
			b[len(b)-1] ^= 1
			return errors.Join(err, os.WriteFile(filepath.Join(p, ramFile), b, 0o600))
		},
	} {
		path := filepath.Join(t.TempDir(), "one")
		commit(t, path, 1)
		s := open(t, path)
		if err := harm(path); err != nil {
			t.Fatal(err)
		}
		if err := s.Unpack(newMemory(t, 0)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "one")
	commit(t, path, 1)
	if err := os.WriteFile(filepath.Join(path, metaFile), []byte(`{"format":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("another format: %v", err)
	}
}

// withDisk makes a snapshot whose disk has a page of data amid holes.
func withDisk(t *testing.T, path string) *Snapshot {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk")
	write(t, disk, 512<<20, bytes.Repeat([]byte{1}, 8192))
	if err := os.Truncate(disk, 1<<30); err != nil {
		t.Fatal(err)
	}
	d, err := Begin(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Discard()
	err = errors.Join(d.RAM(newMemory(t, 1)), d.State(func(w io.Writer) error { _, err := w.Write([]byte("state")); return err }), d.Disk(t.Context(), disk))
	if err == nil {
		err = d.Commit(t.Context(), path, Meta{Spec: &sandbox.Spec{ID: "1"}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func write(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// TestVerify: damage to any file shows before it is used, most of it at no cost, and
// a disk is the same wherever its holes are.
func TestVerify(t *testing.T) {
	const cheap, costly = true, false
	for _, c := range []struct {
		what  string
		file  string
		harm  func(path string)
		shows bool
	}{
		{"disk gone", diskFile, func(p string) { os.Remove(p) }, cheap},
		{"disk cut short", diskFile, func(p string) { os.Truncate(p, 1<<20) }, cheap},
		{"disk cut short in its holes", diskFile, func(p string) { os.Truncate(p, 1<<30-4096) }, cheap},
		{"a byte of the disk", diskFile, func(p string) { write(t, p, 512<<20+5000, []byte{2}) }, costly},
		{"a page of the disk lost", diskFile, func(p string) { write(t, p, 512<<20, make([]byte, 4096)) }, costly},
		{"a page of the disk elsewhere", diskFile, func(p string) {
			write(t, p, 512<<20, make([]byte, 4096))
			write(t, p, 256<<20, bytes.Repeat([]byte{1}, 4096))
		}, costly},
		{"memory gone", ramFile, func(p string) { os.Remove(p) }, cheap},
		{"a byte of the memory", ramFile, func(p string) { write(t, p, 10, []byte{77}) }, costly},
		{"devices cut short", stateFile, func(p string) { os.Truncate(p, 1) }, cheap},
	} {
		s := withDisk(t, filepath.Join(t.TempDir(), "one"))
		if err := s.Verify(t.Context()); err != nil {
			t.Fatalf("%s: before: %v", c.what, err)
		}
		c.harm(filepath.Join(s.Path, c.file))
		if err := s.Probe(); errors.Is(err, ErrDamaged) != c.shows {
			t.Errorf("%s: a probe says %v", c.what, err)
		}
		if err := s.Verify(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	s := withDisk(t, filepath.Join(t.TempDir(), "one"))
	write(t, s.Disk(), 1<<20+100, make([]byte, 100000)) // zeros in place of a hole
	if err := s.Verify(t.Context()); err != nil {
		t.Errorf("other holes: %v", err)
	}
	if s.Meta.Disk.Size != 1<<30 || s.Meta.Disk.Sum == 0 {
		t.Errorf("recorded: %+v", s.Meta.Disk)
	}
	s.Meta.Disk = nil // of an earlier bawn's
	if err := s.Verify(t.Context()); err != nil {
		t.Errorf("a disk that is not recorded: %v", err)
	}
	os.Remove(s.Disk())
	if err := s.Verify(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("no disk: %v", err)
	}
	clone := filepath.Join(filepath.Dir(s.Path), "two")
	if err := withDisk(t, s.Path).Clone(clone); err != nil {
		t.Fatal(err)
	}
	if c := open(t, clone); c.Meta.Disk != nil || diskuse.Of(c.Disk()) != 0 {
		t.Errorf("a clone, which has no disk, claims %+v", c.Meta.Disk)
	}
}

func TestKilledDraftsGo(t *testing.T) {
	folder := t.TempDir()
	if _, err := Begin(folder); err != nil { // and killed
		t.Fatal(err)
	}
	d, err := Begin(folder)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(folder)
	if err != nil || len(list) != 1 || !IsDraft(list[0].Name()) {
		t.Errorf("%v, %v", list, err)
	}
	d.Discard()
}

func TestCopyDiskKeepsHoles(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	f, err := os.Create(from)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("data"), 512<<20); err != nil {
		t.Fatal(err)
	}
	if err := CopyDisk(t.Context(), to, from); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	g, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if _, err := g.ReadAt(b, 512<<20); err != nil || string(b) != "data" {
		t.Errorf("%q, %v", b, err)
	}
	if fi, err := g.Stat(); err != nil || fi.Size() != 1<<30 || diskuse.Of(to) > 1<<20 {
		t.Errorf("%v bytes, %d taken, %v", fi.Size(), diskuse.Of(to), err)
	}
	if err := CopyDisk(t.Context(), to, from); err == nil {
		t.Error("a copy over what is there")
	}
}

// TestInterrupted: a copy that is given up leaves nothing, and a check that is given
// up does not call the snapshot damaged.
func TestInterrupted(t *testing.T) {
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	s, to := withDisk(t, filepath.Join(t.TempDir(), "one")), filepath.Join(t.TempDir(), "to")
	if err := CopyDisk(ctx, to, s.Disk()); err != nil { // none where the file system shares blocks
		if _, left := os.Stat(to); !errors.Is(err, why) || !errors.Is(left, fs.ErrNotExist) {
			t.Errorf("%v; left over: %v", err, left)
		}
	}
	if err := s.Verify(ctx); !errors.Is(err, why) || errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}
