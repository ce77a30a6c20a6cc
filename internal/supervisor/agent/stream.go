package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/sys/lines"
	"bawn.dev/bawn/internal/wire"
)

// stream is a stream of the mux session. Every frame that yamux sends, also that of a Close, waits
// until the guest has read the mux port, and no deadline ends this wait. So Close returns at once,
// and so does a relay that is given up (relay.Until). The calls that still wait are tasks of the
// client, which end with the session.
type stream struct {
	*yamux.Stream
	client  *Client
	closing sync.Once
}

// Close ends the host's half of the stream; reads continue until the guest ends its own. It
// returns at once.
func (s *stream) Close() error {
	s.closing.Do(func() { s.client.start(func() { _ = s.Stream.Close() }) }) // after Close of the client there is nothing to tell
	return nil
}

// giveUp ends both halves: reads and writes fail from now on.
func (s *stream) giveUp() {
	_ = s.SetDeadline(time.Unix(1, 0))
	s.Close()
}

// Go runs f as a task of the client: Close of the client waits for it, and lets every call of
// the stream fail. After that it does nothing and returns false (relay.Until).
func (s *stream) Go(f func()) bool { return s.client.start(f) }

// Open opens a stream of the kind. It fails unless StartMux has succeeded. When ctx ends first it
// returns the cause; a stream that opens later is closed.
func (a *Client) Open(ctx context.Context, h wire.StreamHeader) (net.Conn, error) {
	type opened struct {
		stream *stream
		err    error
	}
	done := make(chan opened)
	select {
	case a.opening <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	started := a.start(func() { // it ends with the session, whose writes have no deadline
		defer func() { <-a.opening }()
		s, err := a.openStream(h)
		select {
		case done <- opened{s, err}:
		case <-ctx.Done():
			if err == nil {
				s.Close()
			}
		}
	})
	if !started {
		<-a.opening
		return nil, net.ErrClosed
	}
	select {
	case o := <-done:
		if o.err != nil {
			return nil, o.err
		}
		return o.stream, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// openStream opens a stream, however long the guest does not read.
func (a *Client) openStream(h wire.StreamHeader) (*stream, error) {
	a.mu.Lock()
	mux := a.mux
	a.mu.Unlock()
	if mux == nil {
		return nil, errors.New("the guest is not connected yet")
	}
	limit := maxStreams
	if h.Kind == wire.StreamTCP {
		limit = maxTCPStreams
	}
	if mux.NumStreams() >= limit {
		return nil, fmt.Errorf("guest: %d connections to it are open, which is the limit: close some of them", limit)
	}
	opened, err := mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	s := &stream{Stream: opened, client: a}
	b, err := json.Marshal(h)
	if err == nil {
		_, err = s.Write(append(b, '\n'))
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("guest: %w", err)
	}
	return s, nil
}

// maxStreamReply bounds the line in which the guest answers to a stream's header, in bytes.
const maxStreamReply = 4096

// dialLimit is how long a guest may take to connect to a port of its own. A connection whose
// client has gone meanwhile keeps its place until then.
const dialLimit = time.Minute

// errDialLimit is the cause of a DialTCP that took too long.
var errDialLimit = fmt.Errorf("the guest did not answer within %v", dialLimit)

// DialTCP opens a stream to a TCP port on the guest's loopback. When ctx ends first it
// returns the cause. It takes dialLimit at most.
func (a *Client) DialTCP(ctx context.Context, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialLimit, errDialLimit)
	defer cancel()
	s, err := a.Open(ctx, wire.StreamHeader{Kind: wire.StreamTCP, Port: port})
	if err != nil {
		return nil, fmt.Errorf("guest port %d: %w", port, err)
	}
	release := interruptible(ctx, s.SetReadDeadline)
	line, err := lines.ReadExact(s, maxStreamReply)
	release()
	if err == nil {
		var r wire.StreamReply
		if err = json.Unmarshal(line, &r); err == nil && r.Error != "" {
			err = errors.New(reported(r.Error))
		}
	}
	if err != nil {
		s.(*stream).giveUp()
		return nil, fmt.Errorf("guest port %d: %w", port, sendError(ctx, err))
	}
	return s, nil
}
