package inspect

import (
	"bytes"

	"bawn.dev/bawn/internal/secret"
)

// depth is how many layers of escapes are taken off before a placeholder is looked for.
const depth = 3

// needle is a form of a placeholder.
type needle struct {
	text []byte
	name string // of the secret
}

// needles returns the forms of all placeholders of a sandbox. A placeholder has no characters
// that an escape would change.
func needles(list []secret.Bound) (all []needle) {
	for _, b := range list {
		all = append(all, needle{[]byte(b.Placeholder), b.Name})
		for _, f := range encoded([]byte(b.Placeholder)) {
			all = append(all, needle{f, b.Name})
		}
	}
	return all
}

// scanner looks for placeholders in a stream, under up to depth layers of escapes.
type scanner struct {
	layers [depth]layer
	all    []needle
	keep   int // bytes of each layer that are looked at again with the next ones
}

// layer is the stream with some layers of escapes taken off.
type layer struct {
	window []byte // its latest bytes
	rest   []byte // the beginning of an escape
}

func newScanner(all []needle) *scanner {
	s := &scanner{all: all}
	for _, n := range all {
		s.keep = max(s.keep, len(n.text)-1)
	}
	return s
}

// feed takes the next bytes of the stream, and returns the name of the secret whose
// placeholder is whole with them; "" if there is none. final: no more come.
func (s *scanner) feed(b []byte, final bool) string {
	for i := range s.layers {
		l := &s.layers[i]
		l.window = append(l.window, b...)
		for _, n := range s.all {
			if bytes.Contains(l.window, n.text) {
				return n.name
			}
		}
		if over := len(l.window) - s.keep; over > 0 {
			l.window = append(l.window[:0], l.window[over:]...)
		}
		if i+1 < depth {
			next, rest := unescape(nil, append(l.rest, b...), final)
			l.rest = bytes.Clone(rest)
			b = next
		}
	}
	return ""
}

// carries returns the name of a secret whose placeholder is in a text, or "".
func carries(all []needle, text string) string {
	return newScanner(all).feed([]byte(text), true)
}
