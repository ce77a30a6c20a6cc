package egress

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/sys/relay"
)

// Connections on ports where either side may speak first. bawn dials, then accepts.
// The server's side is relayed from its first byte (plain) unless the client's first
// bytes come before the server has sent any: then the reader of the client's protocol
// takes the server's side, too, so that it can put its own answers between the
// server's. Which of the two it is, a split decides once.

// openConn is a connection with both sides open, whose client has sent its first bytes.
type openConn struct {
	*flow
	c, up net.Conn
	split *split
	head  []byte // what the client has sent
	sent  int    // how many bytes of head the server has had
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
	o := &openConn{flow: f, c: c, up: up, split: &split{up: up, done: make(chan struct{})}}
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
		o.flow.up(&prefixed{Conn: o.c, head: o.head[o.sent:]}, o.c, o.up, nil)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func (o *openConn) tls() {
	src, quiet := o.split.take()
	if !quiet {
		o.serveTLS(o.c, o.head, o.up, true)
		return
	}
	o.serveTLS(o.c, o.head, src, false)
	o.up.Close()
}

func (o *openConn) http() {
	src, quiet := o.split.take()
	if !quiet {
		o.serveHTTPHalf(o.c, o.head, o.resume(o.up))
		return
	}
	o.serveHTTP(o.c, o.head, func() (net.Conn, error) { return o.resume(src), nil })
	o.up.Close()
}

func (o *openConn) http2() {
	src, quiet := o.split.take()
	if !quiet {
		o.refused("an HTTP/2 request to a server that sent data first")
		o.drop(o.c, o.up, nil)
		return
	}
	o.serveHTTP2(o.c, o.head, func() (net.Conn, error) { return o.resume(src), nil })
	o.up.Close()
}

// resume is the server for a reader that begins with head again.
func (o *openConn) resume(up net.Conn) net.Conn { return &resumed{up, o.head[:o.sent]} }

// firstBytes waits for the client without end, as the server may be the one that
// speaks; but after its first word, its first line has to end. It sets head and
// sent.
func (o *openConn) firstBytes() (k kind, err error) {
	if o.head, err = readSome(o.c); err != nil {
		return kindNone, err
	}
	if k, maybe := looks(o.head); !maybe {
		return k, nil
	}
	r := &firstReader{c: o.c, up: o.up, limit: o.g.firstBytesTime}
	if err := r.pass(o.head); err != nil {
		return kindOther, err
	}
	k, o.head, err = sniff(r, o.head)
	_ = o.c.SetReadDeadline(time.Time{})
	o.sent = r.sent
	return k, err
}

// firstReader reads a client's first bytes. While they are one word it passes them
// on as they come; from then on nothing passes, and there is a limit of time.
type firstReader struct {
	c, up net.Conn
	limit time.Duration
	over  bool // the first word has ended
	sent  int  // bytes that have passed
}

func (r *firstReader) Read(b []byte) (int, error) {
	n, err := r.c.Read(b)
	if perr := r.pass(b[:n]); perr != nil {
		return n, perr
	}
	return n, err
}

func (r *firstReader) pass(b []byte) error {
	if r.over || len(b) == 0 {
		return nil
	}
	if httpwire.WordLength(b) < len(b) {
		r.over = true
		return r.c.SetReadDeadline(time.Now().Add(r.limit))
	}
	n, err := r.up.Write(b)
	r.sent += n
	return err
}

// resumed is a server that has had the first bytes already.
type resumed struct {
	net.Conn
	had []byte
}

func (r *resumed) Write(b []byte) (int, error) {
	n := min(len(b), len(r.had))
	if !bytes.Equal(b[:n], r.had[:n]) {
		return 0, errors.New("the request does not continue as it began")
	}
	if r.had = r.had[n:]; n == len(b) {
		return n, nil
	}
	m, err := r.Conn.Write(b[n:])
	return n + m, err
}

func (r *resumed) CloseWrite() error { return relay.CloseWrite(r.Conn) }

func (r *resumed) Abort() { abort(r.Conn) }

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
	return &prefixed{Conn: s.up, head: first}
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
