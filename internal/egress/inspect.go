package egress

import (
	"errors"
	"io"
	"net"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/egress/tlshello"
	"bawn.dev/bawn/internal/sys/relay"
)

// heldConn is the one reader of what a client sends while it is judged. It holds
// what was read and has not been handed on. Each judge looks at held, asks for more
// with fill, and hands on with pass the very bytes that it has judged; the rest
// stays for the next judge, whether that one uses held as well or reads on with Read.
type heldConn struct {
	net.Conn
	held []byte
}

// fill reads once more from the connection. An error means that nothing came.
func (h *heldConn) fill() error {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	n, err := h.Conn.Read(small[:])
	h.held = append(h.held, small[:n]...)
	if n > 0 {
		return nil // the next read returns the error again
	}
	return err
}

// pass writes the first n bytes of held to w.
func (h *heldConn) pass(w io.Writer, n int) error {
	_, err := w.Write(h.held[:n])
	h.drop(n)
	return err
}

// drop forgets the first n bytes of held.
func (h *heldConn) drop(n int) {
	if h.held = h.held[n:]; len(h.held) == 0 {
		h.held = nil
	}
}

// Read implements io.Reader: it returns held first.
func (h *heldConn) Read(b []byte) (int, error) {
	if len(h.held) > 0 {
		n := copy(b, h.held)
		h.drop(n)
		return n, nil
	}
	return h.Conn.Read(b)
}

func (h *heldConn) CloseWrite() error { return relay.CloseWrite(h.Conn) }

func (h *heldConn) Abort() { abort(h.Conn) }

// judge inspects what a client sends, on its way to the server.
type judge interface {
	// Filter takes the next bytes and returns those that may pass now, in a slice
	// that is valid until the next call. An error refuses the stream.
	Filter(b []byte) ([]byte, error)
	// End is called when the client ends; its error refuses the stream.
	End() error
}

// watcher is the judge of bytes that are not known as TLS or HTTP: it lets all pass as
// they come, and refuses requests and ClientHellos among them that name another host.
type watcher struct {
	http httpwire.Watch
	tls  tlshello.Scanner
}

func (f *flow) newWatcher() *watcher {
	w := &watcher{}
	w.http.Host = f.checkAuthority
	w.tls.Check = func(h tlshello.Hello, first bool) error {
		// Behind a first exchange in the clear (STARTTLS of PostgreSQL, MySQL), many
		// clients name no server.
		if h.ServerName == "" && !h.ECH && !first {
			return nil
		}
		if err := f.checkECH(h); err != nil {
			return err
		}
		if why := f.checkName(h); why != "" {
			return errors.New(why)
		}
		return nil
	}
	return w
}

// Filter implements judge.
func (w *watcher) Filter(b []byte) ([]byte, error) {
	if err := w.http.Feed(b); err != nil {
		return nil, err
	}
	return b, w.tls.Feed(b)
}

// End implements judge.
func (w *watcher) End() error { return w.http.End() }
