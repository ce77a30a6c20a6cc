// Package relay copies between two connections.
package relay

import (
	"io"
	"sync"
)

// Both copies from a to b and from b to a, until both directions have ended, and
// closes both. The end of one direction is passed on with CloseWrite, and the other
// stays open: a client may end its request and still read the answer. An error in either
// direction closes both connections at once. To cut a relay short, close either
// connection.
func Both(a, b io.ReadWriteCloser) {
	var wg sync.WaitGroup
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}

func one(dst, src io.ReadWriteCloser) {
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		src.Close()
		return
	}
	_ = CloseWrite(dst) // a peer that is gone needs no end
}

// CloseWrite ends what is sent on a connection; the peer can still send. A type
// without a method CloseWrite is closed: the Close of a yamux stream does the same,
// its reads continue until the peer closes.
func CloseWrite(c io.Closer) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}
