// Package bounded has a reader that fails once there is more than it may read, where io.LimitReader
// ends as if there were no more.
package bounded

import "io"

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
