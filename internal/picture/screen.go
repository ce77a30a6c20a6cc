package main

import (
	"strings"

	"github.com/hinshun/vt10x"
)

// screen is what a terminal shows.
type screen struct {
	cols int
	rows [][]vt10x.Glyph // up to the last one with text
}

// screenOf copies the screen of a terminal.
func screenOf(term vt10x.Terminal) *screen {
	cols, rows := term.Size()
	s := &screen{cols: cols}
	for y := range rows {
		row := make([]vt10x.Glyph, cols)
		for x := range row {
			row[x] = term.Cell(x, y)
		}
		s.rows = append(s.rows, row)
	}
	for len(s.rows) > 0 && s.line(len(s.rows)-1) == "" {
		s.rows = s.rows[:len(s.rows)-1]
	}
	return s
}

// line returns the text of a row without the blanks at its end.
func (s *screen) line(y int) string {
	if y >= len(s.rows) {
		return ""
	}
	var b strings.Builder
	for _, g := range s.rows[y] {
		b.WriteRune(printable(g.Char))
	}
	return strings.TrimRight(b.String(), " ")
}

// text returns the rows as lines.
func (s *screen) text() string {
	var b strings.Builder
	for y := range s.rows {
		b.WriteString(s.line(y) + "\n")
	}
	return b.String()
}

// printable returns a blank for an empty cell, and for what XML 1.0 does not have (section 2.2).
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == 0xfffe || r == 0xffff || r >= 0xd800 && r < 0xe000 {
		return ' '
	}
	return r
}
