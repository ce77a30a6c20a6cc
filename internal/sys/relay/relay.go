// Package relay copies between two connections.
package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
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

// owned is a connection whose calls may wait long after its Close. Its owner waits for the
// goroutines that make such calls.
type owned interface {
	// Go runs f in a goroutine that ends with the owner at the latest. It returns false, and
	// does nothing, once that has ended.
	Go(f func()) bool
}

// Until is Both until ctx ends, or until the peer of a has gone while b takes nothing. Then it
// closes both, and returns although a call to b may still wait, if b has a method Go.
func Until(ctx context.Context, a, b net.Conn) {
	ended := make(chan struct{})
	run := func() {
		defer close(ended)
		Both(a, b)
	}
	o, isOwned := b.(owned)
	switch {
	case !isOwned:
		go run() // it is waited for
	case !o.Go(run):
		a.Close()
		b.Close()
		return
	}
	broken, stop := watchBroken(a)
	defer stop()
	select {
	case <-ended:
		return
	case <-broken:
	case <-ctx.Done():
	}
	a.Close()
	_ = b.SetDeadline(time.Unix(1, 0)) // Close alone ends no reads of a yamux stream
	b.Close()
	if !isOwned {
		<-ended
	}
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
