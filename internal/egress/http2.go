package egress

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// HTTP/2 in the clear (gRPC without TLS). Frames are passed on as they came;
// header blocks are held until they are whole, decoded, and their authority is
// compared. A refused request ends the connection: the server's header table
// would no longer match the client's.

const (
	frameHeader = 9 // bytes (RFC 9113, section 4.1)

	frameData         = 0x0
	frameHeaders      = 0x1
	frameSettings     = 0x4
	framePushPromise  = 0x5
	frameGoAway       = 0x7
	frameContinuation = 0x9

	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	// maxTable is the largest header table that a client may ask for, in bytes.
	maxTable = 64 << 10
	// injectTime bounds the wait for the end of the server's current frame
	// before a refusal is put behind it.
	injectTime = time.Second
)

// http2Relay is one connection that speaks HTTP/2.
type http2Relay struct {
	f       *flow
	conn    net.Conn
	decoder *hpack.Decoder
	fields  []field
	size    int // of the fields of one block, in bytes

	turn    chan struct{} // held while a frame goes to the client
	spoke   bool          // the server's SETTINGS went to the client; with turn
	framed  bool          // what the server sends is frames; with turn
	refused bool          // with turn
}

// serveHTTP2 relays a connection that begins with the HTTP/2 preface.
func (f *flow) serveHTTP2(c net.Conn, head []byte, dial func() (net.Conn, error)) {
	f.setApp("http2")
	// The server must be dialled before the first request: many clients wait
	// for its settings.
	up, err := dial()
	if err != nil {
		abort(c)
		return
	}
	h := &http2Relay{f: f, conn: c, turn: make(chan struct{}, 1), framed: true}
	h.decoder = hpack.NewDecoder(4096, h.field)
	h.decoder.SetMaxStringLength(maxHead)
	h.decoder.SetAllowedMaxDynamicTableSize(maxTable)
	w := bufio.NewWriterSize(up, smallBuffer)
	r := bufio.NewReaderSize(&flushReader{&prefixed{Conn: c, head: head}, w}, httpBuffer)
	var answers sync.WaitGroup
	answers.Go(func() { h.answers(up) })
	defer answers.Wait()
	err = copyLength(w, r, int64(len(http2Preface)))
	for err == nil {
		err = h.frame(w, r)
	}
	var he *headError
	switch {
	case errors.As(err, &he):
		f.refused(he.why)
		abort(up)
		abort(c) // a refusal that could be told has closed it already
	case errors.Is(err, io.EOF):
		if w.Flush() == nil {
			_ = closeWrite(up)
		}
	default:
		abort(up)
		abort(c)
	}
}

// frame passes one frame of the client on, or one whole header block.
func (h *http2Relay) frame(w *bufio.Writer, r *bufio.Reader) error {
	head, err := r.Peek(frameHeader)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	switch head[3] {
	case frameHeaders:
		return h.block(w, r)
	case framePushPromise, frameContinuation:
		return malformed("an HTTP/2 frame of type %d where none may be", head[3])
	}
	err = copyLength(w, r, int64(frameHeader+frameLength(head)))
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func frameLength(head []byte) int { return int(head[0])<<16 | int(head[1])<<8 | int(head[2]) }

// block reads HEADERS with its CONTINUATIONs, checks them and passes them on.
func (h *http2Relay) block(w *bufio.Writer, r *bufio.Reader) error {
	var raw, block []byte
	var stream uint32
	for {
		start := len(raw)
		var err error
		if raw, err = readFrame(r, raw); err != nil {
			return err
		}
		head, payload := raw[start:start+frameHeader], raw[start+frameHeader:]
		kind, flags, id := head[3], head[4], binary.BigEndian.Uint32(head[5:])&0x7fffffff
		switch {
		case start == 0:
			stream = id
			if payload, err = stripHeaders(payload, flags); err != nil {
				return err
			}
		case kind != frameContinuation || id != stream:
			return malformed("an HTTP/2 header block that is interrupted")
		}
		block = append(block, payload...)
		if flags&flagEndHeaders != 0 {
			break
		}
	}
	h.fields, h.size = h.fields[:0], 0
	_, err := h.decoder.Write(block)
	if err == nil {
		err = h.decoder.Close()
	}
	if err != nil || h.size > maxHead {
		return malformed("a malformed HTTP/2 header block")
	}
	if err := h.f.checkFields(h.fields); err != nil {
		var he *headError
		if errors.As(err, &he) {
			h.tell(stream, he)
		}
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return &writeError{err}
	}
	return nil
}

// readFrame appends one frame to b, which may not grow beyond maxHead.
func readFrame(r *bufio.Reader, b []byte) ([]byte, error) {
	head, err := r.Peek(frameHeader)
	if err != nil {
		return b, io.ErrUnexpectedEOF
	}
	n := frameHeader + frameLength(head)
	if len(b)+n > maxHead {
		return b, malformed("an HTTP/2 header block longer than %d bytes", maxHead)
	}
	start := len(b)
	b = append(b, make([]byte, n)...)
	if _, err := io.ReadFull(r, b[start:]); err != nil {
		return b, io.ErrUnexpectedEOF
	}
	return b, nil
}

// stripHeaders takes padding and priority off a HEADERS payload.
func stripHeaders(p []byte, flags byte) ([]byte, error) {
	pad := 0
	bad := malformed("a malformed HTTP/2 HEADERS frame")
	if flags&flagPadded != 0 {
		if len(p) < 1 {
			return nil, bad
		}
		pad, p = int(p[0]), p[1:]
	}
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return nil, bad
		}
		p = p[5:]
	}
	if pad > len(p) {
		return nil, bad
	}
	return p[:len(p)-pad], nil
}

// field takes one decoded field; beyond the bound they are counted only.
func (h *http2Relay) field(f hpack.HeaderField) {
	h.size += len(f.Name) + len(f.Value) + 32 // as RFC 7541, 4.1 counts
	if h.size <= maxHead {
		h.fields = append(h.fields, field{f.Name, f.Value})
	}
}

// checkFields judges a header block: a request, or a trailer. Errors are
// *headError.
func (f *flow) checkFields(fields []field) error {
	var method, protocol string
	var authorities []string
	pseudo := 0
	for _, x := range fields {
		name := strings.ToLower(strings.ReplaceAll(x.name, "_", "-"))
		switch {
		case x.name == ":method":
			method = x.value
		case x.name == ":protocol":
			protocol = x.value
		case name == ":authority" || name == "host":
			authorities = append(authorities, x.value)
		}
		if strings.HasPrefix(x.name, ":") {
			pseudo++
		}
	}
	switch {
	case pseudo == 0 && len(authorities) == 0:
		return nil // a trailer
	case method == "CONNECT" && protocol == "":
		return &headError{403, "CONNECT is not let through: connect to the name itself, bawn needs no proxy"}
	case len(authorities) == 0:
		return &headError{403, "the request names no host"}
	}
	for _, a := range authorities {
		host, port, err := splitAuthority(a)
		if err != nil {
			return err
		}
		if why := f.checkHost(host, port, "the request"); why != "" {
			return &headError{403, why}
		}
	}
	return nil
}

// answers passes the server's frames on, one at a time, so that a refusal can
// be put between two.
func (h *http2Relay) answers(up net.Conn) {
	w := bufio.NewWriterSize(h.conn, smallBuffer)
	r := bufio.NewReaderSize(&flushReader{up, w}, httpBuffer)
	err := error(nil)
	for err == nil {
		err = h.answerFrame(w, r)
	}
	h.turn <- struct{}{}
	refused := h.refused
	if !refused {
		if ferr := w.Flush(); ferr != nil {
			err = ferr
		}
	}
	<-h.turn
	switch {
	case refused:
	case errors.Is(err, io.EOF):
		_ = closeWrite(h.conn)
		_ = h.conn.SetReadDeadline(time.Now().Add(oneWayTime))
	default:
		abort(h.conn)
		abort(up)
	}
}

func (h *http2Relay) answerFrame(w *bufio.Writer, r *bufio.Reader) error {
	head, err := r.Peek(frameHeader)
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	switch {
	case h.refused:
		return errRefused
	case !h.framed || err != nil && len(head) > 0 || err == nil && !h.spoke && head[3] != frameSettings:
		h.framed = false // not HTTP/2: as it is until it ends
		return copyRest(w, r)
	case err != nil:
		return err
	}
	h.spoke = true
	if err := copyLength(w, r, int64(frameHeader+frameLength(head))); err != nil {
		return io.ErrUnexpectedEOF
	}
	return w.Flush()
}

// tell answers a refused request in its own stream, and says goodbye.
func (h *http2Relay) tell(stream uint32, he *headError) {
	select {
	case h.turn <- struct{}{}:
	case <-time.After(injectTime):
		return // the server is in the middle of a frame: a reset must do
	}
	defer func() { <-h.turn }()
	if !h.framed {
		return
	}
	h.refused = true
	var b []byte
	if !h.spoke {
		b = appendFrame(b, frameSettings, 0, 0, nil)
	}
	// Fields that touch no header table (RFC 7541, 6.2.2): 8 is :status, 31 is
	// content-type.
	block := append([]byte{0x08, 3}, fmt.Sprintf("%03d", he.status)...)
	block = append(block, 0x0f, 31-15, byte(len("text/plain")))
	block = append(block, "text/plain"...)
	b = appendFrame(b, frameHeaders, flagEndHeaders, stream, block)
	b = appendFrame(b, frameData, flagEndStream, stream, []byte("bawn: "+printable(he.why)+"\n"))
	b = appendFrame(b, frameGoAway, 0, 0, binary.BigEndian.AppendUint32(nil, stream), make([]byte, 4))
	refuse(h.conn, b)
}

func appendFrame(b []byte, kind, flags byte, stream uint32, payload ...[]byte) []byte {
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}
