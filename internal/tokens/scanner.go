package tokens

import "strings"

const (
	// maxKey bounds the key of an object that is compared, in bytes. It is longer than every key in
	// apis.
	maxKey = 32
	// maxNesting bounds the objects and arrays that are open around a number.
	maxNesting = 8
)

// node is a place in a JSON document: an object on the way to numbers, or a number.
type node struct {
	next  map[string]*node // by key; nil: it is a number
	field int              // the number's index in API.Fields
}

// treeOf returns the places of the numbers of an API.
func treeOf(a *API) *node {
	top := &node{next: map[string]*node{}}
	for _, root := range a.Roots {
		for i, f := range a.Fields {
			n := top
			keys := strings.Split(root+"."+f.Path, ".")
			for _, k := range keys[:len(keys)-1] {
				if n.next[k] == nil {
					n.next[k] = &node{next: map[string]*node{}}
				}
				n = n.next[k]
			}
			n.next[keys[len(keys)-1]] = &node{field: i}
		}
	}
	return top
}

// scanner finds the numbers at known places in a JSON document that comes byte by byte. It keeps
// the largest of each. What is not valid JSON is no error: it is skipped, and may hide numbers.
// Elements of an array at the top are documents themselves.
type scanner struct {
	top   *node
	found []int64 // by node.field; negative: none

	open  [maxNesting]*node // the objects and arrays around the next byte that lead to numbers; an array's is nil
	depth int               // of open
	skip  int               // depth within a value that leads to no number
	at    *node             // of the next value; nil: of no interest

	inString, escaped bool
	isKey             bool // the string is a key
	wantKey           bool // the next string of the object is a key
	key               [maxKey]byte
	keyLen            int // of key; maxKey+1: it is none of those that are known

	digits digits
	number int64
}

// digits is the state of the number that is being read.
type digits int

const (
	noNumber digits = iota
	goodNumber
	badNumber // negative, a fraction, too large, or no number
)

// reset begins a new document.
func (s *scanner) reset() {
	*s = scanner{top: s.top, found: s.found, at: s.top}
}

// feed takes the next byte of the document.
func (s *scanner) feed(c byte) {
	switch {
	case s.inString:
		s.stringByte(c)
	case s.skip > 0:
		s.skipByte(c)
	default:
		s.valueByte(c)
	}
}

// stringByte takes a byte behind the quote that opened a string.
func (s *scanner) stringByte(c byte) {
	switch {
	case s.escaped:
		s.escaped = false
	case c == '\\':
		s.escaped = true
		s.keyLen = maxKey + 1
	case c == '"':
		s.inString = false
	case s.isKey && s.keyLen < maxKey:
		s.key[s.keyLen] = c
		s.keyLen++
	default:
		s.keyLen = maxKey + 1
	}
}

// skipByte takes a byte in an object or array that leads to no number.
func (s *scanner) skipByte(c byte) {
	switch c {
	case '"':
		s.inString, s.isKey = true, false
	case '{', '[':
		s.skip++
	case '}', ']':
		s.skip--
	}
}

// valueByte takes a byte between the values and keys of an object that leads to numbers, or one of a
// number.
func (s *scanner) valueByte(c byte) {
	switch c {
	case ' ', '\t', '\n', '\r':
		s.endNumber()
	case '"':
		s.inString, s.isKey, s.keyLen = true, s.wantKey, 0
		s.wantKey = false
		s.digits = noNumber
	case ':':
		s.at = s.named()
	case '{', '[':
		s.enter(c)
	case '}', ']':
		s.endNumber()
		s.leave()
	case ',':
		s.endNumber()
		s.nextValue()
	default:
		s.digit(c)
	}
}

// named returns the place that the latest key leads to; nil if none.
func (s *scanner) named() *node {
	if s.depth == 0 || s.open[s.depth-1] == nil || !s.isKey || s.keyLen > maxKey {
		return nil
	}
	return s.open[s.depth-1].next[string(s.key[:s.keyLen])]
}

// enter begins an object or an array.
func (s *scanner) enter(c byte) {
	switch {
	case c == '[' && s.depth == 0 && s.at == s.top:
		s.open[0], s.depth = nil, 1
	case c == '{' && s.at != nil && s.at.next != nil && s.depth < maxNesting:
		s.open[s.depth] = s.at
		s.depth++
		s.wantKey, s.at = true, nil
	default:
		s.skip, s.at = 1, nil
	}
}

// leave ends an object or an array.
func (s *scanner) leave() {
	s.at, s.wantKey = nil, false
	if s.depth > 0 {
		s.depth--
	}
	if s.depth == 0 {
		s.at = s.top
	}
}

// nextValue begins what is behind a comma.
func (s *scanner) nextValue() {
	switch {
	case s.depth == 0 || s.open[s.depth-1] == nil:
		s.at = s.top
	default:
		s.at, s.wantKey = nil, true
	}
}

// digit takes a byte of a number, or of null, true or false.
func (s *scanner) digit(c byte) {
	switch {
	case s.digits == badNumber:
	case c < '0' || c > '9':
		s.digits = badNumber
	default:
		if s.digits == noNumber {
			s.number = 0
		}
		s.digits = goodNumber
		if s.number = s.number*10 + int64(c-'0'); s.number > maxTokens {
			s.digits = badNumber
		}
	}
}

// endNumber notes a number that has ended, if it is at a known place.
func (s *scanner) endNumber() {
	if s.digits == goodNumber && s.at != nil && s.at.next == nil {
		s.found[s.at.field] = max(s.found[s.at.field], s.number)
	}
	s.digits = noNumber
}
