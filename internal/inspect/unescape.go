package inspect

import (
	"bytes"
	"unicode/utf8"
)

// maxEscape is the length of the longest escape sequence that unescape reads, in bytes.
const maxEscape = 6

// unescape decodes percent-encoding (%41) and the escapes of JSON strings (\u0041, \/) wherever
// they stand; all else stays as it is. It appends to dst, and returns with it the end
// of b that may be the beginning of an escape, unless final is set.
func unescape(dst, b []byte, final bool) (out, rest []byte) {
	for i := 0; i < len(b); {
		if n := untilEscape(b[i:]); n > 0 {
			dst = append(dst, b[i:i+n]...)
			i += n
			continue
		}
		c, n, more := readEscape(b[i:])
		switch {
		case more && !final:
			return dst, b[i:]
		case n == 0:
			dst = append(dst, b[i])
			i++
		default:
			dst = utf8.AppendRune(dst, c)
			i += n
		}
	}
	return dst, nil
}

// untilEscape returns how many bytes stand before what may be an escape.
func untilEscape(b []byte) int {
	n := len(b)
	if i := bytes.IndexByte(b, '%'); i >= 0 {
		n = i
	}
	if i := bytes.IndexByte(b[:n], '\\'); i >= 0 {
		n = i
	}
	return n
}

// hasEscape reports whether there may be an escape in b.
func hasEscape(b []byte) bool { return untilEscape(b) < len(b) }

// readEscape reads the escape that b begins with. n is its length, 0 if it is none. more: it
// may be one when more bytes come.
func readEscape(b []byte) (c rune, n int, more bool) {
	digits, from := 2, 1
	if b[0] == '\\' {
		if len(b) == 1 {
			return 0, 0, true
		}
		if b[1] != 'u' {
			return rune(b[1]), 2, false
		}
		digits, from = 4, 2
	}
	return readHex(b, from, digits)
}

func hexDigit(b byte) (rune, bool) {
	switch {
	case b >= '0' && b <= '9':
		return rune(b - '0'), true
	case b >= 'a' && b <= 'f':
		return rune(b-'a') + 10, true
	case b >= 'A' && b <= 'F':
		return rune(b-'A') + 10, true
	}
	return 0, false
}
