package inspect

import (
	"io"
	"net/http"
	"sync/atomic"
)

// counted counts the bytes of a request's body and of its answer's, and keeps the status. It is
// the ResponseWriter of one request.
type counted struct {
	http.ResponseWriter
	end    func(status int, sent, got int64) // of Admission; nil: the request was not admitted
	status int                               // of the final answer; 0: none yet
	got    int64
	sent   atomic.Int64
}

// WriteHeader implements http.ResponseWriter.
func (c *counted) WriteHeader(status int) {
	if status >= http.StatusOK || status == http.StatusSwitchingProtocols {
		c.status = status
	}
	c.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.got += int64(n)
	return n, err
}

// done tells that the request is over.
func (c *counted) done() {
	if c.end != nil {
		c.end(c.status, c.sent.Load(), c.got)
	}
}

// Unwrap is for http.ResponseController.
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// countedBody counts what is read from a request's body. A transport may still read it when the
// request is answered.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read implements io.Reader.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
