// Package lines reads lines of bounded length from peers that are not trusted.
package lines

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ErrTooLong means that a line is longer than its limit.
var ErrTooLong = errors.New("line too long")

// Read returns the next line with its newline. A line of more than limit bytes,
// newline included, is ErrTooLong; the reader is then somewhere within that line.
// At the end of the input it returns what is left of it, which has no newline, and
// io.EOF; other errors also come with what was read. The slice is the caller's.
func Read(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// ReadExact returns the next line without its newline, and takes no byte behind the
// newline from r, so that another reader can continue there. It reads byte by byte: use
// it for short lines only. A line of more than limit bytes, newline included, is
// ErrTooLong; input that ends within the line is io.ErrUnexpectedEOF, or io.EOF where
// there was none.
func ReadExact(r io.Reader, limit int) ([]byte, error) {
	var line []byte
	var one [1]byte
	for len(line) < limit {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if one[0] == '\n' {
			return line, nil
		}
		line = append(line, one[:]...)
	}
	return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
}

// A Splitter cuts what is written to it into lines. The zero value is not useful: Each
// and Limit must be set. Use it from one goroutine at a time.
type Splitter struct {
	// Each is called with each whole line, without its newline. The slice is valid
	// until Each returns. Its error ends the Write.
	Each func(line []byte) error
	// Limit is the longest line in bytes, without its newline. Longer ones are left out, or
	// cut if Cut is set.
	Limit int
	Cut   bool

	part []byte // the line that has not ended
	skip bool   // it is too long
}

// Write cuts b. It returns len(b), or 0 and the error of Each.
func (s *Splitter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		b = rest
		if s.Cut {
			line = line[:min(len(line), s.Limit-len(s.part))]
		}
		if s.skip = s.skip || len(s.part)+len(line) > s.Limit; s.skip {
			s.part = s.part[:0]
		} else {
			s.part = append(s.part, line...)
		}
		if !ended {
			break
		}
		if err := s.end(); err != nil {
			return 0, err
		}
	}
	return n, nil
}

func (s *Splitter) end() error {
	line, skip := s.part, s.skip
	s.part, s.skip = s.part[:0], false
	if skip {
		return nil
	}
	return s.Each(line)
}

// Rest returns the line that has not ended yet, empty where there is none or where
// it is too long. The slice is valid until the next Write.
func (s *Splitter) Rest() []byte { return s.part }

// Reset forgets the line that has not ended yet, for a Splitter that continues with
// another stream.
func (s *Splitter) Reset() { s.part, s.skip = s.part[:0], false }
