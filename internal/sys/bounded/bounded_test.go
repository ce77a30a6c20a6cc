package bounded

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReader(t *testing.T) {
	large := errors.New("too large")
	for left, want := range map[int64]error{4: large, 5: nil, 6: nil, 0: large} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader("hello"), "byte by byte": iotest.OneByteReader(strings.NewReader("hello"))} {
			b, err := io.ReadAll(&Reader{R: r, Left: left, Err: large})
			if !errors.Is(err, want) || err == nil && string(b) != "hello" || int64(len(b)) > left {
				t.Errorf("%d bytes, %s: %q, %v", left, name, b, err)
			}
		}
	}
}

// TestWriter: the first bytes are kept and no more, also where a copy asks the writer to read by itself.
func TestWriter(t *testing.T) {
	for _, n := range []int64{0, 4, 5, 6, 64 << 20} {
		w := &Writer{Max: 5}
		copied, err := io.Copy(w, io.LimitReader(endless{}, n))
		if err != nil || copied != n || w.Over != (n > 5) || int64(len(w.Kept)) != min(n, 5) || cap(w.Kept) > 64 {
			t.Errorf("%d bytes: %d, %v, over: %v, %d kept of %d", n, copied, err, w.Over, len(w.Kept), cap(w.Kept))
		}
	}
	w := &Writer{Max: 5}
	for _, part := range []string{"he", "llo", " world"} {
		if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
			t.Errorf("%q: %d, %v", part, n, err)
		}
	}
	if string(w.Kept) != "hello" || !w.Over {
		t.Errorf("%q, over: %v", w.Kept, w.Over)
	}
}

// endless has bytes for every read.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
