package sparse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"bawn.dev/bawn/internal/sys/diskuse"
)

// part is what a test file holds at some place; all else is hole.
type part struct {
	at   int64
	data []byte
}

func file(t *testing.T, size int64, parts ...part) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if _, err := f.WriteAt(p.data, p.at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func contents(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ones(n int) []byte { return bytes.Repeat([]byte{1}, n) }

func TestCopy(t *testing.T) {
	for _, c := range []struct {
		what  string
		size  int64
		parts []part
		used  int64 // at most, in pages
	}{
		{"an empty file", 0, nil, 0},
		{"one byte", 1, []part{{0, ones(1)}}, 1},
		{"all hole", 10 << 20, nil, 0},
		{"zeros that are no hole", 3 << 20, []part{{0, make([]byte, 3<<20)}}, 0},
		{"a hole at the end", 9*Page + 7, []part{{Page, ones(10)}}, 1},
		{"a hole at the beginning, an end within a page", 5*Page + 7, []part{{5 * Page, ones(7)}}, 1},
		{"more than a chunk", 3<<20 + 5, []part{{100, ones(2<<20 + 300)}, {3 << 20, ones(5)}}, 2<<20/Page + 3},
		{"full", 4 * Page, []part{{0, ones(4 * Page)}}, 4},
	} {
		src, dst := file(t, c.size, c.parts...), file(t, 0)
		if err := Copy(t.Context(), dst, src); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if !bytes.Equal(contents(t, dst), contents(t, src)) {
			t.Errorf("%s: the copy differs", c.what)
		}
		data := file(t, 0)
		if n, err := CopyData(t.Context(), data, src); err != nil || n > c.used*Page {
			t.Errorf("%s: %d bytes written, %v", c.what, n, err)
		}
		if !bytes.Equal(contents(t, data), contents(t, src)) {
			t.Errorf("%s: the copied data differs", c.what)
		}
		if err := data.Sync(); err != nil {
			t.Fatal(err)
		}
		if used := diskuse.OfFile(data); used > c.used*Page+64<<10 {
			t.Errorf("%s: the copy takes %d bytes", c.what, used)
		}
	}
}

func TestCopyDataDoesNotCut(t *testing.T) {
	src, dst := file(t, Page, part{0, ones(Page)}), file(t, 3*Page)
	if _, err := CopyData(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	if want := append(ones(Page), make([]byte, 2*Page)...); !bytes.Equal(contents(t, dst), want) {
		t.Error("the copy differs")
	}
}

func TestEndWithTheContext(t *testing.T) {
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	src, dst := file(t, 8<<20, part{0, ones(8 << 20)}), file(t, 0)
	calls := 0
	err := Each(ctx, src, func([]byte, int64) error { calls++; cancel(stop); return nil })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Each: %v after %d calls", err, calls)
	}
	if _, err := CopyData(ctx, dst, src); !errors.Is(err, stop) {
		t.Errorf("CopyData: %v", err)
	}
}

func TestErrors(t *testing.T) {
	src := file(t, Page, part{0, ones(Page)})
	readOnly, err := os.Open(file(t, 0).Name())
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	if err := Copy(t.Context(), readOnly, src); err == nil {
		t.Error("a copy to a file that is open for reading")
	}
	if err := Each(t.Context(), src, func([]byte, int64) error { return io.ErrNoProgress }); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("Each: %v", err)
	}
	src.Close()
	if err := Copy(t.Context(), file(t, 0), src); err == nil {
		t.Error("a copy of a closed file")
	}
}

// TestShrinks: a file that is cut short while it is read is no error.
func TestShrinks(t *testing.T) {
	src := file(t, 4<<20, part{0, ones(4 << 20)})
	var got int64
	err := Each(t.Context(), src, func(b []byte, at int64) error {
		got = at + int64(len(b))
		return src.Truncate(1<<20 + 10)
	})
	if err != nil || got != 1<<20+10 {
		t.Errorf("read up to %d, %v", got, err)
	}
}

func TestEachPage(t *testing.T) {
	size := int64(20*Page + 3)
	parts := []part{{2*Page + 5, ones(1)}, {7 * Page, ones(Page)}, {20 * Page, ones(3)}}
	want := []int64{2 * Page, 7 * Page, 20 * Page}
	full := file(t, size, append([]part{{0, make([]byte, size)}}, parts...)...)
	for _, f := range []*os.File{file(t, size, parts...), full} {
		var got []int64
		all := contents(t, f)
		err := EachPage(t.Context(), f, func(p []byte, at int64) {
			got = append(got, at)
			if !bytes.Equal(p, all[at:min(at+Page, size)]) {
				t.Errorf("the page at %d differs", at)
			}
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("pages %v, %v", got, err)
		}
	}
}
