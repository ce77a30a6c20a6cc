package control

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// A request may take long: a guest shuts down, a machine is saved. A supervisor that was stopped
// (SIGSTOP) or that hangs takes requests as well, because the kernel accepts connections for it,
// and answers none. So while a request waits, the client asks for the status beside it.

// defaultProbe is the time between two such questions, and how long an answer may take. The
// supervisor hangs if two questions in a row get none.
const defaultProbe = 15 * time.Second

// ErrHangs is the error of a request to a supervisor that answers nothing.
var ErrHangs error = &Error{Reason: ReasonHangs, Err: errors.New("the sandbox's supervisor takes requests and answers none: the process is stopped, or hangs")}

// WhileAnswering returns a context that ends with ctx, or with the cause ErrHangs once the supervisor
// leaves questions for its status unanswered. It ignores a supervisor that cannot be connected to: the
// request itself fails then. The caller calls done.
func (c *Client) WhileAnswering(ctx context.Context) (answering context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for missed := 0; missed < 2; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(c.probe):
			}
			if c.silent(ctx) {
				missed++
			} else {
				missed = 0
			}
		}
		cancel(ErrHangs)
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// silent reports whether the supervisor lets a question for its status wait.
func (c *Client) silent(ctx context.Context) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, c.probe, ErrHangs)
	defer cancel()
	err := c.ask(ctx, http.MethodGet, "/status", nil, nil)
	return errors.Is(err, ErrHangs)
}
