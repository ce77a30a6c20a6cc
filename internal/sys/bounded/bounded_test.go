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
