package main

import (
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/review"
)

// TestAttackShownVersions: what a person is shown before they accept it has no character that hides or moves text, and
// all of the text, whatever coding, line ends and length it has.
func TestAttackShownVersions(t *testing.T) {
	long := strings.Repeat(" ", 100_000) + "evil"
	for name, c := range map[string]struct{ text, want string }{
		"a carriage return":      {"# fine\revil\n", `+# fine\revil`},
		"UTF-16":                 {"\xff\xfee\x00v\x00i\x00l\x00\n\x00", `+\xff\xfee\x00v\x00i\x00l\x00`},
		"a turned direction":     {"a\u202elive\u202c\n", `+a\u202elive\u202c`},
		"characters of no width": {"e\u200bv\u2060il\U000e0041\n", `+e\u200bv\u2060il\U000e0041`},
		"a sequence of escape":   {"evil\x1b[2K\x1b[1A\n", `+evil\x1b[2K\x1b[1A`},
		"a line separator":       {"# fine\u2028evil\n", `+# fine\u2028evil`},
		"a backspace":            {"evil\b\b\b\bgood\n", `+evil\x08\x08\x08\x08good`},
		"a long line":            {long, "+" + long},
	} {
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			showKeptVersion(&b, engine.ReviewKept{Share: "/p", Path: ".envrc", Status: "M", Diff: review.WholeDiff([]byte("was\n"), []byte(c.text))})
			if !strings.Contains(b.String(), c.want+"\n") {
				t.Errorf("%.300q does not show %.100q", b.String(), c.want)
			}
		})
	}
}
