package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/hinshun/vt10x"
)

// Sizes in the units of the picture. A glyph of the usual monospaced fonts is 0.6 times as wide as its
// size; textLength makes each piece as wide as its columns in every font.
const (
	fontSize   = 14.0
	cellWidth  = 8.4
	cellHeight = 19.0
	margin     = 16.0
)

// The bits of vt10x.Glyph.Mode, which that package does not export.
const (
	modeUnderline = 1 << 1
	modeBold      = 1 << 2
	modeItalic    = 1 << 4
)

// palette has the sixteen colours of a terminal on a dark and on a light background, each readable
// on it.
var palette = [16]struct{ dark, light string }{
	{"#6e7681", "#24292f"}, {"#ff7b72", "#cf222e"}, {"#3fb950", "#116329"}, {"#d29922", "#7d4e00"},
	{"#58a6ff", "#0969da"}, {"#bc8cff", "#8250df"}, {"#39c5cf", "#1b7c83"}, {"#b1bac4", "#57606a"},
	{"#8b949e", "#57606a"}, {"#ffa198", "#a40e26"}, {"#56d364", "#1a7f37"}, {"#e3b341", "#633c01"},
	{"#79c0ff", "#218bff"}, {"#d2a8ff", "#a475f9"}, {"#56d4dd", "#3192aa"}, {"#f0f6fc", "#24292f"},
}

// svg draws the screen. The title and the text of the screen are there for people who cannot see it. The
// picture follows the reader's choice of a light or a dark scheme, and brings its own background.
func (s *screen) svg(title string) []byte {
	width := 2*margin + cellWidth*float64(s.cols)
	height := 2*margin + cellHeight*float64(len(s.rows))
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]s %[2]s" width="%[1]s" height="%[2]s" role="img" aria-labelledby="t d">`+"\n", number(width), number(height))
	fmt.Fprintf(&b, "<title id=\"t\">%s</title>\n<desc id=\"d\">%s</desc>\n", escaped(title), escaped(s.text()))
	b.WriteString(styles())
	b.WriteString(`<rect class="back" x="0.5" y="0.5" width="` + number(width-1) + `" height="` + number(height-1) + `" rx="8"/>` + "\n")
	for y := range s.rows {
		for _, r := range s.pieces(y) {
			r.draw(&b, margin+cellHeight*float64(y))
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// styles returns the style sheet.
func styles() string {
	var dark, light strings.Builder
	for i, c := range palette {
		fmt.Fprintf(&dark, "--c%d:%s;", i, c.dark)
		fmt.Fprintf(&light, "--c%d:%s;", i, c.light)
	}
	return fmt.Sprintf(`<style>
svg{--back:#0d1117;--edge:#30363d;--text:#e6edf3;%s}
@media (prefers-color-scheme:light){svg{--back:#fff;--edge:#d0d7de;--text:#1f2328;%s}}
.back{fill:var(--back);stroke:var(--edge)}
text{font:%spx ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:var(--text);white-space:pre}
.b{font-weight:700}.i{font-style:italic}.u{text-decoration:underline}
</style>
`, dark.String(), light.String(), number(fontSize))
}

// piece is a part of a row in one style.
type piece struct {
	x      int // its first column
	glyphs []vt10x.Glyph
}

// pieces returns those of a row. Blanks without a background are left out at both ends of a piece.
func (s *screen) pieces(y int) (list []piece) {
	row := s.rows[y]
	for x := 0; x < len(row); {
		end := x + 1
		for end < len(row) && sameStyle(row[x], row[end]) {
			end++
		}
		r := piece{x, row[x:end]}
		if row[x].BG == vt10x.DefaultBG {
			r = r.trimmed()
		}
		if len(r.glyphs) > 0 {
			list = append(list, r)
		}
		x = end
	}
	return list
}

func sameStyle(a, b vt10x.Glyph) bool {
	const shown = modeUnderline | modeBold | modeItalic
	return a.FG == b.FG && a.BG == b.BG && a.Mode&shown == b.Mode&shown
}

// trimmed returns a piece without blanks at its ends.
func (r piece) trimmed() piece {
	for len(r.glyphs) > 0 && printable(r.glyphs[0].Char) == ' ' {
		r.x, r.glyphs = r.x+1, r.glyphs[1:]
	}
	for len(r.glyphs) > 0 && printable(r.glyphs[len(r.glyphs)-1].Char) == ' ' {
		r.glyphs = r.glyphs[:len(r.glyphs)-1]
	}
	return r
}

// draw writes a piece whose row begins at that height.
func (r piece) draw(b *bytes.Buffer, top float64) {
	x, width := margin+cellWidth*float64(r.x), cellWidth*float64(len(r.glyphs))
	first := r.glyphs[0]
	if first.BG != vt10x.DefaultBG {
		fmt.Fprintf(b, `<rect x="%s" y="%s" width="%s" height="%s" style="fill:%s"/>`+"\n", number(x), number(top), number(width), number(cellHeight), colour(first.BG))
	}
	var text strings.Builder
	for _, g := range r.glyphs {
		text.WriteRune(printable(g.Char))
	}
	if strings.TrimSpace(text.String()) == "" {
		return
	}
	fmt.Fprintf(b, `<text x="%s" y="%s" textLength="%s" lengthAdjust="spacingAndGlyphs"%s%s>%s</text>`+"\n",
		number(x), number(top+0.75*cellHeight), number(width), classes(first.Mode), fill(first.FG), escaped(text.String()))
}

// classes returns the attribute for the style of a glyph.
func classes(mode int16) string {
	var list []string
	for _, c := range []struct {
		bit  int16
		name string
	}{{modeBold, "b"}, {modeItalic, "i"}, {modeUnderline, "u"}} {
		if mode&c.bit != 0 {
			list = append(list, c.name)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return ` class="` + strings.Join(list, " ") + `"`
}

// fill returns the attribute for the colour of text.
func fill(c vt10x.Color) string {
	if c == vt10x.DefaultFG {
		return ""
	}
	return ` style="fill:` + colour(c) + `"`
}

// colour returns a colour as CSS has it. 16 to 255 are xterm's cube and its greys; beyond are colours
// of 24 bits.
func colour(c vt10x.Color) string {
	switch {
	case c == vt10x.DefaultFG:
		return "var(--text)"
	case c >= vt10x.DefaultBG:
		return "var(--back)"
	case c < 16:
		return fmt.Sprintf("var(--c%d)", c)
	case c >= 256:
		return fmt.Sprintf("#%06x", uint32(c))
	case c >= 232:
		return fmt.Sprintf("#%02[1]x%02[1]x%02[1]x", 8+10*(c-232))
	}
	level := func(n vt10x.Color) vt10x.Color {
		if n == 0 {
			return 0
		}
		return 55 + 40*n
	}
	c -= 16
	return fmt.Sprintf("#%02x%02x%02x", level(c/36), level(c/6%6), level(c%6))
}

// number writes a size with one digit behind the point, if it needs one.
func number(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") }

// escaped returns a text as XML has it.
func escaped(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
