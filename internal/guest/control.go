package guest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"bawn.dev/bawn/internal/wire"
)

// handler answers one request. Its result becomes Reply.Body, its error Reply.Error.
type handler func(body json.RawMessage) (any, error)

// handle makes a handler of a function with a typed request.
func handle[In any](f func(In) (any, error)) handler {
	return func(body json.RawMessage) (any, error) {
		var in In
		if len(body) > 0 {
			if err := json.Unmarshal(body, &in); err != nil {
				return nil, fmt.Errorf("malformed request: %w", err)
			}
		}
		return f(in)
	}
}

// queued bounds the requests of a lane that wait for an earlier one. Reading stops there.
const queued = 64

// lane is a set of requests that are answered one after the other, independently of those
// of other lanes.
type lane map[wire.Op]handler

// serveControl answers the requests on the port until reading fails. Requests of
// different lanes are answered at the same time. An unknown request is answered with an
// error, in the first lane.
func serveControl(port io.ReadWriter, lanes ...lane) error {
	var mu sync.Mutex
	answer := func(r wire.Request, h handler) {
		line := reply(r, h)
		mu.Lock()
		defer mu.Unlock()
		_, _ = port.Write(line) // if the host is gone, reading fails too
	}
	var first chan<- func()
	queues := map[wire.Op]chan<- func(){}
	handlers := map[wire.Op]handler{}
	for _, l := range lanes {
		q := inOrder()
		defer close(q)
		if first == nil {
			first = q
		}
		for op, h := range l {
			queues[op], handlers[op] = q, h
		}
	}
	sc := bufio.NewScanner(port)
	sc.Buffer(make([]byte, 0, 4096), wire.MaxLine)
	for sc.Scan() {
		var r wire.Request
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			continue // such as half a line of an earlier host
		}
		q, h := queues[r.Op], handlers[r.Op]
		if h == nil {
			q, h = first, func(json.RawMessage) (any, error) { return nil, fmt.Errorf("unknown request %q", r.Op) }
		}
		q <- func() { answer(r, h) }
	}
	return sc.Err()
}

// inOrder returns a channel of functions, which one goroutine calls one after the other
// until the channel is closed.
func inOrder() chan<- func() {
	queue := make(chan func(), queued)
	go func() {
		for f := range queue {
			f()
		}
	}()
	return queue
}

// reply calls the handler and returns the line to send.
func reply(r wire.Request, h handler) []byte {
	out := wire.Reply{ID: r.ID}
	v, err := h(r.Body)
	if err == nil && v != nil {
		out.Body, err = json.Marshal(v)
	}
	if err != nil {
		out.Error = err.Error()
	}
	line, err := json.Marshal(out)
	if err != nil {
		panic(err) // a Reply of strings always marshals
	}
	return append(line, '\n')
}
