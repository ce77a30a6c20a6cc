package share

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"bawn.dev/bawn/internal/sys/socketpair"
	"bawn.dev/bawn/internal/sys/text"
	"bawn.dev/bawn/internal/wire"
)

// maxErrorText bounds the text of a server's error, in characters.
const maxErrorText = 500

// orderLimit bounds an order with its answer where the caller's context allows
// more. The guest is paused during a Save, so it must not be long; a Load may visit
// every file of a large share, while nobody waits for the guest's clock.
const (
	orderLimit = 30 * time.Second
	loadLimit  = 5 * time.Minute
)

// ErrNoAnswer means that a share's server did not answer an order in time, or
// answers none any more because an earlier order was given up.
var ErrNoAnswer = errors.New("the server of the share does not answer; the next start of the sandbox starts a new one")

// Control is the supervisor's end of the connection to a share's server. Its
// methods may be called by several goroutines: one order is under way at a time.
//
// An order that is given up (its context ended, or its limit passed) leaves the
// connection in the middle of a message. Every later order then fails with
// ErrNoAnswer. The server continues to serve its guest as far as it can.
type Control struct {
	conn *net.UnixConn

	mu     sync.Mutex // held during an order
	broken bool       // an order was given up
}

// NewControl makes a socket pair: the supervisor's end, and the server's, which the
// caller closes when the server has it.
func NewControl() (*Control, *os.File, error) {
	conn, theirs, err := socketpair.New()
	if err != nil {
		return nil, nil, fmt.Errorf("control of a share: %w", err)
	}
	return &Control{conn: conn}, theirs, nil
}

// Close closes the connection. The server ends when its QEMU does. An order under
// way fails.
func (c *Control) Close() { c.conn.Close() }

// Serve gives the server its next QEMU. The file is closed. When ctx ends, so does
// the wait for the answer, with its cause.
func (c *Control) Serve(ctx context.Context, socket *os.File) error {
	defer socket.Close()
	_, err := c.ask(ctx, orderLimit, order{Verb: verbServe}, socket)
	return err
}

// Save returns what the guest knows of the share (Saved, as JSON). The guest must be
// paused. When ctx ends, so does the wait for the answer, with its cause.
func (c *Control) Save(ctx context.Context) (json.RawMessage, error) {
	a, err := c.ask(ctx, orderLimit, order{Verb: verbSave}, nil)
	return a.State, err
}

// Mark makes the server begin a restore point (package undo), if it keeps what the guest
// changes. When ctx ends, so does the wait for the answer, with its cause.
func (c *Control) Mark(ctx context.Context) error {
	_, err := c.ask(ctx, orderLimit, order{Verb: verbMark}, nil)
	return err
}

// Load makes a fresh server take over what the saved one knew. With moved, its
// directory is a copy of the saved one's. When ctx ends, so does the wait for the
// answer, with its cause.
func (c *Control) Load(ctx context.Context, state json.RawMessage, moved bool) error {
	_, err := c.ask(ctx, loadLimit, order{Verb: verbLoad, State: state, Moved: moved}, nil)
	return err
}

// Watched returns the directories, as paths below the share's root, in which the files with
// these numbers of the guest's are, and those that are directories themselves. What the guest
// does not know is left out.
func (c *Control) Watched(ctx context.Context, nodes []uint64) ([][]byte, error) {
	a, err := c.ask(ctx, orderLimit, order{Verb: verbWatched, Nodes: nodes}, nil)
	return a.Dirs, err
}

// Announce returns the events that make the guest see changes of the host: those that are
// not the guest's own. The guest's agent is to play them next, on the thread.
func (c *Control) Announce(ctx context.Context, thread uint32, changes []HostChange) ([]wire.FileEvent, error) {
	a, err := c.ask(ctx, orderLimit, order{Verb: verbAnnounce, Thread: thread, Changes: changes}, nil)
	return a.Events, err
}

// ask sends an order, with a descriptor beside it unless f is nil, and waits for the
// answer until ctx ends or the limit passes. An error that the server reports leaves the
// connection usable.
func (c *Control) ask(ctx context.Context, limit time.Duration, o order, f *os.File) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return answer{}, fmt.Errorf("control of a share: %s: %w", o.Verb, ErrNoAnswer)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrNoAnswer)
	defer cancel()
	if ctx.Err() != nil {
		return answer{}, context.Cause(ctx)
	}
	defer c.interruptAtEnd(ctx)()
	var a answer
	err := send(c.conn, o, f)
	if err == nil {
		err = c.receiveAnswer(&a)
	}
	if err != nil {
		c.broken = true
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return answer{}, fmt.Errorf("control of a share: %s: %w", o.Verb, err)
	}
	if a.Error != "" { // a guest that broke out into the server may have chosen it
		return answer{}, errors.New(text.Short(a.Error, maxErrorText))
	}
	return a, nil
}

// interruptAtEnd makes reads and writes fail from the moment at which ctx ends until
// the returned function is called.
func (c *Control) interruptAtEnd(ctx context.Context) (stop func()) {
	interrupted := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		_ = c.conn.SetDeadline(time.Unix(1, 0)) // long past
		close(interrupted)
	})
	return func() {
		if !cancel() {
			<-interrupted
			_ = c.conn.SetDeadline(time.Time{})
		}
	}
}

func (c *Control) receiveAnswer(a *answer) error {
	stray, err := receive(c.conn, a)
	if stray != nil { // no answer has a descriptor
		stray.Close()
	}
	return err
}
