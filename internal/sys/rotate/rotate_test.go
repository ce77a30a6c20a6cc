package rotate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func contents(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, w io.Writer, s string) {
	t.Helper()
	if n, err := io.WriteString(w, s); n != len(s) || err != nil {
		t.Fatalf("Write(%q) = %d, %v", s, n, err)
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := Open(path, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ write, current, old string }{
		{"12345", "12345", ""},
		{"67890", "1234567890", ""},
		{"a", "a", "1234567890"},
		{strings.Repeat("x", 20), strings.Repeat("x", 20), "a"}, // whole, although longer
		{"b", "b", strings.Repeat("x", 20)},
	} {
		write(t, l, c.write)
		if got, old := contents(t, path), contents(t, Old(path)); got != c.current || old != c.old {
			t.Errorf("after %q: %q and %q", c.write, got, old)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := l.Write([]byte("c")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a write after Close: %v", err)
	}
	if l, err = Open(path, 10); err != nil || l.Size() != 1 {
		t.Fatalf("opened again: %v", err)
	}
	defer l.Close()
	write(t, l, "c")
	if got := contents(t, path); got != "bc" {
		t.Errorf("opened again, the log is %q", got)
	}
}

func TestBoundHoldsWhereTheFileCannotBeRenamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.MkdirAll(filepath.Join(Old(path), "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 5 {
		write(t, l, "123")
	}
	if got := contents(t, path); got != "123" {
		t.Errorf("%q", got)
	}
}

func TestWriteRecovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	path := filepath.Join(dir, "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, "123")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("456")); err == nil {
		t.Error("a write to a log without a folder")
	}
	if n, err := Lossy(l).Write([]byte("456")); n != 3 || err != nil {
		t.Errorf("Lossy: %d, %v", n, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, l, "789")
	if got := contents(t, path); got != "789" {
		t.Errorf("%q", got)
	}
}

func TestMove(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	l, err := Open(from, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, "123")
	if err := l.Move(to); err != nil {
		t.Fatal(err)
	}
	write(t, l, "4")
	write(t, l, "5")
	if a, b, old := contents(t, from), contents(t, to), contents(t, Old(to)); a != "" || b != "5" || old != "1234" {
		t.Errorf("%q, %q, %q", a, b, old)
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	read := func() string {
		var b bytes.Buffer
		if err := Read(path, &b); err != nil {
			t.Error(err)
		}
		return b.String()
	}
	if got := read(); got != "" {
		t.Errorf("no log: %q", got)
	}
	l, err := Open(path, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	write(t, l, "1234")
	write(t, l, "56")
	if got := read(); got != "123456" {
		t.Errorf("%q", got)
	}
}

// collector lets a test wait for what was written to it.
type collector struct {
	mu   sync.Mutex
	more *sync.Cond
	got  bytes.Buffer
}

func newCollector() *collector {
	c := &collector{}
	c.more = sync.NewCond(&c.mu)
	return c
}

func (c *collector) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.more.Broadcast()
	return c.got.Write(b)
}

func (c *collector) wait(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !strings.Contains(c.got.String(), s) {
		c.more.Wait()
	}
}

func TestFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	path := filepath.Join(dir, "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out, done := newCollector(), make(chan error, 1)
	go func() { done <- Follow(t.Context(), path, out) }() // before there is a log
	l, err := Open(path, 40)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var want strings.Builder
	for i := range 18 { // 180 bytes: four rotations
		line := fmt.Sprintf("line %04d\n", i)
		want.WriteString(line)
		write(t, l, line)
		if i%3 == 2 { // at most one rotation between two looks
			out.wait(line)
		}
	}
	if got := out.got.String(); got != want.String() {
		t.Errorf("followed:\n%s", got)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrGone) {
		t.Errorf("the folder was removed: %v", err)
	}
}

func TestFollowEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, done := newCollector(), make(chan error, 1)
	go func() { done <- Follow(ctx, path, out) }()
	out.wait("a")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("cancelled: %v", err)
	}
	r, w := io.Pipe()
	r.Close()
	if err := Follow(t.Context(), path, w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a writer that fails: %v", err)
	}
}
