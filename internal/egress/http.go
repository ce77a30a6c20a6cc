package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How plain HTTP is relayed
//
// Requests: each head is read whole (at most maxHead), checked, and written anew
// from what was checked; the body is passed on as it comes, measured by the one
// length that the strict parser accepted. So the next head is where the server
// looks for it, on kept-alive and pipelined requests as well.
//
// Answers: each is matched to its request, only to know where it ends. That is
// needed for three things: a 403 must not fall into the middle of an answer, a
// 101 hands both directions over to the new protocol, and only if the request
// asked for it. What cannot be read as an answer is passed on until it ends
// (blind), and then a later denial is a reset.
//
// Nothing waits for a whole body: before each read that could block, what was
// written is flushed.

const (
	// headTime bounds how long a head may take from its first byte.
	headTime = time.Minute
	// pipelined bounds the requests that wait for their answers.
	pipelined = 64
	// httpBuffer is the read buffer of each direction, in bytes.
	httpBuffer = 16 << 10
	// maxTrailer bounds the trailer of a chunked body, in bytes.
	maxTrailer = 16 << 10
)

// flushReader flushes a writer before a read that may block.
type flushReader struct {
	r io.Reader
	w *bufio.Writer
}

func (f *flushReader) Read(b []byte) (int, error) {
	if f.w != nil && f.w.Buffered() > 0 {
		if err := f.w.Flush(); err != nil {
			return 0, &writeError{err}
		}
	}
	return f.r.Read(b)
}

// writeError tells a failed write from a failed read.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// exchange is a request that waits for its answer.
type exchange struct {
	method   string
	upgrade  bool
	switched chan bool // told once, if upgrade
}

// httpRelay is one connection that speaks HTTP/1.
type httpRelay struct {
	f       *flow
	conn    net.Conn // the guest
	in      *flushReader
	cr      *bufio.Reader // requests
	up      net.Conn      // the server, once dialled
	uw      *bufio.Writer
	dial    func() (net.Conn, error)
	opaque  bool // another relays the answers
	pending chan exchange
	answers sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	open    int  // requests without their whole answer
	blind   bool // where an answer ends is not known any more
	ended   bool // no more answers
	refused bool // the guest's side belongs to the refusal
}

func (f *flow) newHTTP(c net.Conn, head []byte) *httpRelay {
	f.setApp("http")
	h := &httpRelay{f: f, conn: c, pending: make(chan exchange, pipelined)}
	h.changed = sync.NewCond(&h.mu)
	h.in = &flushReader{r: &prefixed{Conn: c, head: head}}
	h.cr = bufio.NewReaderSize(h.in, httpBuffer)
	return h
}

// serveHTTP relays HTTP/1. dial is called when the first request has passed.
func (f *flow) serveHTTP(c net.Conn, head []byte, dial func() (net.Conn, error)) {
	h := f.newHTTP(c, head)
	h.dial = dial
	h.requests()
	h.answers.Wait()
}

// serveHTTPHalf checks requests to a server that spoke first; its bytes are
// relayed as they are by another.
func (f *flow) serveHTTPHalf(c net.Conn, head []byte, up net.Conn) {
	h := f.newHTTP(c, head)
	h.opaque = true
	h.setUp(up)
	h.requests()
}

func (h *httpRelay) setUp(up net.Conn) {
	h.up, h.uw = up, bufio.NewWriterSize(up, smallBuffer)
	h.in.w = h.uw
}

// requests passes requests until the client ends or one is refused.
func (h *httpRelay) requests() {
	for {
		err := h.request()
		if err == nil {
			continue
		}
		var he *headError
		var we *writeError
		switch {
		case errors.As(err, &he):
			h.refuse(he)
		case errors.Is(err, errRefused):
		case errors.Is(err, io.EOF):
			if h.up == nil {
				h.conn.Close()
			} else if err := h.uw.Flush(); err == nil {
				_ = closeWrite(h.up)
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

// errRefused: the client has its answer, all is closed.
var errRefused = errors.New("refused")

// request passes one request on.
func (h *httpRelay) request() error {
	if _, err := h.cr.Peek(1); err != nil {
		return err
	}
	_ = h.conn.SetReadDeadline(time.Now().Add(headTime))
	head, err := readHead(h.cr)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	_ = h.conn.SetReadDeadline(time.Time{})
	q, err := parseRequest(head)
	if err != nil {
		return err
	}
	if err := h.f.checkRequest(q); err != nil {
		return err
	}
	if h.up == nil {
		if err := h.connect(); err != nil {
			return err
		}
	}
	x := exchange{method: q.method, upgrade: q.upgrade}
	if x.upgrade {
		x.switched = make(chan bool, 1)
	}
	if !h.opaque {
		if err := h.expect(x); err != nil {
			return err
		}
	}
	if _, err := h.uw.Write(q.bytes()); err != nil {
		return &writeError{err}
	}
	if q.length == lengthChunked {
		err = copyChunked(h.uw, h.cr, true)
	} else {
		err = copyLength(h.uw, h.cr, q.length)
	}
	if err != nil {
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

// expect lists a request before it goes out, and waits while too many are open.
func (h *httpRelay) expect(x exchange) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.open >= pipelined && !h.ended && !h.blind {
		if err := h.uw.Flush(); err != nil {
			return &writeError{err}
		}
		h.changed.Wait()
	}
	if h.ended {
		return &writeError{net.ErrClosed}
	}
	if h.blind {
		if x.upgrade {
			x.switched <- false
		}
		return nil
	}
	h.open++
	h.pending <- x
	return nil
}

// copyBlind passes on what comes until the server ends.
func (h *httpRelay) copyBlind(w *bufio.Writer, r *bufio.Reader) error {
	h.mu.Lock()
	h.blind = true
	h.changed.Broadcast()
	h.refuseUpgrades()
	h.mu.Unlock()
	return copyRest(w, r)
}

// refuseUpgrades tells those who wait for a 101 that they wait in vain. h.mu is
// held: nobody else comes after.
func (h *httpRelay) refuseUpgrades() {
	for {
		select {
		case x := <-h.pending:
			if x.upgrade {
				x.switched <- false
			}
		default:
			return
		}
	}
}

// handOver waits for the answer to an upgrade, and after a 101 copies what the
// client sends as it is.
func (h *httpRelay) handOver(x exchange) error {
	if err := h.uw.Flush(); err != nil {
		return &writeError{err}
	}
	if !<-x.switched {
		return nil
	}
	if err := copyStream(h.up, h.cr, nil); err != nil {
		return err
	}
	return io.EOF
}

// connect dials for the first request. A failure is told to the client.
func (h *httpRelay) connect() error {
	up, err := h.dial()
	if err != nil {
		status, reason := 502, "the server was not reached: "+err.Error()
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

// refuse answers a request that may not pass, after the answers to those before
// it. Nothing of it has gone to the server, but perhaps its first word.
func (h *httpRelay) refuse(he *headError) {
	h.f.refused(he.why)
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
			abort(h.conn) // where the last answer ends nobody knows
			return
		}
	}
	refuse(h.conn, errorPage(he.status, he.why, ""))
}

// relayAnswers passes answers on until the server ends.
func (h *httpRelay) relayAnswers() {
	w := bufio.NewWriterSize(h.conn, smallBuffer)
	r := bufio.NewReaderSize(&flushReader{h.up, w}, httpBuffer)
	var err error
	for err == nil {
		err = h.answer(w, r)
	}
	if ferr := w.Flush(); ferr != nil {
		err = ferr
	}
	h.mu.Lock()
	h.ended = true
	refused := h.refused
	h.changed.Broadcast()
	h.refuseUpgrades()
	h.mu.Unlock()
	switch {
	case refused:
	case errors.Is(err, io.EOF):
		_ = closeWrite(h.conn)
		_ = h.conn.SetReadDeadline(time.Now().Add(oneWayTime))
	default:
		abort(h.conn)
		abort(h.up)
	}
}

// answer passes one answer on, with the interim ones before it.
func (h *httpRelay) answer(w *bufio.Writer, r *bufio.Reader) error {
	if _, err := r.Peek(1); err != nil {
		return err
	}
	var x exchange
	select {
	case x = <-h.pending:
	default:
		return h.copyBlind(w, r) // nobody asked
	}
	tell := func(yes bool) {
		if x.upgrade {
			x.switched <- yes
			x.upgrade = false
		}
	}
	defer tell(false)
	blind := func() error {
		tell(false)
		return h.copyBlind(w, r)
	}
	for {
		head, err := readHead(r)
		if _, werr := w.Write(head); werr != nil {
			return werr
		}
		if err != nil {
			var he *headError
			if errors.As(err, &he) {
				return blind()
			}
			return err
		}
		a, err := parseAnswer(head, x.method)
		switch {
		case err != nil:
			return blind()
		case a.status == 101 && !x.upgrade:
			return errors.New("the server changed the protocol unasked")
		case a.status == 101:
			tell(true)
			return copyRest(w, r)
		case a.status < 200:
			continue
		}
		tell(false)
		switch a.length {
		case lengthUntilEOF:
			return blind()
		case lengthChunked:
			err = copyChunked(w, r, false)
		default:
			err = copyLength(w, r, a.length)
		}
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.open--
		h.changed.Broadcast()
		h.mu.Unlock()
		return nil
	}
}

// copyRest copies until the source ends; it always returns an error, io.EOF at
// best.
func copyRest(w *bufio.Writer, r *bufio.Reader) error {
	for {
		if err := copyBuffered(w, r, 1<<62); err != nil {
			return err
		}
	}
}

// copyBuffered waits for at least a byte and copies what is there, n at most.
func copyBuffered(w *bufio.Writer, r *bufio.Reader, n int64) error {
	if _, err := r.Peek(1); err != nil {
		return err
	}
	b, err := r.Peek(int(min(int64(r.Buffered()), n)))
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return &writeError{err}
	}
	_, err = r.Discard(len(b))
	return err
}

// copyLength copies n bytes; io.EOF if there are fewer.
func copyLength(w *bufio.Writer, r *bufio.Reader, n int64) error {
	for n > 0 {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		part := min(int64(r.Buffered()), n)
		if err := copyBuffered(w, r, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// copyChunked copies a chunked body with its trailer (RFC 9112, 7.1). strict
// writes sizes anew, without extensions, and refuses a trailer that changes what
// the head said.
func copyChunked(w *bufio.Writer, r *bufio.Reader, strict bool) error {
	for {
		line, err := readLine(r, maxChunkLine)
		if err != nil {
			return err
		}
		n, err := chunkSize(line, strict)
		if err != nil {
			return err
		}
		if strict {
			line = strconv.AppendInt(nil, n, 16)
			line = append(line, "\r\n"...)
		}
		if _, err := w.Write(line); err != nil {
			return &writeError{err}
		}
		if n == 0 {
			return copyTrailer(w, r, strict)
		}
		if err := copyLength(w, r, n); err != nil {
			return err
		}
		end, err := readLine(r, 2)
		if err != nil {
			return err
		}
		if string(end) != "\r\n" && (strict || string(end) != "\n") {
			return malformed("a chunk that does not end where it should")
		}
		if _, err := w.Write(end); err != nil {
			return &writeError{err}
		}
	}
}

// chunkSize reads a chunk's size line.
func chunkSize(line []byte, strict bool) (int64, error) {
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok {
		if strict {
			return 0, malformed("a chunk's size must end in CR LF")
		}
		text = strings.TrimSuffix(text, "\n")
	}
	digits, ext, _ := strings.Cut(text, ";")
	digits = strings.TrimRight(digits, " \t")
	if len(digits) == 0 || len(digits) > 15 || strings.Trim(digits, "0123456789abcdefABCDEF") != "" || strings.ContainsAny(ext, "\r\x00") {
		return 0, malformed("a malformed chunk size")
	}
	return strconv.ParseInt(digits, 16, 64)
}

// copyTrailer copies the fields after the last chunk, and the empty line.
func copyTrailer(w *bufio.Writer, r *bufio.Reader, strict bool) error {
	for total := 0; ; {
		line, err := readLine(r, maxTrailer)
		if err != nil {
			return err
		}
		if total += len(line); total > maxTrailer {
			return malformed("a trailer longer than %d bytes", maxTrailer)
		}
		end := string(line) == "\r\n" || !strict && string(line) == "\n"
		if strict && !end {
			text, ok := strings.CutSuffix(string(line), "\r\n")
			if !ok {
				return malformed("lines of a trailer must end in CR LF")
			}
			f, err := parseField(text)
			if err != nil {
				return err
			}
			switch strings.ToLower(strings.ReplaceAll(f.name, "_", "-")) {
			case "host", "content-length", "transfer-encoding", "connection", "upgrade", "trailer":
				return malformed("a trailer with %s", f.name)
			}
		}
		if _, err := w.Write(line); err != nil {
			return &writeError{err}
		}
		if end {
			return nil
		}
	}
}

// readLine reads a line with its end, of max bytes at most.
func readLine(r *bufio.Reader, max int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > max {
			return nil, malformed("a line longer than %d bytes in a chunked body", max)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// checkRequest says why a request may not pass. Errors are *headError.
func (f *flow) checkRequest(q *request) error {
	authority, err := q.authority()
	if err != nil {
		return err
	}
	host, port, err := splitAuthority(authority)
	if err != nil {
		return err
	}
	if why := f.checkHost(host, port, "the request"); why != "" {
		return &headError{403, why}
	}
	return nil
}

// page is an answer about the flow itself: which rule would let it through.
func (f *flow) page(reason string) []byte {
	return errorPage(http.StatusForbidden, reason, f.g.suggest(f.to))
}

// errorPage is an answer of bawn's own, for people and agents to read. suggest
// is the rule that is missing, or empty.
func errorPage(status int, reason, suggest string) []byte {
	var body bytes.Buffer
	fmt.Fprintf(&body, "bawn: %s: %s\n", strings.ToLower(http.StatusText(status)), printable(reason))
	if suggest != "" && status == 403 {
		fmt.Fprintf(&body, "The rule that is missing: %s\nA person allows it on the host with: bawn policy allow %s\n", printable(suggest), printable(suggest))
	}
	fmt.Fprintf(&body, "What is allowed, and what was denied lately: http://%s/\n", InfoName)
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nX-Bawn: denied\r\nConnection: close\r\n\r\n",
		status, http.StatusText(status), body.Len())
	b.Write(body.Bytes())
	return b.Bytes()
}
