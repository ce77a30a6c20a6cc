// Package bounded has a reader that fails once there is more than it may read, where io.LimitReader
// ends as if there were no more, and a writer that keeps the first bytes of what it gets.
package bounded

import "io"

// Writer keeps the first Max bytes that are written to it, and takes the others without keeping them. It
// is no bytes.Buffer, into which io.Copy would read without a bound (io.ReaderFrom). Only one goroutine may
// use it at a time.
type Writer struct {
	Max  int
	Kept []byte
	Over bool // there was more than Max
}

// Write never fails.
func (b *Writer) Write(p []byte) (int, error) {
	n := min(len(p), b.Max-len(b.Kept))
	b.Over = b.Over || n < len(p)
	b.Kept = append(b.Kept, p[:n]...)
	return len(p), nil
}

// Reader reads from R until more than Left bytes came, and then fails with Err.
type Reader struct {
	R    io.Reader
	Left int64
	Err  error
}

func (b *Reader) Read(p []byte) (int, error) {
	n, err := b.R.Read(p)
	if b.Left -= int64(n); b.Left < 0 {
		return 0, b.Err
	}
	return n, err
}
