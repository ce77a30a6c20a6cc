package inspect

import "bytes"

// finder finds any of several texts in one pass, by the algorithm of Wu and Manber (A fast
// algorithm for multi-pattern searching, 1994): it looks at two bytes at the end of a window
// that is as long as the shortest text, and moves the window on by as much as no text that
// has these bytes could be passed over. Where that is nothing, it compares the texts that have them
// at that place. It does not change once made.
type finder struct {
	texts  [][]byte
	window int // length of the shortest text
	shift  [shiftSize]uint8
	// The texts with the same two bytes at the end of the window are a list: first, and for each
	// text the next one. The numbers are one more than an index; 0 ends a list.
	first [shiftSize]uint16
	next  []uint16
}

// shiftSize is the number of hashes of two bytes, a power of two.
const shiftSize = 4 << 10

// block is how many bytes are looked at.
const block = 2

// shiftOf returns the index of two bytes in the table.
func shiftOf(a, b byte) int { return (int(a)<<5 ^ int(b)) & (shiftSize - 1) }

// newFinder returns a finder of texts of at least block bytes each.
func newFinder(texts [][]byte) *finder {
	f := &finder{texts: texts}
	for _, t := range texts {
		if f.window == 0 || len(t) < f.window {
			f.window = len(t)
		}
	}
	f.window = min(f.window, 255) // a shift is a byte
	for i := range f.shift {
		f.shift[i] = uint8(max(f.window-block+1, 0)) // at most 254
	}
	for _, t := range texts {
		h := shiftOf(t[f.window-2], t[f.window-1])
		f.next = append(f.next, f.first[h])
		f.first[h] = uint16(len(f.next))
		for end := block; end <= f.window; end++ {
			h := shiftOf(t[end-2], t[end-1])
			f.shift[h] = min(f.shift[h], uint8(f.window-end)) // at most 253
		}
	}
	return f
}

// find returns where the first text begins in b, and which it is: of several that begin there
// the longest. at is -1 if there is none.
func (f *finder) find(b []byte) (at, which int) {
	if len(f.texts) == 0 {
		return -1, -1
	}
	for at = 0; at+f.window <= len(b); {
		end := at + f.window
		h := shiftOf(b[end-2], b[end-1])
		if s := f.shift[h]; s > 0 {
			at += int(s)
			continue
		}
		which = -1
		for i := int(f.first[h]) - 1; i >= 0; i = int(f.next[i]) - 1 {
			if t := f.texts[i]; bytes.HasPrefix(b[at:], t) && (which < 0 || len(t) >= len(f.texts[which])) {
				which = i // of equal ones the first
			}
		}
		if which >= 0 {
			return at, which
		}
		at++
	}
	return -1, -1
}
