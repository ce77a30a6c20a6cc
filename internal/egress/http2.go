package egress

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/sys/relay"
	"bawn.dev/bawn/internal/sys/text"
)

// HTTP/2 in the clear (gRPC without TLS). Frames are passed on as they came;
// header blocks are held until they are whole, decoded, and judged like the heads of
// HTTP/1 (httpwire.ParseFields); bodies are measured where their length was announced.
// A refused request ends the connection: the server's header table would no longer
// match the client's.
//
// Frames are measured and passed on here, since http2.Framer would hold each one
// whole, up to 16 MiB of it. A header block is bounded in size and time.

const (
	frameHeader = 9 // bytes (RFC 9113, section 4.1)

	// maxTable is the largest header table that a client may ask for, in bytes.
	maxTable = 64 << 10
	// maxMeasured bounds the bodies of an announced length that are open at a time.
	maxMeasured = 1000
	// injectTime bounds the wait for the end of the server's current frame
	// before a refusal is put behind it.
	injectTime = time.Second
)

// http2Relay is one connection that speaks HTTP/2.
type http2Relay struct {
	f    *flow
	conn net.Conn

	decoder *hpack.Decoder
	fields  []httpwire.Field
	size    int // of the fields of one block, in bytes

	newest uint32           // the latest stream that the client began
	bodies map[uint32]int64 // what is to come of bodies of an announced length, by stream

	turn    chan struct{} // held while a frame goes to the client
	spoke   bool          // the server's SETTINGS went to the client; guarded by turn
	framed  bool          // what the server sends is frames; guarded by turn
	refused bool          // the client's side belongs to the refusal; guarded by turn
}

func (f *flow) newHTTP2(c net.Conn) *http2Relay {
	h := &http2Relay{f: f, conn: c, turn: make(chan struct{}, 1), framed: true, bodies: map[uint32]int64{}}
	h.decoder = hpack.NewDecoder(4096, h.field)
	h.decoder.SetMaxStringLength(httpwire.MaxHead)
	h.decoder.SetAllowedMaxDynamicTableSize(maxTable)
	return h
}

// serveHTTP2 relays a connection that begins with the HTTP/2 preface.
func (f *flow) serveHTTP2(c *heldConn, dial func() (net.Conn, error)) {
	f.setApp("http2")
	// The server must be dialled before the first request: many clients wait
	// for its settings.
	up, err := dial()
	if err != nil {
		abort(c)
		return
	}
	h := f.newHTTP2(c)
	w := bufio.NewWriterSize(up, smallBuffer)
	r := bufio.NewReaderSize(&httpwire.FlushReader{R: c, W: w}, httpBuffer)
	var answers sync.WaitGroup
	answers.Go(func() { h.answers(up) })
	defer answers.Wait()
	err = httpwire.CopyLength(w, r, int64(len(http2Preface)))
	for err == nil {
		err = h.frame(w, r)
	}
	var denied *deniedRequest
	var he *httpwire.Error
	switch {
	case errors.As(err, &he):
		if !errors.As(err, &denied) { // those are logged
			f.refused(he.Why)
		}
		abort(up)
		abort(c) // closed already, if the refusal could be sent
	case errors.Is(err, io.EOF):
		if w.Flush() == nil {
			_ = relay.CloseWrite(up)
		}
	case isTimeout(err):
		f.refused("an HTTP/2 header block does not end")
		abort(up)
		abort(c)
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
	switch fh := parseFrameHeader(head); fh.Type {
	case http2.FrameHeaders:
		return h.headers(w, r)
	case http2.FramePushPromise, http2.FrameContinuation:
		return httpwire.Malformed("an HTTP/2 frame of type %d where none may be", fh.Type)
	default:
		if err := h.measure(r, fh); err != nil {
			return err
		}
		err = httpwire.CopyLength(w, r, int64(frameHeader+fh.Length))
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseFrameHeader reads the type, flags and length in a header of frameHeader
// bytes. Unlike http2.ReadFrameHeader it allocates nothing.
func parseFrameHeader(b []byte) http2.FrameHeader {
	return http2.FrameHeader{
		Length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		Type:   http2.FrameType(b[3]), Flags: http2.Flags(b[4]),
		StreamID: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
}

// measure takes what a frame brings off its stream's announced length.
func (h *http2Relay) measure(r *bufio.Reader, fh http2.FrameHeader) error {
	left, ok := h.bodies[fh.StreamID]
	switch {
	case !ok:
		return nil
	case fh.Type == http2.FrameRSTStream:
		delete(h.bodies, fh.StreamID)
		return nil
	case fh.Type != http2.FrameData:
		return nil
	}
	size := int64(fh.Length)
	if fh.Flags.Has(http2.FlagDataPadded) {
		head, err := r.Peek(frameHeader + 1)
		if err != nil {
			return io.ErrUnexpectedEOF
		}
		size -= 1 + int64(head[frameHeader])
	}
	if left -= size; size < 0 || left < 0 {
		return errBodyLength
	}
	h.bodies[fh.StreamID] = left
	if fh.Flags.Has(http2.FlagDataEndStream) {
		return h.bodyEnds(fh.StreamID)
	}
	return nil
}

var errBodyLength = httpwire.Malformed("a body of another length than announced")

// bodyEnds judges the end of a stream's body.
func (h *http2Relay) bodyEnds(stream uint32) error {
	left := h.bodies[stream]
	delete(h.bodies, stream)
	if left != 0 {
		return errBodyLength
	}
	return nil
}

// headers reads a header block, checks it and passes it on.
func (h *http2Relay) headers(w *bufio.Writer, r *bufio.Reader) error {
	if h.conn != nil {
		_ = h.conn.SetReadDeadline(time.Now().Add(h.f.g.headTime))
	}
	raw, err := readBlock(r)
	if err != nil {
		return err
	}
	if h.conn != nil {
		_ = h.conn.SetReadDeadline(time.Time{})
	}
	if err := h.decode(raw); err != nil {
		return err
	}
	first := parseFrameHeader(raw)
	err = h.judge(first.StreamID, first.Flags.Has(http2.FlagHeadersEndStream))
	clear(h.fields)
	if err != nil {
		var he *httpwire.Error
		if errors.As(err, &he) {
			h.tell(first.StreamID, he)
		}
		return err
	}
	if _, err := w.Write(raw); err != nil {
		return &httpwire.WriteError{Err: err}
	}
	return nil
}

// readBlock reads a HEADERS frame and its CONTINUATIONs as they came, at most
// httpwire.MaxHead bytes. Where another frame comes in between it ends with that
// one, which decode refuses. What it holds grows with what comes.
func readBlock(r *bufio.Reader) (raw []byte, err error) {
	for {
		head, err := r.Peek(frameHeader)
		if err != nil {
			return nil, unexpected(err)
		}
		fh, start := parseFrameHeader(head), len(raw)
		n := frameHeader + int(fh.Length)
		if start+n > httpwire.MaxHead {
			return nil, httpwire.Malformed("an HTTP/2 header block longer than %d bytes", httpwire.MaxHead)
		}
		for n > 0 {
			if _, err := r.Peek(1); err != nil {
				return nil, unexpected(err)
			}
			b, _ := r.Peek(min(n, r.Buffered()))
			raw = append(raw, b...)
			n -= len(b)
			_, _ = r.Discard(len(b))
		}
		if fh.Flags.Has(http2.FlagHeadersEndHeaders) || start > 0 && fh.Type != http2.FrameContinuation {
			return raw, nil
		}
	}
}

// unexpected is the error of a stream that ends where it may not.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

var errBlock = httpwire.Malformed("a malformed HTTP/2 header block")

// decode sets the fields to those of a block, and refuses one that is interrupted.
func (h *http2Relay) decode(raw []byte) error {
	h.fields, h.size = h.fields[:0], 0
	stream := parseFrameHeader(raw).StreamID
	for first := true; len(raw) > 0; first = false {
		fh := parseFrameHeader(raw)
		part := raw[frameHeader : frameHeader+int(fh.Length)]
		raw = raw[frameHeader+len(part):]
		ok := first || fh.Type == http2.FrameContinuation
		if first {
			part, ok = unpad(part, fh.Flags)
		}
		if !ok || fh.StreamID != stream || stream == 0 {
			return errBlock
		}
		if _, err := h.decoder.Write(part); err != nil {
			return errBlock
		}
	}
	if err := h.decoder.Close(); err != nil || h.size > httpwire.MaxHead {
		return errBlock
	}
	return nil
}

// unpad takes padding and priority off a HEADERS frame's contents.
func unpad(b []byte, flags http2.Flags) ([]byte, bool) {
	padding := 0
	if flags.Has(http2.FlagHeadersPadded) {
		if len(b) == 0 {
			return nil, false
		}
		padding, b = int(b[0]), b[1:]
	}
	if flags.Has(http2.FlagHeadersPriority) {
		if len(b) < 5 {
			return nil, false
		}
		b = b[5:]
	}
	if padding > len(b) {
		return nil, false
	}
	return b[:len(b)-padding], true
}

// judge judges the fields of a block: a new stream begins with a request, and on one
// that is there already only a trailer may come, which ends it.
func (h *http2Relay) judge(stream uint32, ends bool) error {
	if stream <= h.newest {
		if !ends {
			return httpwire.Malformed("a trailer of HTTP/2 that does not end its stream")
		}
		if err := h.bodyEnds(stream); err != nil {
			return err
		}
		if err := httpwire.CheckTrailerFields(h.fields); err != nil {
			return err
		}
		return h.f.checkTrailer(h.fields)
	}
	if stream%2 == 0 {
		return httpwire.Malformed("a stream of HTTP/2 with an even number")
	}
	q, err := httpwire.ParseFields(h.fields)
	if err != nil {
		return err
	}
	h.newest = stream
	switch {
	case ends && q.Length > 0:
		return errBodyLength
	case !ends && q.Length >= 0 && len(h.bodies) == maxMeasured:
		return httpwire.Malformed("more than %d bodies at a time", maxMeasured)
	case !ends && q.Length >= 0:
		h.bodies[stream] = q.Length
	}
	if err := h.f.checkAuthority(q.Authority); err != nil {
		return err
	}
	if err := h.f.checkClear(q.Target, each(h.fields)); err != nil || !h.f.judgesRequests() {
		return err
	}
	open, err := h.f.beginRequest(q.Method, "http", q.Target, each(h.fields))
	if err != nil {
		return err
	}
	// Its answer is not read, so that it is not known when it is over.
	h.f.setUnlisted()
	open.end(0, max(q.Length, 0), 0)
	return nil
}

// field takes one decoded field; beyond the bound they are counted only.
func (h *http2Relay) field(f hpack.HeaderField) {
	h.size += len(f.Name) + len(f.Value) + 32 // as RFC 7541, 4.1 counts
	if h.size <= httpwire.MaxHead {
		h.fields = append(h.fields, httpwire.Field{Name: f.Name, Value: f.Value})
	}
}

// answers passes the server's frames on, one at a time, so that a refusal can
// be put between two.
func (h *http2Relay) answers(up net.Conn) {
	w := bufio.NewWriterSize(h.conn, smallBuffer)
	r := bufio.NewReaderSize(&httpwire.FlushReader{R: up, W: w}, httpBuffer)
	var err error
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
		_ = relay.CloseWrite(h.conn)
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
	case !h.framed || err != nil && len(head) > 0 || err == nil && !h.spoke && parseFrameHeader(head).Type != http2.FrameSettings:
		h.framed = false // not HTTP/2: as it is until it ends
		return httpwire.CopyRest(w, r)
	case err != nil:
		return err
	}
	h.spoke = true
	if err := httpwire.CopyLength(w, r, int64(frameHeader+parseFrameHeader(head).Length)); err != nil {
		return io.ErrUnexpectedEOF
	}
	return w.Flush()
}

// tell answers a refused request in its own stream, and ends the connection.
func (h *http2Relay) tell(stream uint32, he *httpwire.Error) {
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
	refuse(h.conn, http2Refusal(stream, !h.spoke, he))
}

// http2Refusal returns the frames that answer a stream and end the connection.
// settings: they are the first ones that the client gets.
func http2Refusal(stream uint32, settings bool, he *httpwire.Error) []byte {
	var out, block bytes.Buffer // writing to them cannot fail
	fr, fields := http2.NewFramer(&out, nil), hpack.NewEncoder(&block)
	if settings {
		_ = fr.WriteSettings()
	}
	for _, f := range []hpack.HeaderField{{Name: ":status", Value: strconv.Itoa(he.Status)}, {Name: "content-type", Value: "text/plain"}} {
		f.Sensitive = true // the client's header table belongs to the server
		_ = fields.WriteField(f)
	}
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
	_ = fr.WriteData(stream, true, []byte("bawn: "+text.Line(he.Why)+"\n"))
	_ = fr.WriteGoAway(stream, http2.ErrCodeNo, nil)
	return out.Bytes()
}
