package supervisor

import (
	"io"
	"strings"
	"testing"
)

func TestPrintedPanic(t *testing.T) {
	for _, c := range []struct{ console, want string }{
		{"", ""},
		{"Linux version\nreboot: Restarting system\n", ""},
		{"[ 1.0] Kernel panic - not syncing: one\r\n[ 1.0] CPU: 0\n", "Kernel panic - not syncing: one"},
		{"[ 1.0] Kernel panic - not syncing: cut", "Kernel panic - not syncing: cut"},
		{"Kernel panic - said by a program\nKernel panic - not syncing: two\x1b[2J\n", "Kernel panic - not syncing: two\\x1b[2J"},
	} {
		p := &printed{end: make(chan struct{})}
		_, _ = io.Copy(p, strings.NewReader(strings.Repeat("x", 3*printedSize)+"\n"+c.console))
		close(p.end)
		if len(p.b) != printedSize {
			t.Errorf("%d bytes are kept", len(p.b))
		}
		if got := p.panic(); got != c.want {
			t.Errorf("%q: %q, not %q", c.console, got, c.want)
		}
	}
}
