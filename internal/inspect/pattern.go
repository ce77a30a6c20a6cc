package inspect

import (
	"bytes"
	"html"
	"unicode/utf8"
)

// pattern is a value in whatever mixture of characters and escapes: servers differ in which characters
// they escape in JSON, URLs and HTML, and in how. It is found by its anchor, the longest run of letters and
// digits, which these servers leave as they are. A value of which each byte is escaped is one of the
// byteForms.
type pattern struct {
	value    string
	from, to int // of the anchor in value
	with     []byte
	counts   int // as that of a swap, in characters
}

// minAnchor is the length of the shortest anchor, in bytes. A value without one is found in the forms
// that are listed only.
const minAnchor = 4

// longestEscape is the length of the longest escape of a character that a pattern reads, in bytes, and
// longestNested that of the longest escape of one.
const (
	longestEscape = 10
	longestNested = 2 * longestEscape
)

// patternOf returns the pattern of a value; ok is false if it has no anchor, or none is needed: no
// character is one that is escaped.
func patternOf(value, placeholder string) (p pattern, ok bool) {
	p = pattern{value: value, with: []byte(placeholder), counts: countsFrom(value, placeholder)}
	start := 0
	for i := 0; i <= len(value); i++ {
		if i < len(value) && isAlphanumeric(value[i]) {
			continue
		}
		if i-start > p.to-p.from {
			p.from, p.to = start, i
		}
		start = i + 1
	}
	return p, p.to-p.from >= minAnchor && p.to-p.from < len(value)
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

func (p *pattern) anchor() []byte { return []byte(p.value[p.from:p.to]) }

func (p *pattern) longest() int { return longestNested * len(p.value) }

// replacement returns what replaces n bytes that are the value. It is as long if the placeholder is as
// long as the value.
func (p *pattern) replacement(n int) []byte {
	if len(p.with) != len(p.value) || n == len(p.with) {
		return p.with
	}
	return append(bytes.Clone(p.with), blank(n-len(p.with))...)
}

// around returns the place of the value in b whose anchor begins at at.
func (p *pattern) around(b []byte, at int) (start, end int, ok bool) {
	if !bytes.HasPrefix(b[at:], p.anchor()) {
		return 0, 0, false
	}
	for start = at - p.from; start >= 0 && start >= at-longestNested*p.from; start-- {
		if n, chars, _ := p.match(b[start:]); chars == len(p.value) && start+n > at {
			return start, start + n, true
		}
	}
	return 0, 0, false
}

// begun returns the length of the longest end of b that is a beginning of the value, and whether it is
// too long for a coincidence.
func (p *pattern) begun(b []byte) (longest int, sure bool) {
	for start := max(0, len(b)-p.longest()+1); start < len(b); start++ {
		if b[start] != p.value[0] && !isEscape(b[start]) {
			continue
		}
		if _, chars, more := p.match(b[start:]); more && chars > 0 {
			return len(b) - start, chars >= p.counts
		}
	}
	return 0, false
}

// match compares b with the value. n is the length of what agrees, and chars how many characters of the
// value that is. more: b ends in the middle of it.
func (p *pattern) match(b []byte) (n, chars int, more bool) {
	for ; chars < len(p.value); chars++ {
		if n == len(b) {
			return n, chars, true
		}
		size, more := lengthAs(b[n:], rune(p.value[chars]))
		if size == 0 {
			return n, chars, more
		}
		n += size
	}
	return n, chars, false
}

// lengthAs returns the length of the character or escape that b begins with, if it is c; else 0. more: it
// may be c when more bytes come.
func lengthAs(b []byte, c rune) (n int, more bool) {
	r, n, more := readNested(b)
	if n > 0 && r == c {
		return n, false
	}
	if r, n, _ := readAnyEscape(b); n > 0 && r == c {
		return n, false
	}
	if rune(b[0]) == c {
		return 1, false
	}
	return 0, more
}

// isEscape reports whether an escape may begin with a byte.
func isEscape(c byte) bool { return c == '%' || c == '\\' || c == '&' || c == '=' }

// readNested is readAnyEscape for escapes that may be escaped again, as JSON in a string of JSON, or
// a URL in the query of another.
func readNested(b []byte) (c rune, n int, more bool) {
	c, n, more = readAnyEscape(b)
	if n == 0 || c >= utf8.RuneSelf || !isEscape(byte(c)) {
		return c, n, more
	}
	var inner [longestEscape]byte // what is behind the outer escapes
	var ends [longestEscape]int   // in b
	inner[0], ends[0] = byte(c), n
	k, at := 1, n
	for ; k < len(inner) && at < len(b); k++ {
		r, size, cut := readAnyEscape(b[at:])
		switch {
		case cut:
			return c, n, true
		case size == 0 || r >= utf8.RuneSelf:
			r, size = rune(b[at]), 1
		}
		at += size
		inner[k], ends[k] = byte(r), at
	}
	r, size, cut := readAnyEscape(inner[:k])
	if size > 0 {
		return r, ends[size-1], false
	}
	return c, n, cut && at == len(b)
}

// readAnyEscape reads the escape that b begins with: of URLs (%2F, %u002F), strings (\/, \u002F, \x2F),
// HTML (&#47;, &sol;) or quoted-printable (=2F). n is its length, 0 if it is none. more: it may be one
// when more bytes come.
func readAnyEscape(b []byte) (c rune, n int, more bool) {
	switch {
	case len(b) == 0 || !isEscape(b[0]):
		return 0, 0, false
	case b[0] == '&':
		end := bytes.IndexByte(b[:min(len(b), longestEscape)], ';')
		if end < 0 {
			return 0, 0, len(b) < longestEscape
		}
		text := html.UnescapeString(string(b[:end+1]))
		if c, size := utf8.DecodeRuneInString(text); size == len(text) {
			return c, end + 1, false
		}
		return 0, 0, false
	case bytes.HasPrefix(b, []byte(`\x`)):
		return readHex(b, 2, 2)
	case bytes.HasPrefix(b, []byte("%u")):
		return readHex(b, 2, 4)
	case b[0] == '=':
		return readHex(b, 1, 2)
	}
	return readEscape(b)
}

// readHex reads an escape that has digits hexadecimal digits after its first from bytes. The results are
// those of readAnyEscape.
func readHex(b []byte, from, digits int) (c rune, n int, more bool) {
	for i := from; i < from+digits; i++ {
		if i >= len(b) {
			return 0, 0, true
		}
		d, ok := hexDigit(b[i])
		if !ok {
			return 0, 0, false
		}
		c = c<<4 | d
	}
	return c, from + digits, false
}
