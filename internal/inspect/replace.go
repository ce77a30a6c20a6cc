package inspect

import (
	"bytes"
	"io"
)

// swap replaces one text by another.
type swap struct{ from, to []byte }

// swapAll returns b with each text replaced. Unless final is set, rest is the end of b that
// may be the beginning of one of the texts, and is not in out. hits is how many were replaced.
func swapAll(swaps []swap, b []byte, final bool) (out, rest []byte, hits int) {
	for {
		at, which := -1, -1
		for i, s := range swaps {
			limit := b
			if at >= 0 { // only an earlier one counts, or a longer one at the same place
				limit = b[:min(len(b), at+len(s.from))]
			}
			if j := bytes.Index(limit, s.from); j >= 0 && (at < 0 || j < at || j == at && len(s.from) > len(swaps[which].from)) {
				at, which = j, i
			}
		}
		if at < 0 {
			break
		}
		out = append(append(out, b[:at]...), swaps[which].to...)
		b = b[at+len(swaps[which].from):]
		hits++
	}
	hold := 0
	if !final {
		hold = begun(swaps, b)
	}
	return append(out, b[:len(b)-hold]...), b[len(b)-hold:], hits
}

// begun returns the length of the longest end of b that one of the texts begins with.
func begun(swaps []swap, b []byte) (longest int) {
	for _, s := range swaps {
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
	swaps []swap
	done  func() // called at the end of the stream, before io.EOF is returned; may be nil

	in, out []byte
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
		out, rest, _ := swapAll(r.swaps, r.in, err != nil)
		r.out, r.in = out, append(r.in[:0], rest...)
		if err == io.EOF && r.done != nil {
			r.done()
		}
		r.err = err
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}
