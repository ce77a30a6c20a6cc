package egress

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"time"

	"bawn.dev/bawn/internal/egress/httpwire"
	"bawn.dev/bawn/internal/sys/relay"
)

// copyBlind passes on what comes, unread, until the server ends.
func (h *httpRelay) copyBlind(w *bufio.Writer, r *bufio.Reader) error {
	h.mu.Lock()
	h.blind = true
	h.changed.Broadcast()
	h.refuseUpgrades()
	h.mu.Unlock()
	return httpwire.CopyRest(w, r)
}

// refuseUpgrades answers the requests in the list that wait for a 101. h.mu is held,
// and no request is listed afterwards.
func (h *httpRelay) refuseUpgrades() {
	for {
		select {
		case x := <-h.pending:
			x.answer(false)
		default:
			return
		}
	}
}

// relayAnswers passes answers on until the server ends.
func (h *httpRelay) relayAnswers() {
	count := &countedWriter{w: h.conn}
	w := bufio.NewWriterSize(count, smallBuffer)
	r := bufio.NewReaderSize(&httpwire.FlushReader{R: h.up, W: w}, httpBuffer)
	var err error
	for err == nil {
		err = h.answer(w, r, count)
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
		_ = relay.CloseWrite(h.conn)
		_ = h.conn.SetReadDeadline(time.Now().Add(oneWayTime))
	default:
		abort(h.conn)
		abort(h.up)
	}
}

// countedWriter counts what is written to w.
type countedWriter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// errNotHTTP means that the server's bytes cannot be read as an answer.
var errNotHTTP = errors.New("the server's answer is not HTTP/1")

// answer passes one answer on, with the interim ones before it.
func (h *httpRelay) answer(w *bufio.Writer, r *bufio.Reader, count *countedWriter) error {
	if _, err := r.Peek(1); err != nil {
		return err
	}
	var x exchange
	select {
	case x = <-h.pending:
	default:
		return h.copyBlind(w, r) // there is no request without an answer
	}
	a, err := finalHead(w, r, x)
	before := count.n + int64(w.Buffered())
	defer func() { x.end(a.Status, count.n+int64(w.Buffered())-before) }()
	x.answer(err == nil && a.Status == http.StatusSwitchingProtocols)
	switch {
	case errors.Is(err, errNotHTTP):
		return h.copyBlind(w, r)
	case err != nil:
		return err
	case a.Status == http.StatusSwitchingProtocols:
		return httpwire.CopyRest(w, r)
	}
	switch a.Length {
	case httpwire.LengthUntilEOF:
		return h.copyBlind(w, r)
	case httpwire.LengthChunked:
		err = httpwire.CopyChunked(w, r, false)
	default:
		err = httpwire.CopyLength(w, r, a.Length)
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

// finalHead passes heads on, up to that of the final answer or of a 101, which it
// returns.
func finalHead(w *bufio.Writer, r *bufio.Reader, x exchange) (httpwire.Answer, error) {
	for {
		head, err := httpwire.ReadHead(r)
		if _, werr := w.Write(head); werr != nil {
			return httpwire.Answer{}, werr
		}
		var tooLong *httpwire.Error
		switch {
		case errors.As(err, &tooLong):
			return httpwire.Answer{}, errNotHTTP
		case err != nil:
			return httpwire.Answer{}, err
		}
		a, err := httpwire.ParseAnswer(head, x.method)
		switch {
		case err != nil:
			return httpwire.Answer{}, errNotHTTP
		case a.Status == http.StatusSwitchingProtocols && !x.upgrade:
			return httpwire.Answer{}, errors.New("the server changed the protocol without being asked")
		case a.Status == http.StatusSwitchingProtocols || a.Status >= 200:
			return a, nil
		}
	}
}
