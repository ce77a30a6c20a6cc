// Package relay copies bytes between two connections.
package relay

import (
	"io"
	"sync"
)

// writeCloser ends one direction of a connection.
type writeCloser interface{ CloseWrite() error }

// Both copies both ways, passing on each side's end, until both have ended.
func Both(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	one := func(dst, src io.ReadWriteCloser) {
		defer wg.Done()
		if _, err := io.Copy(dst, src); err != nil {
			// Broken, not ended: the other way has no use either.
			a.Close()
			b.Close()
			return
		}
		if w, ok := dst.(writeCloser); ok {
			_ = w.CloseWrite() // gone is as good
			return
		}
		dst.Close() // a yamux stream: ends what we write, and still reads
	}
	wg.Add(2)
	go one(a, b)
	go one(b, a)
	wg.Wait()
	a.Close()
	b.Close()
}
