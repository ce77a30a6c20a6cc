package inspect

import (
	"io"
	"net/http"
)

// earlyAnswer is the body of an answer over HTTP/2 that may end before the request's body does, as that of
// a refusal. A client then sends no more and does not end its body either, and the transport would wait for it: so
// the request's body is closed with the answer.
type earlyAnswer struct {
	io.ReadCloser
	request io.Closer
}

// endWithAnswer arranges that for the request of an exchange.
func endWithAnswer(x *exchange, res *http.Response) {
	if x != nil && x.body != nil && res.Body != nil {
		res.Body = &earlyAnswer{res.Body, x.body}
	}
}

// Read implements io.Reader.
func (e *earlyAnswer) Read(p []byte) (int, error) {
	n, err := e.ReadCloser.Read(p)
	if err != nil {
		e.request.Close()
	}
	return n, err
}

// Close implements io.Closer.
func (e *earlyAnswer) Close() error {
	e.request.Close()
	return e.ReadCloser.Close()
}
