package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/vt10x"
)

// drawn returns the screen that an output leaves, and its picture.
func drawn(t *testing.T, output string) (*screen, string) {
	t.Helper()
	term := vt10x.New(vt10x.WithSize(40, 6))
	if _, err := io.WriteString(term, output); err != nil {
		t.Fatal(err)
	}
	s := screenOf(term)
	picture := s.svg(`a "title" & <more>`)
	wellFormed(t, picture)
	return s, string(picture)
}

// wellFormed fails the test if a picture is no XML.
func wellFormed(t *testing.T, picture []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(picture)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("%v\n%s", err, picture)
		}
	}
}

// TestSVG: what a terminal shows is in the picture.
func TestSVG(t *testing.T) {
	for name, c := range map[string]struct {
		output string
		has    []string // elements of the picture
		hasNot string
	}{
		"plain": {"$ ls\r\na  b", []string{
			`<text x="16" y="30.2" textLength="33.6" lengthAdjust="spacingAndGlyphs">$ ls</text>`,
			`<text x="16" y="49.2" textLength="33.6" lengthAdjust="spacingAndGlyphs">a  b</text>`,
			"$ ls&#xA;a  b&#xA;</desc>", `<title id="t">a &#34;title&#34; &amp; &lt;more&gt;</title>`, `width="368" height="70"`,
		}, "<b"},
		"markup":                   {"<&>\"]]>", []string{">&lt;&amp;&gt;&#34;]]&gt;</text>"}, "<&"},
		"bold, italic, underlined": {"\x1b[1mB\x1b[0;3mI\x1b[0;4mU\x1b[0m", []string{` class="b">B<`, ` class="i">I<`, ` class="u">U<`}, ""},
		"colours": {"\x1b[31mr\x1b[92mg\x1b[38;5;196mx\x1b[38;5;244my\x1b[0mz", []string{
			`style="fill:var(--c1)">r<`, `style="fill:var(--c10)">g<`, `style="fill:#ff0000">x<`, `style="fill:#808080">y<`, `lengthAdjust="spacingAndGlyphs">z<`,
		}, ""},
		"a background":                      {"a\x1b[44m  \x1b[0m", []string{`<rect x="24.4" y="16" width="16.8" height="19" style="fill:var(--c4)"/>`}, ""},
		"reversed":                          {"\x1b[7mx\x1b[0m", []string{`style="fill:var(--text)"/>`, `style="fill:var(--back)">x<`}, ""},
		"a line drawn over":                 {"\r\x1b[Kworking 10%\r\x1b[Kdone", []string{">done</text>"}, "working"},
		"blanks before a text":              {"\x1b[1;11Hx", []string{`<text x="100" y="30.2" textLength="8.4"`}, ""},
		"characters that XML does not have": {"a\x00\x01\ufffeb", nil, "\ufffe"},
		"letters of other scripts":          {"ä→界", []string{">ä→界</text>"}, ""},
		"nothing":                           {"", []string{`height="32"`}, "<text "},
	} {
		_, picture := drawn(t, c.output)
		for _, want := range c.has {
			if !strings.Contains(picture, want) {
				t.Errorf("%s: %s is not in\n%s", name, want, picture)
			}
		}
		if c.hasNot != "" && strings.Contains(picture, c.hasNot) {
			t.Errorf("%s: %s is in\n%s", name, c.hasNot, picture)
		}
	}
}

// recorded runs the tool and returns the text, the picture and the error.
func recorded(t *testing.T, commands string, args ...string) (text, picture string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "p.svg")
	var out strings.Builder
	err = run(t.Context(), append([]string{"-out", file}, args...), strings.NewReader(commands), &out)
	b, readErr := os.ReadFile(file)
	if (readErr == nil) != (err == nil) {
		t.Errorf("%v, but the file: %v", err, readErr)
	}
	return out.String(), string(b), err
}

// TestRecord runs commands in a terminal of the size that was asked for.
func TestRecord(t *testing.T) {
	text, picture, err := recorded(t, "stty size\n\n! printf 'no\\n'; test -t 0 && exit 3\n", "-cols", "50", "-rows", "9", "-title", "what it is")
	want := "$ stty size\n9 50\n\n$ printf 'no\\n'; test -t 0 && exit 3\nno\n"
	if err != nil || text != want {
		t.Errorf("%v\n%s", err, text)
	}
	wellFormed(t, []byte(picture))
	if !strings.Contains(picture, "<title id=\"t\">what it is</title>") || !strings.Contains(picture, `class="b">$ stty size<`) {
		t.Error(picture)
	}
}

// TestNothingIsDrawn of a session that did not go as it was to.
func TestNothingIsDrawn(t *testing.T) {
	for commands, want := range map[string]string{
		"":               "no commands",
		"echo a; exit 4": "echo a; exit 4: exit status 4",
		"! true":         "was to fail",
		"i=0; while [ $((i += 1)) -lt 50 ]; do echo; done": "more than 24 rows",
		"printf '\\033[2J'": "cleared the screen",
	} {
		if _, _, err := recorded(t, commands); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", commands, err)
		}
	}
	for _, rows := range []string{"0", "65536"} {
		if _, _, err := recorded(t, "true", "-rows", rows); err == nil || !strings.Contains(err.Error(), "-rows must be") {
			t.Errorf("%s rows: %v", rows, err)
		}
	}
}

// TestTheReadmesPicture is small, well-formed and from this tool.
func TestTheReadmesPicture(t *testing.T) {
	b, err := os.ReadFile("../../docs/session.svg")
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, b)
	if len(b) > 60_000 || !bytes.Contains(b, []byte(styles())) || !bytes.Contains(b, []byte("bawn run")) {
		t.Errorf("%d bytes; make it again: make picture", len(b))
	}
}
