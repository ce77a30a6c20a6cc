// Package agent is the host's side of the conversation with a guest's agent: calls over
// the control port and streams over the mux port (package wire).
package agent

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"bawn.dev/bawn/internal/sys/text"
	"bawn.dev/bawn/internal/wire"
)

// Client is the host's end of the two virtio-serial ports (package wire). Its methods may
// be called by several goroutines at once.
//
// The guest is hostile: a line that is too long, that is not JSON or that
// nobody asked for ends the port for good (every later call fails), and
// nothing the guest sends makes the host hold more than one line and the mux's
// windows. A guest that does not read cannot hold a call either: whatever is sent to it
// is given up when the call's context ends. What it sends on the mux port is judged
// before yamux sees it (guard.go); these are the bounds:
//
//	a reply on the control port                      wire.MaxLine bytes
//	streams, opened by the host alone                maxStreams (1024) at once, each with
//	                                                 at most maxWindow (1 MiB) unread; of
//	                                                 ports maxTCPStreams (896), so that a
//	                                                 session finds room
//	streams whose opening waits for the guest        maxStreamsOpened (256); more wait
//	acknowledgements of a stream                     one
//	streams that ended unacknowledged                maxUnacknowledged (262144) in all
//	pings, streams that the guest opens              none
//	window updates of a stream                       freeUpdates (16), and one for each
//	                                                 bytesPerUpdate (64 KiB) sent to it
//	frames of streams that have ended, log lines     freeLate (64), latePerStream (8) for
//	                                                 each stream, latePerReset (4096) for
//	                                                 each that the host gave up
type Client struct {
	control net.Conn
	muxConn net.Conn
	log     *slog.Logger

	turn chan struct{} // holds a token while a request is sent
	rest []byte        // of a request whose sending was given up; with the token

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan wire.Reply
	broken  error
	closed  bool // no task starts any more
	mux     *yamux.Session

	opening chan struct{} // a token for each stream that is being opened

	tasks sync.WaitGroup
}

// New returns a client of the agent behind the two ports. It owns the connections; the
// caller closes it.
func New(control, mux net.Conn, log *slog.Logger) *Client {
	a := &Client{control: control, muxConn: mux, log: log, turn: make(chan struct{}, 1), waiting: map[uint64]chan wire.Reply{}, opening: make(chan struct{}, maxStreamsOpened)}
	a.tasks.Go(a.read)
	return a
}

// Close closes both ports and the streams, and returns when nothing of the client runs any
// more. Calls under way fail.
func (a *Client) Close() {
	a.control.Close()
	a.mu.Lock()
	a.closed = true
	mux := a.mux
	a.mu.Unlock()
	if mux != nil {
		mux.Close()
	}
	a.muxConn.Close()
	a.tasks.Wait()
}

// start runs task in a goroutine that Close waits for. After Close it does nothing and
// returns false.
func (a *Client) start(task func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.tasks.Go(task)
	return true
}

// read hands each reply to the call that waits for it, until the port ends.
func (a *Client) read() {
	sc := bufio.NewScanner(a.control)
	sc.Buffer(make([]byte, 0, 4096), wire.MaxLine)
	for sc.Scan() {
		var r wire.Reply
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			a.fail(fmt.Errorf("guest agent sent a malformed reply: %w", err))
			return
		}
		a.mu.Lock()
		ch, ok := a.waiting[r.ID]
		delete(a.waiting, r.ID)
		a.mu.Unlock()
		if ok {
			ch <- r
		}
		// A reply that nobody waits for belongs to a call given up. It is dropped.
	}
	err := sc.Err()
	if err == nil {
		err = io.EOF
	}
	a.fail(fmt.Errorf("control port ended: %w", err))
}

// fail ends all calls, now and later, with err.
func (a *Client) fail(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return
	}
	a.broken = err
	for id, ch := range a.waiting {
		delete(a.waiting, id)
		close(ch)
	}
}

// Err returns why the control port ended, or nil while it has not.
func (a *Client) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.broken
}

// Call sends a request to the agent and waits for its reply, which it decodes into out
// unless that is nil. When ctx ends first it returns the cause; the agent may still do
// what was asked.
func (a *Client) Call(ctx context.Context, op wire.Op, body, out any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	id, ch, err := a.register()
	if err != nil {
		return err
	}
	line, err := json.Marshal(wire.Request{ID: id, Op: op, Body: b})
	if err == nil {
		err = a.send(ctx, append(line, '\n'))
	}
	if err != nil {
		a.forget(id)
		return fmt.Errorf("guest agent: %s: %w", op, err)
	}
	select {
	case r, ok := <-ch:
		switch {
		case !ok:
			return a.Err()
		case r.Error != "":
			return fmt.Errorf("guest agent: %s: %s", op, reported(r.Error))
		case out == nil:
			return nil
		}
		return json.Unmarshal(r.Body, out)
	case <-ctx.Done():
		a.forget(id)
		return fmt.Errorf("guest agent: %s: %w", op, context.Cause(ctx))
	}
}

// register makes a call known before it is sent.
func (a *Client) register() (id uint64, reply chan wire.Reply, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return 0, nil, a.broken
	}
	a.next++
	reply = make(chan wire.Reply, 1)
	a.waiting[a.next] = reply
	return a.next, reply, nil
}

// forget drops a call that was given up.
func (a *Client) forget(id uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.waiting, id)
}

// send writes a line to the control port, one call after the other, until ctx ends. What
// is left of a line that was begun is sent before the next one: the agent then does what
// nobody waits for any more, and the port stays usable.
func (a *Client) send(ctx context.Context, line []byte) error {
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	release := interruptible(ctx, a.control.SetWriteDeadline)
	defer release()
	for len(a.rest) > 0 {
		n, err := a.control.Write(a.rest)
		a.rest = a.rest[n:]
		if err != nil {
			return sendError(ctx, err)
		}
	}
	n, err := a.control.Write(line)
	if err == nil {
		return nil
	}
	if n > 0 {
		a.rest = line[n:]
	}
	return sendError(ctx, err)
}

// sendError returns why a write failed: the end of ctx, if that ended it.
func sendError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// interruptible lets the end of ctx interrupt what a deadline bounds. The caller releases
// it before the connection is used for anything else.
func interruptible(ctx context.Context, setDeadline func(time.Time) error) (release func()) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = setDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-interrupted
			_ = setDeadline(time.Time{})
		}
	}
}

// reported returns a message from the guest, safe for a terminal and of bounded length.
func reported(message string) string { return text.Short(message, 2000) }

// maxStale bounds what may lie in the mux port before the nonce of a new
// session, in bytes: an earlier session's windows, and no more.
const maxStale = 64 << 20

// StartMux begins a mux session (see package wire).
func (a *Client) StartMux(ctx context.Context) error {
	nonce := make([]byte, wire.NonceLen)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	if err := a.Call(ctx, wire.OpMux, wire.MuxRequest{Nonce: nonce}, nil); err != nil {
		return err
	}
	release := interruptible(ctx, a.muxConn.SetDeadline)
	defer release()
	if _, err := a.muxConn.Write(nonce); err != nil {
		return fmt.Errorf("mux port: %w", sendError(ctx, err))
	}
	if err := skipPast(a.muxConn, nonce); err != nil {
		return fmt.Errorf("mux port: %w", sendError(ctx, err))
	}
	cfg := yamux.DefaultConfig()
	// Of a session that accepts no streams (guard) yamux uses this as the number of its own
	// that the other side has not acknowledged. A guest that gets the end of a stream before
	// it accepts it never acknowledges it, so a lower number could hold up all later ones.
	cfg.AcceptBacklog = maxStreams
	cfg.EnableKeepAlive = false
	cfg.MaxStreamWindowSize = maxWindow
	cfg.ConnectionWriteTimeout = time.Hour // a paused machine is not a dead one
	cfg.StreamOpenTimeout = 0
	cfg.StreamCloseTimeout = time.Hour // half-closed streams of a guest that never ends its half
	cfg.LogOutput = nil
	cfg.Logger = muxLogger{a.log}
	s, err := yamux.Client(newGuard(a.muxConn, a.log), cfg)
	if err != nil {
		return fmt.Errorf("mux port: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mux = s
	return nil
}

// skipPast reads up to and with the nonce, a byte at a time so that nothing
// after it is taken.
func skipPast(r io.Reader, nonce []byte) error {
	var last []byte
	one := make([]byte, 1)
	for range maxStale {
		if _, err := io.ReadFull(r, one); err != nil {
			return err
		}
		last = append(last, one[0])
		if len(last) > len(nonce) {
			last = last[1:]
		}
		if bytes.Equal(last, nonce) {
			return nil
		}
	}
	return errors.New("the guest agent did not begin the session")
}

// muxLogger passes yamux's log lines on to the supervisor's log.
type muxLogger struct{ log *slog.Logger }

func (l muxLogger) Print(v ...any) { l.log.Debug("mux", "message", reported(fmt.Sprint(v...))) }
func (l muxLogger) Printf(f string, v ...any) {
	l.log.Debug("mux", "message", reported(fmt.Sprintf(f, v...)))
}
func (l muxLogger) Println(v ...any) { l.log.Debug("mux", "message", reported(fmt.Sprintln(v...))) }
