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

	"bawn.dev/bawn/internal/wire"
)

// Client is the host's end of the two virtio-serial ports (package wire).
//
// The guest is hostile: a line that is too long, that is not JSON or that
// nobody asked for ends the port for good (every later call fails), and
// nothing the guest sends makes the host hold more than one line and the mux's
// windows.
type Client struct {
	control net.Conn
	muxConn net.Conn
	log     *slog.Logger

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan wire.Reply
	broken  error

	mux *yamux.Session
}

// New returns a client that reads replies from control until that is closed. The caller
// owns both connections.
func New(control, mux net.Conn, log *slog.Logger) *Client {
	a := &Client{control: control, muxConn: mux, log: log, waiting: map[uint64]chan wire.Reply{}}
	go a.read()
	return a
}

// read hands each reply to who waits for it, until the port ends.
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

func (a *Client) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.broken
}

// Call asks the agent and waits for its reply; out may be nil.
func (a *Client) Call(ctx context.Context, op wire.Op, body, out any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ch := make(chan wire.Reply, 1)
	a.mu.Lock()
	if a.broken != nil {
		defer a.mu.Unlock()
		return a.broken
	}
	a.next++
	id := a.next
	a.waiting[id] = ch
	line, err := json.Marshal(wire.Request{ID: id, Op: op, Body: b})
	if err == nil {
		_, err = a.control.Write(append(line, '\n'))
	}
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("guest agent: %s: %w", op, err)
	}
	select {
	case r, ok := <-ch:
		switch {
		case !ok:
			return a.Err()
		case r.Error != "":
			return fmt.Errorf("guest agent: %s: %s", op, Printable(r.Error))
		case out == nil:
			return nil
		}
		return json.Unmarshal(r.Body, out)
	case <-ctx.Done():
		a.mu.Lock()
		delete(a.waiting, id)
		a.mu.Unlock()
		return fmt.Errorf("guest agent: %s: %w", op, context.Cause(ctx))
	}
}

// Printable keeps control characters of the guest's words off a terminal.
func Printable(s string) string {
	if len(s) > 2000 {
		s = s[:2000]
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, []byte(s)))
}

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
	stop := context.AfterFunc(ctx, func() { _ = a.muxConn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := a.muxConn.Write(nonce); err != nil {
		return fmt.Errorf("mux port: %w", err)
	}
	if err := skipPast(a.muxConn, nonce); err != nil {
		return fmt.Errorf("mux port: %w", err)
	}
	cfg := yamux.DefaultConfig()
	cfg.AcceptBacklog = 1 // the guest has no business opening streams
	cfg.EnableKeepAlive = false
	cfg.MaxStreamWindowSize = 1 << 20
	cfg.ConnectionWriteTimeout = time.Hour // a paused machine is not a dead one
	cfg.StreamOpenTimeout = 0
	cfg.StreamCloseTimeout = time.Hour // half-closed streams of a guest that never ends its half
	cfg.LogOutput = nil
	cfg.Logger = muxLogger{a.log}
	s, err := yamux.Client(a.muxConn, cfg)
	if err != nil {
		return fmt.Errorf("mux port: %w", err)
	}
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
	return errors.New("guest agent did not begin the session")
}

// Open opens a stream of the kind.
func (a *Client) Open(h wire.StreamHeader) (net.Conn, error) {
	s, err := a.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
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

// DialTCP opens a stream to a TCP port on the guest's loopback.
func (a *Client) DialTCP(port uint16) (net.Conn, error) {
	s, err := a.Open(wire.StreamHeader{Kind: wire.StreamTCP, Port: port})
	if err != nil {
		return nil, err
	}
	line, err := readLine(s)
	if err == nil {
		var r wire.StreamReply
		if err = json.Unmarshal(line, &r); err == nil && r.Error != "" {
			err = errors.New(Printable(r.Error))
		}
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("guest port %d: %w", port, err)
	}
	return s, nil
}

// readLine reads one short line, taking nothing after it.
func readLine(r io.Reader) ([]byte, error) {
	var line []byte
	one := make([]byte, 1)
	for len(line) < 4096 {
		if _, err := io.ReadFull(r, one); err != nil {
			return nil, err
		}
		if one[0] == '\n' {
			return line, nil
		}
		line = append(line, one[0]) //nolint:gosec // an array of one
	}
	return nil, errors.New("line too long")
}

// muxLogger turns yamux's log lines into ours.
type muxLogger struct{ log *slog.Logger }

func (l muxLogger) Print(v ...any) { l.log.Debug("mux", "message", Printable(fmt.Sprint(v...))) }
func (l muxLogger) Printf(f string, v ...any) {
	l.log.Debug("mux", "message", Printable(fmt.Sprintf(f, v...)))
}
func (l muxLogger) Println(v ...any) { l.log.Debug("mux", "message", Printable(fmt.Sprintln(v...))) }
