package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"bawn.dev/bawn/internal/policy"
)

// How a TCP connection is looked at
//
// Who speaks first decides when bawn dials. On TLS ports and on port 80 the
// client does: the connection is accepted, the first bytes are read and checked,
// and only then is the server dialled, so a forbidden name never reaches it. On
// these ports other bytes than TLS or HTTP are denied.
//
// On any other port the server may speak first (SSH, SMTP, MySQL): bawn dials,
// then accepts, so that the guest sees a refused connection as refused, and both
// directions are open at once. What the client begins like TLS or like an HTTP
// request is checked as on the ports above, anything else is let through as it is.
// A first word passes as it comes, for it is no request yet, and some protocols
// have no line end after it; the rest of a first line waits for its end.
//
// A rule marked raw, and the host's own loopback, skip all of it.

// tlsPorts are those where the client sends a ClientHello first (IANA service
// names): https, its usual second, and mail, directory, DNS and others over TLS.
var tlsPorts = []uint16{443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 5061, 8443}

// httpPort is the one where the client sends an HTTP request first.
const httpPort = 80

const (
	// firstByteTime is how long a client may wait before its first byte on a
	// port where it speaks first: browsers open connections ahead of need.
	firstByteTime = 5 * time.Minute
	// firstBytesTime is how long it may take from there (on other ports: from the
	// end of the first word) until a ClientHello or a request's first line is whole.
	firstBytesTime = time.Minute
	// maxFirstReads bounds the pieces that these may come in: after each, all is
	// looked at again.
	maxFirstReads = 1024
)

// TCP decides on a connection from src to dst and serves it to its end.
func (g *Gateway) TCP(src, dst netip.AddrPort, req TCPRequest) {
	w := g.whose("tcp", src, dst)
	switch {
	case slices.Contains(g.cfg.DNS, dst):
		g.serveDNS(w, req)
		return
	case slices.Contains(g.cfg.Info, dst):
		g.serveInfo(req)
		return
	}
	f := g.admit(w, dst, policy.TCP)
	if f == nil {
		req.Reject()
		return
	}
	defer f.end()
	f.serveTCP(req)
}

// serveTCP judges a connection and serves it.
func (f *flow) serveTCP(req TCPRequest) {
	switch d := f.judge(); {
	case !d.Allow:
		f.deny(d, f.g.suggest(f.to))
		if f.to.Port != httpPort || f.to.Name == "" {
			req.Reject()
			return
		}
		f.explain(req, d)
	case d.Raw || f.to.Host:
		f.through(req)
	case slices.Contains(tlsPorts, f.to.Port) || f.to.Port == httpPort:
		f.clientFirst(req)
	default:
		f.eitherFirst(req)
	}
}

// explain accepts a denied connection to port 80 only to say why, in HTTP.
func (f *flow) explain(req TCPRequest, d policy.Decision) {
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(f.g.firstBytesTime))
	kind, head, _ := sniff(c, nil)
	if kind != kindHTTP {
		abort(c)
		return
	}
	// The head is read to its end: a client that is still sending would not
	// see the answer.
	p := &prefixed{Conn: c, head: head}
	refuse(p, f.page(d.Reason))
}

// through relays without a look.
func (f *flow) through(req TCPRequest) {
	f.setApp("raw")
	up, err := f.connect()
	if err != nil {
		req.Reject()
		return
	}
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	f.relay(c, c, up, nil)
}

// relay copies both ways until both have ended, or one has failed. client is
// where the guest's bytes are read from.
func (f *flow) relay(client io.Reader, conn, up net.Conn, filter func([]byte) ([]byte, error)) {
	var down sync.WaitGroup
	down.Go(func() { f.down(conn, up, up) })
	f.up(client, conn, up, filter)
	down.Wait()
}

// down copies what the server sends.
func (f *flow) down(conn, up net.Conn, src io.Reader) {
	if err := copyStream(conn, src, nil); err != nil {
		abort(conn)
		abort(up)
		return
	}
	_ = closeWrite(conn)
	_ = conn.SetReadDeadline(time.Now().Add(oneWayTime))
}

// up copies what the client sends. A filter's error is a denial.
func (f *flow) up(client io.Reader, conn, up net.Conn, filter func([]byte) ([]byte, error)) {
	refused := false
	err := copyStream(up, client, func(b []byte) ([]byte, error) {
		if filter == nil {
			return b, nil
		}
		out, err := filter(b)
		refused = err != nil
		return out, err
	})
	switch {
	case refused:
		f.refused(err.Error())
		abort(conn)
		abort(up)
	case err != nil:
		abort(conn)
		abort(up)
	default:
		_ = closeWrite(up)
	}
}

// kind is what a client's first bytes look like.
type kind int

const (
	kindNone  kind = iota // the client ended or failed before its first byte
	kindTLS               // a TLS handshake record
	kindHTTP              // a request line of HTTP/1
	kindHTTP2             // the preface of HTTP/2
	kindOther
)

// http2Preface is what HTTP/2 clients send first (RFC 9113, section 3.4).
var http2Preface = []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

// sniff reads until the first bytes tell what they are. It returns all that it
// read; err says why a kindNone or a kindOther came about.
func sniff(r io.Reader, head []byte) (kind, []byte, error) {
	buf := make([]byte, smallBuffer)
	for reads := 0; ; reads++ {
		k, maybe := looks(head)
		if !maybe {
			return k, head, nil
		}
		if len(head) > maxHead || reads == maxFirstReads {
			return kindHTTP, head, nil // no line end: the head parser will refuse it
		}
		n, err := r.Read(buf)
		head = append(head, buf[:n]...)
		if err == nil {
			continue
		}
		if k, maybe := looks(head); !maybe {
			return k, head, nil
		}
		if len(head) == 0 {
			return kindNone, nil, err
		}
		// Some servers take the end for the line's.
		if k, _ := looks(append(head, '\n')); k == kindHTTP {
			return k, head, err
		}
		return kindOther, head, err
	}
}

// looks tells what bytes are, or that more are needed.
func looks(b []byte) (k kind, maybe bool) {
	isTLS, maybeTLS := looksTLS(b)
	isHTTP, maybeHTTP := looksHTTP(b)
	switch {
	case isTLS:
		return kindTLS, false
	case bytes.HasPrefix(b, http2Preface):
		return kindHTTP2, false
	case bytes.HasPrefix(http2Preface, b) && len(b) > 0:
		return kindHTTP2, true
	case isHTTP:
		return kindHTTP, false
	}
	return kindOther, maybeTLS || maybeHTTP
}

// clientFirst checks the client's first bytes before it dials.
func (f *flow) clientFirst(req TCPRequest) {
	c, err := req.Accept()
	if err != nil || !f.add(c) {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(firstByteTime))
	first, err := readSome(c)
	if err != nil {
		c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(f.g.firstBytesTime))
	kind, head, _ := sniff(c, first)
	switch {
	case kind == kindTLS:
		f.serveTLS(c, head, nil, false)
	case kind == kindHTTP && f.to.Port == httpPort:
		_ = c.SetReadDeadline(time.Time{})
		f.serveHTTP(c, head, f.connect)
	case kind == kindHTTP2 && f.to.Port == httpPort:
		_ = c.SetReadDeadline(time.Time{})
		f.serveHTTP2(c, head, f.connect)
	case kind == kindHTTP:
		why := fmt.Sprintf("port %d is for TLS, and this is plain HTTP: only a rule with raw lets that through", f.to.Port)
		f.refused(why)
		refuse(&prefixed{Conn: c, head: head}, errorPage(http.StatusForbidden, why, ""))
	default:
		what := "TLS"
		if f.to.Port == httpPort {
			what = "HTTP"
		}
		f.refused(fmt.Sprintf("not %s on port %d: only a rule with raw lets that through", what, f.to.Port))
		abort(c)
	}
}

// serveTLS checks a ClientHello and relays. up is the server if it is dialled
// already. spoke: it spoke first, and the caller relays what it says.
func (f *flow) serveTLS(c net.Conn, head []byte, up net.Conn, spoke bool) {
	f.setApp("tls")
	h, head, err := readHello(c, head)
	var why string
	switch {
	case errors.Is(err, errHello):
		why = err.Error()
	case err != nil:
		f.drop(c, up, nil) // the client gave up
		return
	default:
		why = f.checkName(h)
	}
	if why != "" {
		f.refused(why)
		word := alert(alertUnrecognizedName)
		if err != nil {
			word = alert(alertUnexpectedMessage)
		}
		f.drop(c, up, word)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	if up == nil {
		if up, err = f.connect(); err != nil {
			if _, denied := asDenied(err); denied {
				refuse(c, alert(alertAccessDenied))
				return
			}
			abort(c)
			return
		}
	}
	if _, err := up.Write(head); err != nil {
		f.drop(c, up, nil)
		return
	}
	guard := &helloGuard{check: func(again hello) error {
		if again.serverName != h.serverName || again.ech {
			return errors.New("a second ClientHello for another name")
		}
		return nil
	}}
	if spoke {
		f.up(c, c, up, guard.write)
		return
	}
	f.relay(c, c, up, guard.write)
}

// drop ends both sides; word goes to the client first, if there is one.
func (f *flow) drop(c, up net.Conn, word []byte) {
	if up != nil {
		abort(up)
	}
	if word != nil {
		refuse(c, word)
		return
	}
	abort(c)
}

// errHello marks what parseHello refuses, to tell it from a broken connection.
var errHello = errors.New("refused")

type helloError struct{ error }

func (helloError) Is(target error) bool { return target == errHello }

// readHello reads until the first ClientHello is whole.
func readHello(c io.Reader, head []byte) (hello, []byte, error) {
	buf := make([]byte, smallBuffer)
	for reads := 0; ; reads++ {
		h, err := parseHello(head)
		if err == nil {
			return h, head, nil
		}
		if !errors.Is(err, errShort) {
			return h, head, helloError{err}
		}
		if len(head) > maxHello || reads == maxFirstReads {
			return hello{}, nil, helloError{errors.New("the ClientHello is too long, or in too many pieces")}
		}
		n, err := io.ReadAtLeast(c, buf, min(lacking(head), len(buf)))
		head = append(head, buf[:n]...)
		if err != nil && n == 0 {
			return hello{}, nil, err
		}
	}
}

// lacking is how many bytes are worth another look at a ClientHello that is not whole:
// its start, where mistakes show, or the rest of a record.
func lacking(head []byte) int {
	for len(head) > recordHeader+4 {
		n := recordHeader + int(head[3])<<8 + int(head[4])
		if len(head) < n {
			return n - len(head)
		}
		head = head[n:]
	}
	return 1
}

// checkName says why a ClientHello is refused, or "".
func (f *flow) checkName(h hello) string {
	switch {
	case h.ech:
		return "the TLS handshake hides its server name (ECH): switch ECH off in the client, or use a rule with raw"
	case h.serverName == "" && f.to.Name != "":
		return "the TLS handshake names no server: only a rule with raw lets that through"
	case h.serverName == "":
		return "" // an address by an IP rule: clients name no server then (RFC 6066, section 3)
	}
	return f.checkHost(h.serverName, 0, "TLS")
}

// checkHost compares a host that the client named with the flow's, and returns
// why it is refused, or "". A flow to an address may name the address, or a name
// that the rules allow on this port. port 0 is none.
func (f *flow) checkHost(host string, port uint16, where string) string {
	if port != 0 && port != f.to.Port {
		return fmt.Sprintf("%s names port %d, the connection goes to port %d", where, port, f.to.Port)
	}
	if f.to.Name != "" {
		if host != f.to.Name {
			return fmt.Sprintf("%s names %.255q, the connection goes to %s", where, host, f.to.Name)
		}
		return ""
	}
	if a, err := netip.ParseAddr(host); err == nil && a == f.to.Addr {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if v := f.g.decide(policy.Flow{Name: host, Port: f.to.Port, Proto: f.to.Proto}); !v.Allow {
		return fmt.Sprintf("%s names %.255q, which no rule allows, on a connection to %s", where, host, f.to.Addr)
	}
	f.also = host
	return ""
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
	// The server's side starts at once. Only if the client's first bytes come
	// before the server has said a word do its answers belong to who reads the
	// client's protocol: see split.
	s := &split{up: up, done: make(chan struct{})}
	var down sync.WaitGroup
	down.Go(func() {
		if src := s.read(); src != nil {
			f.down(c, up, src)
		}
	})
	defer down.Wait()
	kind, head, sent, err := f.firstBytes(c, up)
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		f.refused("the first line, which may become an HTTP request, does not end: only a rule with raw lets that through")
		f.drop(c, up, nil)
		return
	}
	switch kind {
	case kindTLS:
		if src, quiet := s.take(); quiet {
			f.serveTLS(c, head, src, false)
			up.Close()
		} else {
			f.serveTLS(c, head, up, true)
		}
	case kindHTTP:
		if src, quiet := s.take(); quiet {
			f.serveHTTP(c, head, func() (net.Conn, error) { return &resumed{src, head[:sent]}, nil })
			up.Close()
		} else {
			f.serveHTTPHalf(c, head, &resumed{up, head[:sent]})
		}
	case kindHTTP2:
		if src, quiet := s.take(); quiet {
			f.serveHTTP2(c, head, func() (net.Conn, error) { return &resumed{src, head[:sent]}, nil })
			up.Close()
		} else {
			f.refused("HTTP/2 to a server that spoke first")
			abort(c)
			abort(up)
		}
	default:
		if kind == kindNone && !errors.Is(err, io.EOF) {
			abort(c)
			abort(up)
			return
		}
		f.up(&prefixed{Conn: c, head: head[sent:]}, c, up, nil)
	}
}

// firstBytes waits for the client without end, as the server may be the one who
// speaks; but after its first word, its first line has to end. up has had the first
// sent bytes of head.
func (f *flow) firstBytes(c, up net.Conn) (k kind, head []byte, sent int, err error) {
	first, err := readSome(c)
	if err != nil {
		return kindNone, nil, 0, err
	}
	r := &firstReader{c: c, up: up, limit: f.g.firstBytesTime}
	if k, maybe := looks(first); !maybe {
		return k, first, 0, nil
	}
	if err := r.pass(first); err != nil {
		return kindOther, first, 0, err
	}
	k, head, err = sniff(r, first)
	_ = c.SetReadDeadline(time.Time{})
	return k, head, r.sent, err
}

// firstReader reads a client's first bytes. While they are one word it passes them
// on as they come; from then on nothing passes, and there is a limit of time.
type firstReader struct {
	c, up net.Conn
	limit time.Duration
	over  bool // the word is
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
	if wordLength(b) < len(b) {
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
		return 0, errors.New("a request that does not go on as it began")
	}
	if r.had = r.had[n:]; n == len(b) {
		return n, nil
	}
	m, err := r.Conn.Write(b[n:])
	return n + m, err
}

func (r *resumed) CloseWrite() error { return closeWrite(r.Conn) }

func (r *resumed) Abort() { abort(r.Conn) }

// readSome reads what is there; an error only if that is nothing.
func readSome(r io.Reader) ([]byte, error) {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	defer smallBuffers.Put(small)
	n, err := r.Read(small[:])
	if n > 0 {
		err = nil // it comes again
	}
	return append([]byte(nil), small[:n]...), err
}

// split reads a server's first bytes while it is open who will read the rest:
// the plain relay, or the reader of the answers of a protocol.
type split struct {
	up    net.Conn
	done  chan struct{} // closed: the first read is over, and not the plain relay's
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
	if err != nil { // a reset is told once, and then looks like an end
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

func (c *splitConn) CloseWrite() error { return closeWrite(c.Conn) }

func (c *splitConn) Abort() { abort(c.Conn) }
