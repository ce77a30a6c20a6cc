package egress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/egress/tunnel"
	"bawn.dev/bawn/internal/sys/relay"
)

// Theory of operation: how plain HTTP/1 is relayed
//
// Requests (this file): each head is read whole, checked, and written anew from
// what was checked; the body is passed on as it comes, measured by the one length
// that the strict parser accepted. So the next head is where the server looks for
// it, on kept-alive and pipelined requests as well.
//
// Answers (httpanswers.go): each is matched to its request, only to know where it
// ends. That is needed for three things: a 403 must not fall into the middle of an
// answer, a 101 hands both directions over to the new protocol, and only if the
// request asked for it. What cannot be read as an answer is passed on until it ends
// (blind), and then a later denial is a reset.
//
// Nothing waits for a whole body: before each read that could block, what was
// written is flushed.

const (
	// headTime bounds how long a head may take from its first byte, in HTTP/2 a
	// header block.
	headTime = time.Minute
	// pipelined bounds the requests that wait for their answers.
	pipelined = 64
	// httpBuffer is the read buffer of each direction, in bytes.
	httpBuffer = 16 << 10
)

// exchange is a request that waits for its answer.
type exchange struct {
	method   string
	open     *openRequest // nil: no rule is about requests
	sent     int64        // bytes of its body, as announced
	upgrade  bool
	switched chan bool // if upgrade: gets one answer, and has room for it
}

// answer reports whether the server switched to another protocol, to the reader of
// requests that waits for it. Call it once.
func (x exchange) answer(switched bool) {
	if x.upgrade {
		x.switched <- switched
	}
}

// end logs that the exchange is over. got are the bytes of the answer's body.
func (x exchange) end(status int, got int64) {
	if x.open != nil {
		x.open.end(status, x.sent, got)
	}
}

// httpRelay is one connection that speaks HTTP/1.
type httpRelay struct {
	f       *flow
	conn    net.Conn // the guest
	in      *httpwire.FlushReader
	cr      *bufio.Reader // requests
	up      net.Conn      // the server, once dialled
	uw      *bufio.Writer
	dial    func() (net.Conn, error)
	opaque  bool // the answers are relayed elsewhere, unread
	pending chan exchange
	answers sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	open    int  // requests without their whole answer
	blind   bool // where an answer ends is not known any more
	ended   bool // no more answers
	refused bool // the guest's side belongs to the refusal
}

func (f *flow) newHTTP(c *heldConn) *httpRelay {
	f.setApp("http")
	h := &httpRelay{f: f, conn: c, pending: make(chan exchange, pipelined)}
	h.changed = sync.NewCond(&h.mu)
	h.in = &httpwire.FlushReader{R: c}
	h.cr = bufio.NewReaderSize(h.in, httpBuffer)
	return h
}

// serveHTTP relays HTTP/1. dial is called when the first request has passed.
func (f *flow) serveHTTP(c *heldConn, dial func() (net.Conn, error)) {
	h := f.newHTTP(c)
	h.dial = dial
	h.requests()
	h.answers.Wait()
}

// serveHTTPHalf checks requests to a server that spoke first. The caller relays what
// the server sends, as it is.
func (f *flow) serveHTTPHalf(c *heldConn, up net.Conn) {
	h := f.newHTTP(c)
	h.opaque = true
	h.setUp(up)
	h.requests()
}

func (h *httpRelay) setUp(up net.Conn) {
	h.up, h.uw = up, bufio.NewWriterSize(up, smallBuffer)
	h.in.W = h.uw
}

// requests passes requests until the client ends or one is refused.
func (h *httpRelay) requests() {
	for {
		err := h.request()
		if err == nil {
			continue
		}
		var denied *deniedRequest
		var he *httpwire.Error
		var we *httpwire.WriteError
		switch {
		case errors.As(err, &denied):
			h.refuse(errorPage(denied.answer.Status, denied.answer.Why, denied.suggest))
		case errors.As(err, &he):
			h.f.refused(he.Why)
			h.refuse(errorPage(he.Status, he.Why, ""))
		case errors.Is(err, errRefused):
		case errors.Is(err, errLast):
			h.finish()
		case errors.Is(err, io.EOF):
			if h.up == nil {
				h.conn.Close()
			} else if err := h.uw.Flush(); err == nil {
				_ = relay.CloseWrite(h.up)
			}
		case errors.As(err, &we):
			// The server takes no more; what it answered still comes.
			h.answers.Wait()
			refuse(h.conn, nil)
		default:
			abort(h.conn)
			if h.up != nil {
				abort(h.up)
			}
		}
		return
	}
}

// errRefused means that the client has its answer and all is closed.
var errRefused = errors.New("refused")

// request passes one request on.
func (h *httpRelay) request() error {
	q, open, err := h.nextRequest()
	if err != nil {
		return err
	}
	if h.up == nil {
		if err := h.connect(); err != nil {
			return err
		}
	}
	x := exchange{method: q.Method, open: open, sent: max(q.Length, 0), upgrade: q.Upgrade}
	if x.upgrade {
		x.switched = make(chan bool, 1)
	}
	if !h.opaque {
		if err := h.expect(x); err != nil {
			return err
		}
	}
	if err := h.send(q); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if x.upgrade && !h.opaque {
		return h.handOver(x)
	}
	return nil
}

// nextRequest reads and checks the next head. io.EOF: there is none.
func (h *httpRelay) nextRequest() (*httpwire.Request, *openRequest, error) {
	q, err := h.nextHead()
	if err != nil {
		return nil, nil, err
	}
	open, err := h.f.checkRequest(q)
	return q, open, err
}

// nextHead reads the next head.
func (h *httpRelay) nextHead() (*httpwire.Request, error) {
	if err := skipLineEnds(h.cr); err != nil {
		return nil, err
	}
	_ = h.conn.SetReadDeadline(time.Now().Add(h.f.g.headTime))
	head, err := httpwire.ReadHead(h.cr)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, err
	}
	_ = h.conn.SetReadDeadline(time.Time{})
	return httpwire.ParseRequest(head)
}

// skipLineEnds waits for a head's first byte. Some clients send a line end behind a
// body (RFC 9112, 2.2): no head begins with it.
func skipLineEnds(r *bufio.Reader) error {
	for {
		b, err := r.Peek(1)
		if err == nil && b[0] == '\r' {
			if b, err = r.Peek(2); err == nil && b[1] != '\n' {
				return nil // the head parser refuses it
			}
		}
		if err != nil {
			return err
		}
		if b[len(b)-1] != '\n' {
			return nil
		}
		_, _ = r.Discard(len(b))
	}
}

// send writes a request to the server: its head, and its body as it comes.
func (h *httpRelay) send(q *httpwire.Request) error {
	if q.BodyIgnored() {
		q.SetLast()
	}
	if _, err := h.uw.Write(q.Bytes()); err != nil {
		return &httpwire.WriteError{Err: err}
	}
	watch := httpwire.NewBodyWatch(q, h.f.checkAuthority)
	if watch != nil {
		watch.Trailer = func(t httpwire.Field) error { return h.f.checkTrailer([]httpwire.Field{t}) }
	}
	err := httpwire.CopyBody(h.uw, h.cr, q.Length, watch)
	var he *httpwire.Error
	switch {
	case errors.As(err, &he):
		// The server has a part of the request and will not answer it.
		h.f.refused(he.Why)
		abort(h.up)
		abort(h.conn)
		return errRefused
	case err == nil && q.BodyIgnored():
		return errLast
	}
	return err
}

// errLast means that no more requests may pass on the connection: a server that
// ignored the last one's body would find them behind it.
var errLast = errors.New("the last request")

// finish waits for the answers to all requests and ends the connection.
func (h *httpRelay) finish() {
	if err := h.uw.Flush(); err != nil {
		abort(h.up)
	}
	if h.opaque {
		_ = relay.CloseWrite(h.up)
		return
	}
	h.mu.Lock()
	for h.open > 0 && !h.ended && !h.blind {
		h.changed.Wait()
	}
	if !h.blind {
		h.refused = true
		abort(h.up)
	}
	h.mu.Unlock()
	h.answers.Wait()
	refuse(h.conn, nil)
}

// expect lists a request before it goes out, and waits while too many are open.
func (h *httpRelay) expect(x exchange) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.open >= pipelined && !h.ended && !h.blind {
		if err := h.uw.Flush(); err != nil {
			return &httpwire.WriteError{Err: err}
		}
		h.changed.Wait()
	}
	if h.ended {
		return &httpwire.WriteError{Err: net.ErrClosed}
	}
	if h.blind {
		x.answer(false)
		return nil
	}
	h.open++
	h.pending <- x
	return nil
}

// handOver waits for the answer to an upgrade, and after a 101 copies what the
// client sends as it is.
func (h *httpRelay) handOver(x exchange) error {
	if err := h.uw.Flush(); err != nil {
		return &httpwire.WriteError{Err: err}
	}
	if !<-x.switched {
		return nil
	}
	if err := copyStream(h.up, h.cr, nil); err != nil {
		return err
	}
	return io.EOF
}

// connect dials for the first request. On a failure it answers the client.
func (h *httpRelay) connect() error {
	up, err := h.dial()
	if err != nil {
		status, reason := 502, "the server was not reached: "+reachError(err)
		suggest := ""
		if d, ok := asDenied(err); ok {
			status, reason, suggest = 403, d.Reason, h.f.g.suggestFor(d)
		}
		refuse(h.conn, errorPage(status, reason, suggest))
		return errRefused
	}
	h.setUp(up)
	h.answers.Go(h.relayAnswers)
	return nil
}

// reachError returns why a dial failed, for the guest. The error itself, which the log
// has, names the host's resolver, proxy and addresses.
func reachError(err error) string {
	var dns *net.DNSError
	isDNS := errors.As(err, &dns)
	var proxy *tunnel.Error
	switch {
	case errors.As(err, &proxy) && proxy.Answered:
		return "the host's proxy refused it or did not reach it"
	case errors.As(err, &proxy):
		return "the host's proxy does not work (bawn doctor on the host)"
	case isDNS && dns.IsNotFound:
		return "no such host"
	case isTimeout(err), errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case isDNS:
		return "the name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to it"
	}
	return "the connection failed"
}

// refuse answers a request that may not pass, after the answers to those before
// it. Nothing of it has gone to the server.
func (h *httpRelay) refuse(page []byte) {
	if h.opaque {
		abort(h.up)
		abort(h.conn)
		return
	}
	if h.up != nil {
		if err := h.uw.Flush(); err != nil {
			abort(h.up)
		}
		h.mu.Lock()
		for h.open > 0 && !h.ended && !h.blind {
			h.changed.Wait()
		}
		ended := h.ended || h.blind
		h.refused = true
		h.mu.Unlock()
		abort(h.up)
		h.answers.Wait()
		if ended {
			abort(h.conn) // where the last answer ends is not known
			return
		}
	}
	refuse(h.conn, page)
}

// checkRequest compares the request's authority with the flow's target, and has the rules judge
// it where they are about requests; nil: they are not. Errors are *httpwire.Error or
// *deniedRequest.
func (f *flow) checkRequest(q *httpwire.Request) (*openRequest, error) {
	authority, err := q.Authority()
	if err != nil {
		return nil, err
	}
	if err := f.checkAuthority(authority); err != nil {
		return nil, err
	}
	if err := f.checkClear(q.Target, each(q.Fields)); err != nil || !f.judgesRequests() {
		return nil, err
	}
	q.UpgradeOnlyTo("websocket") // other protocols may carry requests
	return f.beginRequest(q.Method, "http", q.Path(), each(q.Fields))
}

// checkClear refuses a request in plain HTTP that has the placeholder of a secret, or a credential beside
// it, for a host with a secret. On a flow to an address each host counts that the client has named there. Errors are
// *httpwire.Error.
func (f *flow) checkClear(target string, header iter.Seq2[string, string]) error {
	if f.g.cfg.Inspect == nil || f.to.Host {
		return nil
	}
	names := []string{f.to.Name}
	if f.to.Name == "" {
		f.mu.Lock()
		names = slices.Clone(f.also)
		f.mu.Unlock()
	}
	for _, name := range names {
		if err := f.g.cfg.Inspect.RefusedInClear(name, f.to.Port, target, header); err != nil {
			return &httpwire.Error{Status: http.StatusForbidden, Why: err.Error()}
		}
	}
	return nil
}

// checkTrailer refuses fields behind a body which, in a head, would be refused or ask the server for another method or path:
// some servers take them for fields of the head (RFC 9110, 6.5.1). Errors are *httpwire.Error.
func (f *flow) checkTrailer(fields []httpwire.Field) error {
	if err := f.checkClear("", each(fields)); err != nil || !f.judgesRequests() {
		return err
	}
	if methods, hidden := overrides("", each(fields)); len(methods) > 0 || hidden != "" {
		return &httpwire.Error{Status: http.StatusForbidden, Why: "a trailer asks the server for another method or path than the request's"}
	}
	return nil
}

// each goes through the names and values of header fields.
func each(fields []httpwire.Field) iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for _, f := range fields {
			if !yield(f.Name, f.Value) {
				return
			}
		}
	}
}

// checkAuthority compares what a request is for with the flow's target. Errors are
// *httpwire.Error.
func (f *flow) checkAuthority(authority string) error {
	host, port, err := httpwire.SplitAuthority(authority)
	if err != nil {
		return err
	}
	if why := f.checkHost(host, port, "the request"); why != "" {
		return &httpwire.Error{Status: http.StatusForbidden, Why: why}
	}
	return nil
}
