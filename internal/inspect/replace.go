package inspect

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"time"
)

// swap replaces one text by another.
type swap struct {
	from, to []byte
	// counts is the number of bytes from which on a beginning of from is counted as a guess; a shorter
	// one is held for a moment only (hold.go).
	counts int
}

// swaps are replacements, and the finder of what they replace.
type swaps struct {
	*finder
	list     []swap
	patterns []pattern     // the finder has their anchors behind the texts of list
	longest  int           // bytes of the longest text that is replaced
	passing  int           // bytes of the longest beginning that passes
	guesses  *guesses      // of the host; nil: they are not counted
	pause    time.Duration // how long a beginning is held that may be a coincidence; 0: until more comes
}

func newSwaps(list []swap, patterns []pattern) *swaps {
	s := &swaps{list: list, patterns: patterns}
	var texts [][]byte
	for _, one := range list {
		texts, s.longest, s.passing = append(texts, one.from), max(s.longest, len(one.from)), max(s.passing, one.counts-1)
	}
	for _, p := range patterns {
		texts, s.longest, s.passing = append(texts, p.anchor()), max(s.longest, p.longest()), max(s.passing, longestNested*p.counts) // behind one that is cut there may be a part of an escape
	}
	s.finder = newFinder(texts)
	return s
}

// sameLength reports whether no replacement changes a length.
func (s *swaps) sameLength() bool {
	return !slices.ContainsFunc(s.list, func(s swap) bool { return len(s.from) != len(s.to) }) &&
		!slices.ContainsFunc(s.patterns, func(p pattern) bool { return len(p.with) != len(p.value) })
}

// next returns where the first text that is replaced begins and ends in b, and what replaces it;
// ok is false if there is none.
func (s *swaps) next(b []byte) (start, end int, to []byte, ok bool) {
	for from := 0; ; {
		at, which := s.find(b[from:])
		if at < 0 {
			return 0, 0, nil, false
		}
		at += from
		if which < len(s.list) {
			return at, at + len(s.list[which].from), s.list[which].to, true
		}
		for _, p := range s.patterns {
			if start, end, ok := p.around(b, at); ok {
				return start, end, p.replacement(end - start), true
			}
		}
		from = at + 1
	}
}

// all returns a whole text with each text in it replaced, and how many were.
func (s *swaps) all(b []byte) (out []byte, hits int) {
	for {
		start, end, to, ok := s.next(b)
		if !ok {
			return append(out, b...), hits
		}
		out = append(append(out, b[:start]...), to...)
		b = b[end:]
		hits++
	}
}

// begun returns the length of the longest end of b that is the beginning of a text, and whether one of
// these beginnings is too long for a coincidence.
func (s *swaps) begun(b []byte) (longest int, sure bool) {
	if len(b) == 0 {
		return 0, false
	}
	for i := range s.list {
		one := &s.list[i]
		for n := min(len(one.from)-1, len(b)); n > 0; n-- {
			if one.from[n-1] == b[len(b)-1] && bytes.HasSuffix(b, one.from[:n]) {
				longest, sure = max(longest, n), sure || n >= one.counts
				break
			}
		}
	}
	for i := range s.patterns {
		n, is := s.patterns[i].begun(b)
		longest, sure = max(longest, n), sure || is
	}
	return longest, sure
}

// swapSource reads from src and replaces texts in what it reads. It is used by one goroutine.
type swapSource struct {
	in  pausing
	s   stream
	buf []byte
}

func newSwapSource(src io.Reader, s *swaps) swapSource {
	return swapSource{in: pausing{src: src}, s: newStream(s)}
}

// next returns what may pass next, which is valid until the next call and may be empty, and how
// many texts were replaced in it. Each read passes at once, but for what stream holds.
func (r *swapSource) next() (out []byte, hits int, err error) {
	b, late, err := r.in.next(r.s.patience())
	if late {
		r.buf = r.s.release(r.buf[:0])
	} else {
		r.buf, hits = r.s.feed(r.buf[:0], b, err != nil)
	}
	return r.buf, hits, err
}

// swapReader is a swapSource as an io.Reader.
type swapReader struct {
	swapSource
	done func() // called at the end of the stream, before io.EOF is returned; may be nil
	out  []byte // passes next
	err  error  // behind out
}

func newSwapReader(src io.Reader, s *swaps, done func()) swapReader {
	return swapReader{swapSource: newSwapSource(src, s), done: done}
}

// Read implements io.Reader.
func (r *swapReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.out, _, r.err = r.next()
		if errors.Is(r.err, io.EOF) && r.done != nil {
			r.done()
		}
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}
