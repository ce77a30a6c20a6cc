package httpwire

import (
	"bytes"
	"slices"
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

func isTokenByte(c byte) bool { return classes[c]&classToken != 0 }

// isVisible reports whether s has no blank and no control character.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return s != ""
}

// isBlank reports whether some server takes c for a blank between the words of a line.
func isBlank(c byte) bool { return classes[c]&classBlank != 0 }

// isControl reports whether c is a control character that is no blank.
func isControl(c byte) bool { return classes[c]&classControl != 0 }

// The classes of a byte. A line feed is in none: it ends a line.
const (
	classToken = 1 << iota
	classBlank
	classControl
)

var classes = func() (t [256]byte) {
	for c := range t {
		switch b := byte(c); {
		case b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0:
			t[c] = classToken
		case b == ' ' || b >= '\t' && b <= '\r' && b != '\n':
			t[c] = classBlank
		case b < ' ' && b != '\n' || b == 0x7f:
			t[c] = classControl
		}
	}
	return t
}()

// nextWord cuts the first word off a line; empty when there is none.
func nextWord(line []byte) (word, rest []byte) {
	start := 0
	for start < len(line) && (isBlank(line[start]) || line[start] == '\n') {
		start++
	}
	end := start
	for end < len(line) && !isBlank(line[end]) && line[end] != '\n' {
		end++
	}
	return line[start:end], line[end:]
}

// Verdict is what the first bytes of a client are.
type Verdict int

// The verdicts of FirstLine.
const (
	Undecided Verdict = iota // they may become a request's first line
	Likely                   // they begin like one, with a method that servers know
	IsRequest                // an HTTP request, or what some server takes for one
	Other                    // another protocol
)

// FirstLine tells whether a client's first bytes are an HTTP request, in the loosest
// way that some server reads: blanks first, any blank between the words, any method,
// however long. A whole line without an HTTP version is another protocol (SMTP, Redis,
// an SSH banner), and so is one with bytes that no request line has. It looks at each
// byte once while the line comes, and once more at the end. Its zero value is ready.
type FirstLine struct {
	at      int // bytes looked at
	start   int // of the first word
	inWord  bool
	pastOne bool // behind the first word
	method  bool // which is a method that servers know
	verdict Verdict

	looked int // bytes looked at, which tests count
}

// Look takes all bytes so far: those of the call before, and more.
func (l *FirstLine) Look(b []byte) Verdict {
	for ; l.at < len(b) && l.verdict < IsRequest; l.at++ {
		l.looked++
		l.step(b, b[l.at])
	}
	if l.inWord && l.verdict < IsRequest {
		l.verdict = Undecided
		if beginsMethod(b[l.start:]) {
			l.verdict = Likely
		}
	}
	return l.verdict
}

func (l *FirstLine) step(b []byte, c byte) {
	switch {
	case l.pastOne && c == '\n':
		l.looked += l.at - l.start
		l.verdict = Other
		if isRequestLine(b[l.start:l.at]) {
			l.verdict = IsRequest
		}
	case l.pastOne:
		// Git's protocol has a NUL in its first line and no line end.
		if isControl(c) && !l.method {
			l.verdict = Other
		}
	case isTokenByte(c):
		if !l.inWord {
			l.inWord, l.start = true, l.at
		}
	case !l.inWord && (isBlank(c) || c == '\n'):
	case l.inWord && isBlank(c):
		word := string(b[l.start:min(l.at, l.start+16)])
		l.inWord, l.pastOne = false, true
		l.method, l.verdict = isMethod(word), Undecided
		if l.method {
			l.verdict = Likely
		}
	default:
		l.verdict = Other
	}
}

// Looks reports what FirstLine finds in b; maybe means that more bytes are needed to
// tell.
func Looks(b []byte) (yes, maybe bool) {
	v := new(FirstLine).Look(b)
	return v == IsRequest, v < IsRequest
}

// isRequestLine reports whether some server takes a whole first line for a request's.
func isRequestLine(line []byte) bool { return hasVersion(line) || isBareRequest(line) }

// hasVersion reports whether a word behind the first is an HTTP version.
func hasVersion(line []byte) bool {
	word, rest := nextWord(line)
	if len(word) == 0 {
		return false
	}
	for {
		i := bytes.IndexByte(rest, '/')
		if i < 0 {
			return false
		}
		if i >= 5 && isBlank(rest[i-5]) && bytes.EqualFold(rest[i-4:i], []byte("HTTP")) {
			return true
		}
		rest = rest[i+1:]
	}
}

// isBareRequest reports whether a line is a request without an HTTP version: HTTP/0.9,
// which the parser refuses, or one with a host in it, whatever version it has. Without
// a host it is taken for HTTP/0.9 only as that is written: memcached has "get /key".
func isBareRequest(line []byte) bool {
	method, rest := nextWord(line)
	target, rest := nextWord(rest)
	if len(target) == 0 || len(method) > longestMethod || !isMethod(strings.ToUpper(string(method))) && !slices.Contains(rareMethods, string(method)) {
		return false
	}
	third, _ := nextWord(rest)
	return len(third) == 0 && isMethod(string(method)) && target[0] == '/' ||
		len(target) >= 4 && bytes.EqualFold(target[:4], []byte("http"))
}

// methods are those that servers know.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}

// rareMethods are others that some servers know (IANA's registry, Node, Icecast), as they are written.
var rareMethods = []string{
	"ACL", "ANNOUNCE", "BIND", "CHECKIN", "CHECKOUT", "COPY", "DESCRIBE", "LABEL", "LINK", "LOCK", "M-SEARCH", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF",
	"MKWORKSPACE", "MOVE", "NOTIFY", "ORDERPATCH", "PRI", "PROPFIND", "PROPPATCH", "PURGE", "QUERY", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNCHECKOUT",
	"UNLINK", "UNLOCK", "UNSUBSCRIBE", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL",
}

// longestMethod is the length of the longest of them, in bytes.
const longestMethod = 17

// isMethod reports whether servers know a method.
func isMethod(word string) bool {
	for _, m := range methods {
		if word == m {
			return true
		}
	}
	return false
}

// beginsMethod reports whether a word of two letters or more is a method or the
// beginning of one.
func beginsMethod(word []byte) bool {
	if len(word) < 2 {
		return false
	}
	for _, m := range methods {
		if len(word) <= len(m) && m[:len(word)] == string(word) {
			return true
		}
	}
	return false
}
