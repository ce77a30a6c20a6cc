// Package stall has an HTTP transport that gives up on a server that sends nothing.
package stall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// minBytes is how many bytes of an answer must arrive within the limit; fewer suffice if the answer then ends. So a
// server that sends a byte now and then holds nobody either.
const minBytes = 4 << 10

// Error means that a server has sent too little for too long.
type Error struct {
	Host  string
	Limit time.Duration
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s has sent nothing, or next to nothing, for %v: check the network and the proxy, and try again", e.Host, e.Limit)
}

// Transport fails a request with *Error if its answer does not begin within Limit, or if fewer than minBytes of the answer
// come while its reader waits for Limit. What the reader does meanwhile does not count. It may be used by several
// goroutines at once.
type Transport struct {
	Next  http.RoundTripper
	Limit time.Duration
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	b := &body{ctx: ctx, cancel: cancel, stalled: &Error{r.URL.Host, t.Limit}}
	timer := time.AfterFunc(t.Limit, b.stall)
	answer, err := t.Next.RoundTrip(r.WithContext(ctx))
	timer.Stop()
	if err == nil && ctx.Err() != nil { // as the answer came
		answer.Body.Close()
		err = ctx.Err()
	}
	if err != nil {
		err = b.why(err)
		cancel(nil)
		return nil, err
	}
	b.ReadCloser = answer.Body
	answer.Body = b
	return answer, nil
}

// body is that of an answer. One goroutine at a time reads it.
type body struct {
	io.ReadCloser
	ctx     context.Context //nolint:containedctx // of the request: says why it was cancelled
	cancel  context.CancelCauseFunc
	stalled *Error
	got     int           // bytes since waited was 0
	waited  time.Duration // in Read
}

func (b *body) stall() { b.cancel(b.stalled) }

// why returns the stall for an error of the request that it has cancelled, and any other as it is.
func (b *body) why(err error) error {
	if cause := context.Cause(b.ctx); errors.Is(cause, b.stalled) {
		return cause
	}
	return err
}

func (b *body) Read(p []byte) (int, error) {
	began := time.Now()
	timer := time.AfterFunc(b.stalled.Limit-b.waited, b.stall)
	n, err := b.ReadCloser.Read(p)
	timer.Stop()
	b.waited += time.Since(began)
	if b.got += n; b.got >= minBytes {
		b.got, b.waited = 0, 0
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.why(err)
	}
	return n, err
}

// Close ends the request.
func (b *body) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}
