package egress

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sys/relay"
)

// Connections on ports where either side may speak first. bawn dials, then accepts.
// The server's side is relayed from its first byte (plain) unless the client's first
// bytes come before the server has sent any: then the reader of the client's protocol
// takes the server's side, too, so that it can put its own answers between the
// server's. Which of the two it is, a split decides once.

// openConn is a connection with both sides open.
type openConn struct {
	*flow
	c     *heldConn
	up    net.Conn
	split *split
}

// eitherFirst dials, then lets both sides speak, and looks at the client's first
// bytes as they come.
func (f *flow) eitherFirst(req TCPRequest) {
	up, err := f.connect()
	if err != nil {
		req.Reject()
		return
	}
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	o := &openConn{flow: f, c: &heldConn{Conn: c}, up: up, split: &split{up: up, done: make(chan struct{})}}
	var down sync.WaitGroup
	down.Go(func() {
		if src := o.split.read(); src != nil {
			f.down(c, up, src)
		}
	})
	defer down.Wait()
	o.serve()
}

// serve waits for the client's first bytes and serves the protocol they begin.
func (o *openConn) serve() {
	kind, err := o.firstBytes()
	switch {
	case isTimeout(err):
		o.refused("the first line may be an HTTP request, but does not end: only a rule with raw: allows this traffic")
		o.drop(o.c, o.up, nil)
	case kind == kindTLS:
		o.tls()
	case kind == kindHTTP:
		o.http()
	case kind == kindHTTP2:
		o.http2()
	case kind == kindNone && !errors.Is(err, io.EOF):
		o.drop(o.c, o.up, nil)
	default:
		o.flow.up(o.c, o.c, o.up, o.newWatcher())
	}
}

func (o *openConn) tls() {
	src, quiet := o.split.take()
	if !quiet {
		o.serveTLS(o.c, o.up, true)
		return
	}
	o.serveTLS(o.c, src, false)
	o.up.Close()
}

func (o *openConn) http() {
	src, quiet := o.split.take()
	if !quiet {
		o.serveHTTPHalf(o.c, o.up)
		return
	}
	o.serveHTTP(o.c, func() (net.Conn, error) { return src, nil })
	o.up.Close()
}

func (o *openConn) http2() {
	src, quiet := o.split.take()
	if !quiet {
		o.refused("an HTTP/2 request to a server that sent data first")
		o.drop(o.c, o.up, nil)
		return
	}
	o.serveHTTP2(o.c, func() (net.Conn, error) { return src, nil })
	o.up.Close()
}

// firstBytes waits for the client without end, as the server may be the one that
// speaks; from its first byte on, not for long.
func (o *openConn) firstBytes() (kind, error) {
	if err := o.c.fill(); err != nil {
		return kindNone, err
	}
	s := sniffer{grace: o.g.graceTime, total: o.g.firstBytesTime}
	k, err := s.sniff(o.c)
	var limit time.Time
	if k == kindTLS { // until its ClientHello is whole
		limit = time.Now().Add(o.g.firstBytesTime)
	}
	_ = o.c.SetReadDeadline(limit)
	return k, err
}

// split reads a server's first bytes while it is not decided yet who reads the rest:
// the plain relay (read), or the reader of a protocol's answers (take).
type split struct {
	up    net.Conn
	done  chan struct{} // closed: the first read is over, and its bytes are not the plain relay's
	first []byte
	err   error

	mu    sync.Mutex
	plain bool // read gave the bytes to the plain relay
	taken bool // take gave the server away
}

// read returns the server from its first bytes on, for the plain relay; nil if
// take was first.
func (s *split) read() io.Reader {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	n, err := s.up.Read(small[:])
	first := append([]byte(nil), small[:n]...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken {
		s.first, s.err = first, err
		close(s.done)
		return nil
	}
	s.plain = true
	if err != nil { // a reset is returned once; the next read returns an end
		return io.MultiReader(bytes.NewReader(first), failed{err})
	}
	return &heldConn{Conn: s.up, held: first}
}

// failed is a reader of nothing but an error.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// take gives the server to a reader of answers; not ok if it spoke before.
func (s *split) take() (net.Conn, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plain {
		return nil, false
	}
	s.taken = true
	return &splitConn{Conn: s.up, s: s}, true
}

// splitConn begins with what the split has read or is reading.
type splitConn struct {
	net.Conn
	s    *split
	over bool // the first read was given out
}

func (c *splitConn) Read(b []byte) (int, error) {
	if c.over {
		return c.Conn.Read(b)
	}
	<-c.s.done
	n := copy(b, c.s.first)
	if c.s.first = c.s.first[n:]; len(c.s.first) > 0 {
		return n, nil
	}
	c.over = true
	return n, c.s.err
}

func (c *splitConn) CloseWrite() error { return relay.CloseWrite(c.Conn) }

func (c *splitConn) Abort() { abort(c.Conn) }
