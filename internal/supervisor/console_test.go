package supervisor

import (
	"io"
	"strings"
	"testing"
)

func TestPanicLine(t *testing.T) {
	for _, c := range []struct{ console, want string }{
		{"", ""},
		{"Linux version\nreboot: Restarting system\n", ""},
		{"[ 1.0] Kernel panic - not syncing: one\r\n[ 1.0] CPU: 0\n", "Kernel panic - not syncing: one"},
		{"[ 1.0] Kernel panic - not syncing: cut", "Kernel panic - not syncing: cut"},
		{"Kernel panic - said by a program\nKernel panic - not syncing: two\x1b[2J\n", "Kernel panic - not syncing: two\\x1b[2J"},
	} {
		p := &console{done: make(chan struct{})}
		_, _ = io.Copy(p, strings.NewReader(strings.Repeat("x", 3*lastSize)+"\n"+c.console))
		close(p.done)
		if len(p.last) != lastSize {
			t.Errorf("%d bytes are kept", len(p.last))
		}
		if got := p.panicLine(); got != c.want {
			t.Errorf("%q: %q, not %q", c.console, got, c.want)
		}
	}
}
