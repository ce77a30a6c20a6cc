package text

import (
	"os/exec"
	"testing"
)

// TestShellWord: a shell reads the word as the text that it was made of.
func TestShellWord(t *testing.T) {
	for _, s := range []string{"", "a.test:22", "[2001:db8::1]:22", "**.a.test", "it's", "a b", "$(id)", "`id`", "~", "a\nb", "!x", "#x"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+ShellWord(s)).Output()
		if err != nil || string(out) != s {
			t.Errorf("%q: %q, %v", s, out, err)
		}
	}
	for _, s := range []string{"a.test:22", "host:5432", "preset:npm"} {
		if ShellWord(s) != s {
			t.Errorf("%q needs no quotes: %s", s, ShellWord(s))
		}
	}
}
