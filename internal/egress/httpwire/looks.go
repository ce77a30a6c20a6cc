package httpwire

import (
	"bytes"
	"strings"
)

// isToken reports whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if !isTokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isTokenByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// isVisible reports whether s has no blank and no control character.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// Looks reports whether the first bytes of a client are an HTTP request, in the
// loosest way that some server reads: blanks first, any blank between the words,
// any method, however long. maybe means that more bytes are needed to tell. A whole
// line without an HTTP version is another protocol (SMTP, Redis, an SSH banner).
func Looks(b []byte) (yes, maybe bool) {
	line := bytes.TrimLeft(b, " \t\v\f\r\n")
	n := WordLength(line)
	digits := bytes.ContainsAny(line[:n], "0123456789")
	switch {
	case n == len(line):
		return false, true // a word so far
	case n == 0 || strings.IndexByte(" \t\v\f\r", line[n]) < 0:
		return false, false
	}
	end := bytes.IndexByte(line, '\n')
	if end < 0 {
		// A line with a NUL is the Git protocol's, if its first word cannot be a
		// method; it has no line end to wait for.
		return false, !digits || bytes.IndexByte(line, 0) < 0
	}
	words := bytes.FieldsFunc(line[:end], func(r rune) bool { return strings.ContainsRune(" \t\v\f\r", r) })
	for _, w := range words[1:] {
		if len(w) >= 5 && bytes.EqualFold(w[:5], []byte("HTTP/")) {
			return true, false
		}
	}
	// HTTP/0.9 has no version. Let the parser refuse it. Without a host in it, it is
	// taken for that only as it is written: memcached has "get /key".
	return len(words) == 2 && (isMethod(string(words[0])) && words[1][0] == '/' ||
		isMethod(strings.ToUpper(string(words[0]))) && bytes.HasPrefix(bytes.ToLower(words[1]), []byte("http"))), false
}

// WordLength returns how many bytes at the beginning are of a token.
func WordLength(b []byte) int {
	n := 0
	for n < len(b) && isTokenByte(b[n]) {
		n++
	}
	return n
}

// isMethod knows the methods that servers know.
func isMethod(word string) bool {
	switch word {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT":
		return true
	}
	return false
}
