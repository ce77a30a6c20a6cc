package egress

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/sys/relay"
	"bawn.dev/bawn/internal/sys/text"
)

// HTTP/2 in the clear (gRPC without TLS). Frames are passed on as they came;
// header blocks are held until they are whole, decoded, and their authority is
// compared. A refused request ends the connection: the server's header table
// would no longer match the client's.
//
// Frames are measured and passed on here, since http2.Framer would hold each one
// whole, up to 16 MiB of it. The Framer reads the header blocks, which are bounded.

const (
	frameHeader = 9 // bytes (RFC 9113, section 4.1)

	// maxTable is the largest header table that a client may ask for, in bytes.
	maxTable = 64 << 10
	// injectTime bounds the wait for the end of the server's current frame
	// before a refusal is put behind it.
	injectTime = time.Second
)

// http2Relay is one connection that speaks HTTP/2.
type http2Relay struct {
	f    *flow
	conn net.Conn

	block   bytes.Reader // the header block that is decoded
	framer  *http2.Framer
	decoder *hpack.Decoder
	fields  []httpwire.Field
	size    int // of the fields of one block, in bytes

	turn    chan struct{} // held while a frame goes to the client
	spoke   bool          // the server's SETTINGS went to the client; guarded by turn
	framed  bool          // what the server sends is frames; guarded by turn
	refused bool          // the client's side belongs to the refusal; guarded by turn
}

func (f *flow) newHTTP2(c net.Conn) *http2Relay {
	h := &http2Relay{f: f, conn: c, turn: make(chan struct{}, 1), framed: true}
	h.framer = http2.NewFramer(nil, &h.block)
	h.framer.SetMaxReadFrameSize(httpwire.MaxHead)
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
	var he *httpwire.Error
	switch {
	case errors.As(err, &he):
		f.refused(he.Why)
		abort(up)
		abort(c) // closed already, if the refusal could be sent
	case errors.Is(err, io.EOF):
		if w.Flush() == nil {
			_ = relay.CloseWrite(up)
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
	switch fh := parseFrameHeader(head); fh.Type {
	case http2.FrameHeaders:
		return h.headers(w, r)
	case http2.FramePushPromise, http2.FrameContinuation:
		return httpwire.Malformed("an HTTP/2 frame of type %d where none may be", fh.Type)
	default:
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
	}
}

// headers reads a header block, checks it and passes it on.
func (h *http2Relay) headers(w *bufio.Writer, r *bufio.Reader) error {
	raw, err := readBlock(r)
	if err != nil {
		return err
	}
	stream, err := h.decode(raw)
	if err != nil {
		return err
	}
	if err := h.f.checkFields(h.fields); err != nil {
		var he *httpwire.Error
		if errors.As(err, &he) {
			h.tell(stream, he)
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
// one, which decode refuses.
func readBlock(r *bufio.Reader) (raw []byte, err error) {
	for {
		head, err := r.Peek(frameHeader)
		if err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		fh, start := parseFrameHeader(head), len(raw)
		n := frameHeader + int(fh.Length)
		if start+n > httpwire.MaxHead {
			return nil, httpwire.Malformed("an HTTP/2 header block longer than %d bytes", httpwire.MaxHead)
		}
		raw = append(raw, make([]byte, n)...)
		if _, err := io.ReadFull(r, raw[start:]); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		if fh.Flags.Has(http2.FlagHeadersEndHeaders) || start > 0 && fh.Type != http2.FrameContinuation {
			return raw, nil
		}
	}
}

// decode sets the fields to those of a block. The Framer takes padding and priority
// off, and refuses a block that is interrupted.
func (h *http2Relay) decode(raw []byte) (stream uint32, err error) {
	bad := httpwire.Malformed("a malformed HTTP/2 header block")
	h.block.Reset(raw)
	h.fields, h.size = h.fields[:0], 0
	for h.block.Len() > 0 {
		frame, err := h.framer.ReadFrame()
		if err != nil {
			return 0, bad
		}
		f, ok := frame.(interface{ HeaderBlockFragment() []byte })
		if !ok {
			return 0, bad
		}
		stream = frame.Header().StreamID
		if _, err := h.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return 0, bad
		}
	}
	if err := h.decoder.Close(); err != nil || h.size > httpwire.MaxHead {
		return 0, bad
	}
	return stream, nil
}

// field takes one decoded field; beyond the bound they are counted only.
func (h *http2Relay) field(f hpack.HeaderField) {
	h.size += len(f.Name) + len(f.Value) + 32 // as RFC 7541, 4.1 counts
	if h.size <= httpwire.MaxHead {
		h.fields = append(h.fields, httpwire.Field{Name: f.Name, Value: f.Value})
	}
}

// checkFields judges a header block: a request, or a trailer. Errors are
// *httpwire.Error.
func (f *flow) checkFields(fields []httpwire.Field) error {
	var method, protocol string
	var authorities []string
	pseudo := 0
	for _, x := range fields {
		name := strings.ToLower(strings.ReplaceAll(x.Name, "_", "-"))
		switch {
		case x.Name == ":method":
			method = x.Value
		case x.Name == ":protocol":
			protocol = x.Value
		case name == ":authority" || name == "host":
			authorities = append(authorities, x.Value)
		}
		if strings.HasPrefix(x.Name, ":") {
			pseudo++
		}
	}
	switch {
	case pseudo == 0 && len(authorities) == 0:
		return nil // a trailer
	case method == "CONNECT" && protocol == "":
		return httpwire.ErrConnect
	case len(authorities) == 0:
		return httpwire.ErrNoHost
	}
	for _, a := range authorities {
		if err := f.checkAuthority(a); err != nil {
			return err
		}
	}
	return nil
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
