package gitssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// drainTime is how long the rest of a refused push is read, so that git reads why.
	drainTime = time.Minute
	// maxDrain bounds that rest, in bytes.
	maxDrain = 1 << 30
)

// errServer means that the server ended the session without a status.
var errServer = errors.New("the server ended the session")

var errIdle = errors.New("nothing has passed for long")

// run judges a command and serves it.
func (c *connection) run(ctx context.Context, ch ssh.Channel, line, protocol string) {
	cmd, err := ParseCommand(line)
	if err != nil {
		c.refuse(ch, err)
		return
	}
	session, err := c.Begin(cmd)
	if err != nil {
		tell(ch, err.Error())
		exit(ch, statusRefused)
		return
	}
	r := &relay{c: c, ch: ch, cmd: cmd, session: session}
	status, err := r.serve(ctx, protocol)
	why := ""
	if err != nil {
		why, status = shown(err.Error()), statusRefused
		tell(ch, "bawn: "+shown(withoutAddresses(err))+"\n")
	}
	session.End(r.sent.Load(), r.got.Load(), why)
	exit(ch, status)
}

// withoutAddresses returns an error for the guest, which learns no address of the host's from it.
func withoutAddresses(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return strings.ReplaceAll(err.Error(), op.Error(), op.Err.Error())
	}
	return err.Error()
}

// relay is a session and the one on the real server.
type relay struct {
	c       *connection
	ch      ssh.Channel
	cmd     Command
	session Session
	idle    *time.Timer
	up      net.Conn // to the real server

	sent, got atomic.Int64

	refused  chan struct{} // closed: the push was refused
	answer   []byte
	protocol bool // the answer is in the terms of git's protocol
	input    *bufio.Reader
}

// serve returns the status of the command on the real server.
func (r *relay) serve(ctx context.Context, protocol string) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	_ = r.c.conn.SetDeadline(time.Time{})
	defer r.c.await()
	client, free, err := r.connect(ctx)
	if err != nil {
		return 0, err
	}
	defer free()
	r.refused, r.input = make(chan struct{}), bufio.NewReader(r.ch)
	r.idle = time.AfterFunc(idleTime, func() {
		cancel(errIdle)
		r.c.await() // for a client that reads nothing
	})
	defer r.idle.Stop()
	status, err := r.execute(client, protocol)
	select {
	case <-r.refused:
		return r.tellRefusal(), nil
	default:
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return status, err
}

// connect logs in to the real server. free ends that, and so does the end of ctx.
func (r *relay) connect(ctx context.Context) (client *ssh.Client, free func(), err error) {
	if err := r.c.s.failed.pause(); err != nil {
		return nil, nil, err
	}
	if err := r.c.s.logins.Wait(ctx); err != nil {
		return nil, nil, err
	}
	conf, done, err := r.c.s.login(ctx, r.c.Name, r.c.Port, r.c.user)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	conn, err := r.c.Dial()
	if err != nil {
		return nil, nil, fmt.Errorf("%s was not reached: %w", r.c.Name, err)
	}
	r.up = conn
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(loginTime))
	sc, channels, requests, err := ssh.NewClientConn(conn, net.JoinHostPort(r.c.Name, strconv.Itoa(int(r.c.Port))), conf)
	if err != nil {
		conn.Close()
		r.c.s.failed.add()
		return nil, nil, fmt.Errorf("%s was reached, but no session could be opened there: %w", r.c.Name, err)
	}
	return ssh.NewClient(sc, channels, requests), func() { stop(); sc.Close(); done() }, nil
}

// execute runs the command on the real server.
func (r *relay) execute(client *ssh.Client, protocol string) (int, error) {
	s, err := client.NewSession()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errServer, err)
	}
	defer s.Close()
	in, err := s.StdinPipe()
	if err != nil {
		return 0, err
	}
	s.Stdout, s.Stderr = &counted{r: r, w: r.ch, n: &r.got}, &counted{r: r, w: r.ch.Stderr(), n: new(atomic.Int64)}
	if protocol != "" {
		_ = s.Setenv("GIT_PROTOCOL", protocol) // the server may not take it: then git speaks version 0
	}
	if err := s.Start(r.cmd.String()); err != nil {
		return 0, fmt.Errorf("%w: %w", errServer, err)
	}
	_ = r.up.SetDeadline(time.Time{})
	go r.feed(client, in)
	err = s.Wait()
	var failed *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &failed):
		return failed.ExitStatus(), nil
	}
	return 0, fmt.Errorf("%w: %w", errServer, err)
}

// feed sends the client's input on: all of a fetch, of a push what was judged.
func (r *relay) feed(client *ssh.Client, in io.WriteCloser) {
	var on io.Reader = r.input
	if r.cmd.Push {
		if on, r.answer, r.protocol = r.session.Push(r.input); on == nil {
			close(r.refused)
			client.Close()
			return
		}
	}
	_, _ = io.Copy(&counted{r: r, w: in, n: &r.sent}, on)
	_ = in.Close()
}

// tellRefusal tells the client that its push was refused. It sends all objects before it reads that.
func (r *relay) tellRefusal() int {
	_ = r.c.conn.SetDeadline(time.Now().Add(drainTime))
	if !r.protocol {
		_, _ = r.ch.Stderr().Write(r.answer)
		return statusRefused
	}
	_, _ = r.ch.Write(r.answer)
	_ = r.ch.CloseWrite()
	_, _ = io.CopyN(io.Discard, r.input, maxDrain)
	return 0
}

// counted counts what passes, and puts off the end of an idle session.
type counted struct {
	r *relay
	w io.Writer
	n *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n.Add(int64(n))
	if err == nil {
		c.r.idle.Reset(idleTime)
	}
	return n, err
}
