package text

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEscapes(t *testing.T) {
	for _, c := range []struct{ what, in, line, block string }{
		{"plain", "a b~", "a b~", "a b~"},
		{"empty", "", "", ""},
		{"letters, marks, symbols", "é e\u0301 漢 ½ € 🙂", "é e\u0301 漢 ½ € 🙂", "é e\u0301 漢 ½ € 🙂"},
		{"line ends", "a\r\n\tb\nc", `a\r\n\tb\nc`, "a\n\tb\nc"},
		{"a carriage return that hides text", "deny\rallow", `deny\rallow`, "denyallow"},
		{"C0", "\x00\x07\x1b[2J\x1f", `\x00\x07\x1b[2J\x1f`, `\x00\x07\x1b[2J\x1f`},
		{"DEL", "\x7f", `\x7f`, `\x7f`},
		{"C1 as characters", "\u0080\u009b2J\u009d", `\u0080\u009b2J\u009d`, `\u0080\u009b2J\u009d`},
		{"C1 as bytes", "\x9b2J", `\x9b2J`, `\x9b2J`},
		{"not UTF-8", "a\xffb\xc3", `a\xffb\xc3`, `a\xffb\xc3`},
		{"surrogate and overlong", "\xed\xa0\x80\xc0\x80", `\xed\xa0\x80\xc0\x80`, `\xed\xa0\x80\xc0\x80`},
		{"the replacement character itself", "\ufffd", "\ufffd", "\ufffd"},
		{"bidi", "\u202a\u202e\u2066\u2069\u200e\u200f\u061c", `\u202a\u202e\u2066\u2069\u200e\u200f\u061c`, `\u202a\u202e\u2066\u2069\u200e\u200f\u061c`},
		{"zero width", "a\u200bb\u200dc\u2060\ufeff\u00ad", `a\u200bb\u200dc\u2060\ufeff\u00ad`, `a\u200bb\u200dc\u2060\ufeff\u00ad`},
		{"fillers", "\u115f\u1160\u3164\uffa0\u034f", `\u115f\u1160\u3164\uffa0\u034f`, `\u115f\u1160\u3164\uffa0\u034f`},
		{"variation selectors", "\ufe00\ufe0f\U000e0100", `\ufe00\ufe0f\U000e0100`, `\ufe00\ufe0f\U000e0100`},
		{"tags", "\U000e0041", `\U000e0041`, `\U000e0041`},
		{"separators", "a\u2028b\u2029c\u0085", `a\u2028b\u2029c\u0085`, `a\u2028b\u2029c\u0085`},
		{"spaces", "a\u00a0b\u3000c", `a\u00a0b\u3000c`, `a\u00a0b\u3000c`},
		{"private use and unassigned", "\ue000\u0378", `\ue000\u0378`, `\ue000\u0378`},
	} {
		if got := Line(c.in); got != c.line {
			t.Errorf("%s: Line(%q) = %q, want %q", c.what, c.in, got, c.line)
		}
		if got := Block(c.in); got != c.block {
			t.Errorf("%s: Block(%q) = %q, want %q", c.what, c.in, got, c.block)
		}
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abc", 3, "abc"},
		{"abcd", 3, "abc..."},
		{" \n a\x1bc \n", 3, `a\x1bc`},
		{"äöü!", 3, "äöü..."},
		{"\xff\xff\xff", 2, `\xff\xff...`},
		{"a", 0, "..."},
		{"", 0, ""},
	} {
		if got := Short(c.in, c.limit); got != c.want {
			t.Errorf("Short(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func TestWriterJoinsSplitCharacters(t *testing.T) {
	in := "a\x1b[2J漢字🙂\r\n\u202e\xff\xe6\xbc"
	for step := 1; step <= len(in); step++ {
		var out bytes.Buffer
		w := NewWriter(&out)
		for rest := []byte(in); len(rest) > 0; {
			n := min(step, len(rest))
			if got, err := w.Write(rest[:n]); got != n || err != nil {
				t.Fatalf("Write = %d, %v", got, err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if out.String() != Block(in) {
			t.Errorf("in steps of %d: %q, want %q", step, out.String(), Block(in))
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func TestWriterReportsErrors(t *testing.T) {
	w := NewWriter(broken{})
	if _, err := w.Write([]byte("a")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Write: %v", err)
	}
}

// FuzzText: whatever comes in, no character that a terminal obeys or does not show
// comes out, and text that is fine stays as it is.
func FuzzText(f *testing.F) {
	for _, s := range []string{"a\x1b[2J", "\u202e\u200b\u2028", "\xff\xc3\x28", "a\r\n\tb", "漢🙂", "\U000e0041\ufe0f\u3164"} {
		f.Add(s, 2)
	}
	f.Fuzz(func(t *testing.T, s string, cut int) {
		line, block := Line(s), Block(s)
		check := func(what, out, keep string) {
			if !utf8.ValidString(out) {
				t.Fatalf("%s is not UTF-8: %q", what, out)
			}
			for _, r := range out {
				if !Visible(r) && !strings.ContainsRune(keep, r) {
					t.Fatalf("%s holds %U: %q", what, r, out)
				}
			}
		}
		check("Line", line, "")
		check("Block", block, "\n\t")
		if Line(line) != line || Block(block) != block {
			t.Fatalf("not stable: %q, %q", line, block)
		}
		if cut < 0 || cut > len(s) {
			return
		}
		var out bytes.Buffer
		w := NewWriter(&out)
		_, err1 := w.Write([]byte(s[:cut]))
		_, err2 := w.Write([]byte(s[cut:]))
		if err := errors.Join(err1, err2, w.Flush()); err != nil || out.String() != block {
			t.Fatalf("Writer: %q, %v, want %q", out.String(), err, block)
		}
	})
}
