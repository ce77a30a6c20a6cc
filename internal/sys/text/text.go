// Package text makes text from outside fit for a terminal and a log.
//
// There is one rule for all of bawn. A character passes if it is a letter, mark,
// number, punctuation mark, symbol or the ASCII space, and is visible. All others are
// written as escapes that show what was there: \t, \r and \n; \x1b for a control
// character of ASCII or a byte that is not UTF-8; \u202e or \U000e0041 for other
// characters. So these never reach the terminal or the log:
//
//   - control characters: C0, DEL and C1, which terminals obey;
//   - characters that turn the direction of writing (bidi controls);
//   - characters without a width: format controls, variation selectors, fillers;
//   - line and paragraph separators, and spaces other than that of ASCII;
//   - code points without an assigned character, and bytes that are not UTF-8.
//
// The functions differ in the line ends that they keep, and in nothing else.
// Escaping is not reversible: text that holds `\x1b` already is left as it is.
package text

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line returns s as one line: tabs, carriage returns and newlines are escaped too.
// It is for names, reasons and messages, in errors, tables and logs.
func Line(s string) string { return escape(s, "") }

// Block returns s with its newlines and tabs. Carriage returns are left out: text of
// a serial console ends its lines with "\r\n". It is for text of several lines.
func Block(s string) string { return escape(s, "\n\t") }

// Short is Line of s without white space around it, cut to at most limit characters
// of s; "..." stands for what was cut off.
func Short(s string, limit int) string {
	s = strings.TrimSpace(s)
	n := 0
	for i := range s {
		if n == limit {
			return Line(s[:i]) + "..."
		}
		n++
	}
	return Line(s)
}

// Visible reports whether r may reach a terminal as it is.
func Visible(r rune) bool {
	if r >= ' ' && r < 0x7f {
		return true
	}
	return unicode.IsPrint(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// A Writer passes a stream of text on to another writer as Block does, also where
// a character is split between two writes. Use it for one stream, from one goroutine
// at a time.
type Writer struct {
	w    io.Writer
	part []byte // the beginning of a character, at most 3 bytes
}

// NewWriter returns a Writer that writes to w. Call its Flush at the end.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes the escaped form of b. On an error it returns 0: how much of b
// was written is not known.
func (w *Writer) Write(b []byte) (int, error) {
	all := slices.Concat(w.part, b)
	cut := len(all) - partial(all)
	out := Block(string(all[:cut]))
	w.part = all[cut:]
	if _, err := io.WriteString(w.w, out); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush writes the beginning of a character that the stream ended in, escaped.
func (w *Writer) Flush() error {
	out := Block(string(w.part))
	w.part = nil
	if out == "" {
		return nil
	}
	_, err := io.WriteString(w.w, out)
	return err
}

// partial returns how many bytes at the end of b are the beginning of a character.
func partial(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if tail := b[len(b)-n:]; utf8.RuneStart(tail[0]) {
			if utf8.FullRune(tail) {
				return 0
			}
			return n
		}
	}
	return 0
}

// escape escapes s, except for the characters in keep. Where newlines are kept,
// carriage returns are left out.
func escape(s, keep string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case Visible(r), strings.ContainsRune(keep, r):
			b.WriteRune(r)
		case r == '\r' && keep != "":
		default:
			escapeRune(&b, r)
		}
		s = s[n:]
	}
	return b.String()
}

func escapeRune(b *strings.Builder, r rune) {
	switch {
	case r == '\t':
		b.WriteString(`\t`)
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r < 0x80:
		fmt.Fprintf(b, `\x%02x`, r)
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}

// plain reports whether s holds visible ASCII only, as most text does.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
