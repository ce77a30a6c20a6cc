package httpwire

import (
	"bufio"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"

	"bawn.dev/bawn/internal/sys/lines"
)

const (
	// maxChunkLine bounds a chunk's size line with its extensions, in bytes.
	maxChunkLine = 4 << 10
	// maxTrailer bounds the trailer of a chunked body, in bytes.
	maxTrailer = 16 << 10
)

// FlushReader flushes a writer before a read that may block, so that nothing waits
// for a whole body.
type FlushReader struct {
	R io.Reader
	W *bufio.Writer // nil: there is nothing to flush yet
}

// Read implements io.Reader. A failed flush is a *WriteError.
func (f *FlushReader) Read(b []byte) (int, error) {
	if f.W != nil && f.W.Buffered() > 0 {
		if err := f.W.Flush(); err != nil {
			return 0, &WriteError{Err: err}
		}
	}
	return f.R.Read(b)
}

// WriteError is an error of a write, to tell it from one of a read.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }

// Unwrap returns the error of the write.
func (e *WriteError) Unwrap() error { return e.Err }

// CopyRest copies until the source ends; it always returns an error, io.EOF at
// best.
func CopyRest(w *bufio.Writer, r *bufio.Reader) error {
	for {
		if err := copyBuffered(w, r, 1<<62, nil); err != nil {
			return err
		}
	}
}

// copyBuffered waits for at least a byte and copies what is there, n at most, if
// watch, unless it is nil, lets it pass.
func copyBuffered(w *bufio.Writer, r *bufio.Reader, n int64, watch *BodyWatch) error {
	if _, err := r.Peek(1); err != nil {
		return err
	}
	b, err := r.Peek(int(min(int64(r.Buffered()), n)))
	if err != nil {
		return err
	}
	if err := watch.data(b); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return &WriteError{Err: err}
	}
	_, err = r.Discard(len(b))
	return err
}

// CopyLength copies n bytes; io.EOF if there are fewer.
func CopyLength(w *bufio.Writer, r *bufio.Reader, n int64) error {
	return copyLength(w, r, n, nil)
}

// CopyBody copies a request's body of a length as ParseRequest found it, read strictly.
// Errors are *Error, also those of watch, *WriteError, or those of r.
func CopyBody(w *bufio.Writer, r *bufio.Reader, length int64, watch *BodyWatch) error {
	var err error
	if length == LengthChunked {
		err = copyChunked(w, r, true, watch)
	} else {
		err = copyLength(w, r, length, watch)
	}
	if err != nil {
		return err
	}
	return watch.end()
}

func copyLength(w *bufio.Writer, r *bufio.Reader, n int64, watch *BodyWatch) error {
	for n > 0 {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		part := min(int64(r.Buffered()), n)
		if err := copyBuffered(w, r, part, watch); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// CopyChunked copies a chunked body with its trailer (RFC 9112, 7.1). strict
// writes sizes anew, without extensions, and refuses a trailer that changes what
// the head said.
func CopyChunked(w *bufio.Writer, r *bufio.Reader, strict bool) error {
	return copyChunked(w, r, strict, nil)
}

func copyChunked(w *bufio.Writer, r *bufio.Reader, strict bool, watch *BodyWatch) error {
	for {
		line, err := readLine(r, maxChunkLine)
		if err != nil {
			return err
		}
		n, err := chunkSize(line, strict)
		if err != nil {
			return err
		}
		if strict {
			line = strconv.AppendInt(nil, n, 16)
			line = append(line, "\r\n"...)
		}
		if err := watch.framing(line); err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return &WriteError{Err: err}
		}
		if n == 0 {
			return copyTrailer(w, r, strict, watch)
		}
		if err := copyLength(w, r, n, watch); err != nil {
			return err
		}
		end, err := readLine(r, 2)
		if err != nil {
			return err
		}
		if string(end) != "\r\n" && (strict || string(end) != "\n") {
			return Malformed("a chunk does not end where it should")
		}
		if err := watch.framing(end); err != nil {
			return err
		}
		if _, err := w.Write(end); err != nil {
			return &WriteError{Err: err}
		}
	}
}

// chunkSize reads a chunk's size line.
func chunkSize(line []byte, strict bool) (int64, error) {
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		if strict {
			return 0, Malformed("a chunk's size must end in CR LF")
		}
		text = strings.TrimSuffix(text, "\n")
	}
	digits, ext, _ := strings.Cut(text, ";")
	digits = strings.TrimRight(digits, " \t")
	if len(digits) == 0 || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" || strings.ContainsAny(ext, "\r\x00") {
		return 0, Malformed("a malformed chunk size")
	}
	n, err := strconv.ParseInt(digits, 16, 64)
	if strict && n > math.MaxInt32 { // a server that counts in 32 bits would find another end
		return 0, Malformed("a chunk longer than %d bytes", math.MaxInt32)
	}
	return n, err
}

// copyTrailer copies the fields after the last chunk, and the empty line.
func copyTrailer(w *bufio.Writer, r *bufio.Reader, strict bool, watch *BodyWatch) error {
	for total := 0; ; {
		line, err := readLine(r, maxTrailer)
		if err != nil {
			return err
		}
		if total += len(line); total > maxTrailer {
			return Malformed("a trailer longer than %d bytes", maxTrailer)
		}
		end := string(line) == "\r\n" || !strict && string(line) == "\n"
		if strict && !end {
			if err := checkTrailerLine(string(line), watch); err != nil {
				return err
			}
		}
		if _, err := w.Write(line); err != nil {
			return &WriteError{Err: err}
		}
		if end {
			return nil
		}
	}
}

// checkTrailerLine refuses a field that changes what the head said.
func checkTrailerLine(line string, watch *BodyWatch) error {
	line, ok := strings.CutSuffix(line, "\r\n")
	if !ok {
		return Malformed("lines of a trailer must end in CR LF")
	}
	f, err := parseField(line)
	if err != nil {
		return err
	}
	switch f.canonical() {
	case "host", "content-length", "transfer-encoding", "connection", "upgrade", "trailer":
		return Malformed("a trailer with %s", f.Name)
	}
	return watch.field(f)
}

// readLine reads a line with its end, of limit bytes at most.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	line, err := lines.Read(r, limit)
	if errors.Is(err, lines.ErrTooLong) {
		return nil, Malformed("a line longer than %d bytes in a chunked body", limit)
	}
	return line, err
}
