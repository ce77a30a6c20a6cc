package inspect

import (
	"bytes"

	"bawn.dev/bawn/internal/secret"
)

// depth is how many layers of escapes a placeholder may be under, and one more.
const depth = 3

// needles are the forms of all placeholders of a sandbox. A placeholder has no characters
// that an escape would change.
type needles struct {
	*finder
	names []string // of the secrets, for each of the finder's texts
	keep  int      // bytes that may be the beginning of any of them
}

// needlesOf returns the forms of these secrets' placeholders.
func needlesOf(list []secret.Bound) *needles {
	n := &needles{}
	var texts [][]byte
	for _, b := range list {
		for _, p := range b.Placeholders() {
			for _, f := range append(encoded([]byte(p)), []byte(p)) {
				texts, n.names, n.keep = append(texts, f), append(n.names, b.Name), max(n.keep, len(f)-1)
			}
		}
	}
	n.finder = newFinder(texts)
	return n
}

// scanner looks for placeholders in a stream, as it is and with layers of escapes taken off.
type scanner struct {
	all    *needles
	layers [depth]layer
}

// layer is the stream with some layers of escapes taken off. One without a window of its own
// is the same as the layer before it: no escape has come so far.
type layer struct {
	own    bool
	window []byte // its latest bytes
	rest   []byte // the beginning of an escape
}

func newScanner(all *needles) *scanner {
	s := &scanner{all: all}
	s.layers[0].own = true
	return s
}

// feed takes the next bytes of the stream, and returns the name of the secret whose
// placeholder is whole with them; "" if there is none. final: no more come.
func (s *scanner) feed(b []byte, final bool) string {
	for i := range s.layers {
		l := &s.layers[i]
		before := len(l.window)
		l.window = append(l.window, b...)
		if at, which := s.all.find(l.window); at >= 0 {
			return s.all.names[which]
		}
		if i+1 < depth {
			next := &s.layers[i+1]
			if !next.own && hasEscape(b) {
				next.own, next.window = true, bytes.Clone(l.window[:before])
			}
			if next.own {
				var rest []byte
				b, rest = unescape(nil, append(l.rest, b...), final)
				l.rest = bytes.Clone(rest)
			}
		}
		if over := len(l.window) - s.all.keep; over > 0 {
			l.window = append(l.window[:0], l.window[over:]...)
		}
		if i+1 < depth && !s.layers[i+1].own {
			return ""
		}
	}
	return ""
}

// carries returns the name of a secret whose placeholder is in a text, or "".
func carries(all *needles, text string) string {
	return newScanner(all).feed([]byte(text), true)
}
