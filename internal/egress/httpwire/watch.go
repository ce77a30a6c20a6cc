package httpwire

import (
	"bytes"
	"strconv"
)

// Watch looks for HTTP requests in bytes that pass as another protocol. Some servers
// take for a request what FirstLine does not ("POST / RTSP/1.1"), or pass over lines
// before one. What it finds:
//   - a request line with an HTTP version, behind whatever came before it;
//   - a Host field with another host, in lines behind one that is like a request's:
//     a method that servers know, or a word, then a path or an address, then a word.
//     From such a line on all lines are looked at, for a server that took it for a
//     request may find the next one behind a body, in the middle of a line.
//   - the same in a head behind a line that only a careless server takes for a request's, see careless.
//
// It holds nothing back: a line is judged when its end comes, which may not pass then,
// and no server acts on a request without its end. Lines of other protocols, and
// binary bytes, cost one search for their end. Its memory is MaxHead bytes at most.
//
// Use it for one direction of one connection, from one goroutine at a time.
type Watch struct {
	// Host is asked about the value of each Host field; its error refuses it.
	Host func(authority string) error

	line    []byte // what is there of the current line, while it may be a request's
	at      int    // bytes of it that were looked at
	place   place
	long    bool // of line, only the end is there
	request bool // a line like a request's has come
	looked  int  // bytes looked at one by one, which tests count
	bulk    int  // bytes of the next line, where it is announced as in Redis
	host    bool // the last line was a Host field without a value, which may stand in the next one

	start []byte // the beginning of the current line, if it began before the bytes of this call
	head  bool   // a line that few servers take for a request's has come, and its head goes on
	body  bool   // the head announces a body, so that the next request may begin in the middle of a line
}

// longestStart bounds what is looked at of a line that only careless servers take for a request's, in bytes.
const longestStart = 512

// place is how far the reader of a line is.
type place int

const (
	before   place = iota // the first word
	inFirst               // within the first word
	between               // behind it
	inSecond              // within the second word, which may be an address
	found                 // the line is like a request's
	passed                // it is not
)

// Feed looks at the next bytes. Its error, an *Error, means that they may not pass.
func (w *Watch) Feed(b []byte) error {
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n') + 1
		whole := n > 0
		if !whole {
			n = len(b)
		}
		if err := w.part(b[:n], whole); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// End judges a last line without its end, for some servers take it as whole.
func (w *Watch) End() error {
	if len(w.line) == 0 {
		return nil
	}
	return w.part([]byte("\n"), true)
}

// part takes a part of a line; whole: its end is there.
func (w *Watch) part(b []byte, whole bool) error {
	if err := w.careless(b, whole); err != nil {
		return err
	}
	line := b
	if len(w.line) > 0 {
		w.line = append(w.line, b...)
		line = w.line
	}
	if !w.request {
		line = w.look(line)
	}
	if whole {
		var err error
		if w.request || w.place == found {
			err = w.judge(line)
		}
		w.line, w.at, w.place, w.long = w.line[:0], 0, before, false
		return err
	}
	switch {
	case w.request:
	case w.place == before:
		line, w.at = nil, 0
	case w.place == passed:
		line = nil
	}
	if len(line) > MaxHead {
		return w.shorten(line)
	}
	if len(w.line) > 0 && len(line) > 0 {
		w.line = line // with w.line at its beginning
	} else {
		w.line = append(w.line[:0], line...)
	}
	return nil
}

// careless takes a part of a line. Some servers take any three words for a request's first line, if the second
// has a slash: "GET\x00 http:/x HTTP /1.1". Lines of text are like that, too. So up to the next empty line only
// Host fields are looked for, and a version of HTTP as the third word. Most lines, binary ones among
// them, cost a few searches for one byte.
func (w *Watch) careless(b []byte, whole bool) error {
	if len(w.start) > 0 || !whole {
		w.start = append(w.start, b[:min(len(b), longestStart-len(w.start))]...)
		b = w.start
	}
	if !whole {
		return nil
	}
	defer func() { w.start = w.start[:0] }()
	b = b[:min(len(b), longestStart)]
	if w.head && !w.request {
		if err := w.fieldsOf(b); err != nil {
			return err
		}
		w.head = w.body || len(b) > 2 || len(bytes.TrimFunc(b, isSpace)) > 0
	}
	slash := bytes.IndexByte(b, '/')
	if slash <= 0 || !hasBlank(b[:slash]) {
		return nil
	}
	_, rest := nextWord(b)
	second, rest := nextWord(rest)
	third, _ := nextWord(rest)
	switch {
	case len(third) == 0 || bytes.IndexByte(second, '/') < 0:
	case isVersion(third):
		return errHidden
	default:
		w.head = true
	}
	return nil
}

// hasBlank reports whether a blank that careless servers know is in b.
func hasBlank(b []byte) bool { return bytes.IndexByte(b, ' ') >= 0 || bytes.IndexByte(b, '\t') >= 0 }

// isVersion reports whether a word begins like a version of HTTP.
func isVersion(word []byte) bool {
	return len(word) >= 5 && bytes.EqualFold(word[:5], []byte("HTTP/"))
}

// fieldsOf judges the fields in a line, of which some servers take each carriage return for an end.
func (w *Watch) fieldsOf(line []byte) error {
	for len(line) > 0 {
		part := line
		if i := bytes.IndexByte(line, '\r'); i >= 0 {
			part, line = line[:i], line[i+1:]
		} else {
			line = nil
		}
		if len(part) == 0 || part[0] == '\n' {
			continue
		}
		if err := w.field(part); err != nil {
			return err
		}
	}
	return nil
}

// look finds the place in a line, of which it has seen w.at bytes, and returns the
// line from its first word on.
func (w *Watch) look(line []byte) []byte {
	for ; w.at < len(line) && w.place < found; w.at++ {
		c := line[w.at]
		blank := isBlank(c) || c == '\n'
		switch {
		case w.place == before && isTokenByte(c):
			line, w.at, w.place = line[w.at:], 0, inFirst
		case w.place == before && (blank || isControl(c) || c >= 0x80):
		case w.place == inFirst && isTokenByte(c):
		case w.place == inFirst && blank:
			w.place = between
		case w.place == between && blank:
		case w.place == between:
			w.second(line, c)
		case w.place == inSecond && !blank:
			w.authority(line, c)
		default:
			w.place = passed
		}
		w.looked++
	}
	return line
}

// authority finds the "//" behind a scheme in the second word, which makes it a URL.
func (w *Watch) authority(line []byte, c byte) {
	if c == '/' && bytes.HasSuffix(line[:w.at], []byte(":/")) {
		w.place = found
	}
}

// second judges the beginning of a second word.
func (w *Watch) second(line []byte, c byte) {
	end := 0
	for end < len(line) && isTokenByte(line[end]) {
		end++
	}
	switch {
	case c == '/', c == '*', end <= 7 && isMethod(string(line[:end])):
		w.place = found
	default:
		w.place = inSecond
	}
}

var errHidden = &Error{403, "an HTTP request after other bytes: only a rule with raw: allows this traffic"}

// judge judges a whole line that is like a request's, or comes behind one.
func (w *Watch) judge(line []byte) error {
	if hasVersion(line) || !w.long && isBareRequest(line) {
		return errHidden
	}
	if !w.request && !isLike(line) {
		return nil
	}
	announced := w.bulk > 0 && len(bytes.TrimRight(line, "\r\n")) == w.bulk
	w.request, w.bulk = true, 0
	if w.long || announced {
		return nil
	}
	if n, err := strconv.Atoi(string(bytes.TrimRight(bytes.TrimPrefix(line, []byte("$")), "\r\n"))); err == nil && line[0] == '$' {
		w.bulk = n
	}
	return w.fieldsOf(line)
}

// field judges a line of a head, if it is a Host field.
func (w *Watch) field(line []byte) error {
	if w.host && isBlank(line[0]) {
		line = append([]byte("host:"), line...)
	}
	w.host = false
	if !mayBeField(line) {
		return nil
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) < 4 {
		return nil
	}
	switch name = bytes.TrimFunc(name, isSpace); {
	case bytes.EqualFold(name, []byte("host")):
		if value = bytes.TrimFunc(value, isSpace); len(value) > 0 {
			return w.Host(string(value))
		}
		w.host = true
	case bytes.EqualFold(name, []byte("content-length")), bytes.EqualFold(name, []byte("transfer-encoding")):
		w.body = true
	}
	return nil
}

// mayBeField reports whether a line may begin with one of the names that field looks for.
func mayBeField(line []byte) bool {
	for _, c := range line {
		if c > ' ' {
			c |= 0x20
			return c == 'h' || c == 'c' || c == 't'
		}
	}
	return false
}

func isSpace(r rune) bool { return r <= ' ' }

// isLike reports whether some server takes a line with no HTTP version in it for a
// request's: a method that servers know, or an unknown one with something behind the
// path. No request line has control characters, but lines of binary bytes do.
func isLike(line []byte) bool {
	if bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' && isControl(byte(r)) }) {
		return false
	}
	method, rest := nextWord(line)
	_, rest = nextWord(rest)
	third, _ := nextWord(rest)
	return len(third) > 0 || len(method) <= 7 && isMethod(string(method))
}

// shorten forgets all but the end of a line that is too long to keep, once it is
// judged.
func (w *Watch) shorten(line []byte) error {
	if hasVersion(line) {
		return errHidden
	}
	if !w.request && w.place < found { // a word that is too long for a method
		w.place, w.line = passed, nil
		return nil
	}
	w.request, w.long = true, true
	w.line = append([]byte("x"), line[len(line)-16:]...)
	return nil
}
