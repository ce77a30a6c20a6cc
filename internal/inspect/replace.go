package inspect

import (
	"bytes"
	"errors"
	"io"
)

// swap replaces one text by another.
type swap struct{ from, to []byte }

// swaps are replacements, and the finder of what they replace.
type swaps struct {
	*finder
	list []swap
}

func newSwaps(list []swap) *swaps {
	var texts [][]byte
	for _, s := range list {
		texts = append(texts, s.from)
	}
	return &swaps{newFinder(texts), list}
}

// all returns b with each text replaced. Unless final is set, rest is the end of b that
// may be the beginning of one of the texts, and is not in out. hits is how many were
// replaced. out is appended to dst.
func (s *swaps) all(dst, b []byte, final bool) (out, rest []byte, hits int) {
	for {
		at, which := s.find(b)
		if at < 0 {
			break
		}
		dst = append(append(dst, b[:at]...), s.list[which].to...)
		b = b[at+len(s.list[which].from):]
		hits++
	}
	hold := 0
	if !final {
		hold = begun(s.list, b)
	}
	return append(dst, b[:len(b)-hold]...), b[len(b)-hold:], hits
}

// begun returns the length of the longest end of b that one of the texts begins with.
func begun(list []swap, b []byte) (longest int) {
	for _, s := range list {
		for n := min(len(s.from)-1, len(b)); n > longest; n-- {
			if bytes.HasSuffix(b, s.from[:n]) {
				longest = n
			}
		}
	}
	return longest
}

// swapReader replaces texts in a stream. It passes on each read at once, but for bytes that
// may be the beginning of a text.
type swapReader struct {
	src   io.Reader
	swaps *swaps
	done  func() // called at the end of the stream, before io.EOF is returned; may be nil

	in, out []byte
	whole   []byte // of which out is the end
	buf     []byte
	err     error
}

// swapBuffer is the read buffer of a swapReader, in bytes.
const swapBuffer = 32 << 10

// Read implements io.Reader.
func (r *swapReader) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		if r.buf == nil {
			r.buf = make([]byte, swapBuffer)
		}
		n, err := r.src.Read(r.buf)
		r.in = append(r.in, r.buf[:n]...)
		out, rest, _ := r.swaps.all(r.whole[:0], r.in, err != nil)
		r.out, r.whole, r.in = out, out, append(r.in[:0], rest...)
		if errors.Is(err, io.EOF) && r.done != nil {
			r.done()
		}
		r.err = err
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}
