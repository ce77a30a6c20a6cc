// Package session is the command line's end of the SSH connection to a guest:
// it runs commands there as if they ran here, with their terminal, signals,
// streams and exit status, and opens SFTP.
//
// The connection is end to end: the supervisor passes the bytes on and cannot
// read them. The guest's key is the one that bawn made for this sandbox, so a
// guest that answers with another is refused.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/wire"
)

// ErrUser means that the guest lets nobody of that name in.
var ErrUser = errors.New("no such user in the guest")

// Client is one connection to a guest.
type Client struct {
	ssh *ssh.Client
}

// Dial connects to the guest of the running sandbox in d, as user.
func Dial(ctx context.Context, d store.Dir, user string) (*Client, error) {
	key, err := Signer(d, store.ClientKeyFile)
	if err != nil {
		return nil, err
	}
	host, err := Signer(d, store.HostKeyFile)
	if err != nil {
		return nil, err
	}
	conn, err := d.Dial(ctx, store.SSHSocket)
	if err != nil {
		return nil, fmt.Errorf("sandbox does not answer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := handshake(conn, user, key, host.PublicKey())
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else if strings.Contains(err.Error(), "unable to authenticate") { // ssh has no value for it
			return nil, fmt.Errorf("%w: %s", ErrUser, user)
		}
		return nil, fmt.Errorf("ssh to the guest: %w", err)
	}
	return &Client{c}, nil
}

func handshake(conn net.Conn, user string, key ssh.Signer, host ssh.PublicKey) (*ssh.Client, error) {
	cfg := &ssh.ClientConfig{
		User:              user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   ssh.FixedHostKey(host),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	}
	// One exchange, the quickest that is sound: the bytes never leave this
	// machine, and software emulation pays for each multiplication.
	cfg.KeyExchanges = []string{ssh.KeyExchangeCurve25519}
	cfg.Ciphers = []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM}
	c, chans, reqs, err := ssh.NewClientConn(conn, "guest", cfg)
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// Close ends the connection; commands that still run in the guest are killed.
func (c *Client) Close() error { return c.ssh.Close() }

// SFTP opens the guest's file transfer.
func (c *Client) SFTP() (*sftp.Client, error) {
	return sftp.NewClient(c.ssh, sftp.UseConcurrentWrites(true))
}

// Command is what to run.
type Command struct {
	Argv []string // empty runs the user's login shell
	Dir  string
	Env  []string // KEY=VALUE

	Stdin          *os.File
	Stdout, Stderr io.Writer
	// Terminal, when set, is the terminal to run under; its output then
	// carries both streams.
	Terminal *Terminal
	// Signals that the person sends, to be passed on to the command.
	Signals <-chan os.Signal
}

// Exit is how a command ended.
type Exit struct {
	Status int // exit status, or 128+n if a signal ended it
}

// Run runs the command and returns when it has ended and all its output has
// been written. An error means that bawn, not the command, failed.
func (c *Client) Run(ctx context.Context, cmd Command) (Exit, error) {
	f := &forwarder{client: c, session: make(chan *ssh.Session, 1)}
	go f.run(cmd.Signals)
	exit, err := c.run(ctx, cmd, f)
	if sig := f.unanswered.Load(); sig != 0 {
		return Exit{}, StillError{syscall.Signal(sig)}
	}
	return exit, err
}

// run is Run; it gives the forwarder the session that signals go to.
func (c *Client) run(ctx context.Context, cmd Command, f *forwarder) (Exit, error) {
	defer close(f.session)
	s, err := c.ssh.NewSession()
	if err != nil {
		return Exit{}, fmt.Errorf("guest: %w", err)
	}
	defer s.Close()
	// Nobody reads on when output cannot be written: the command would wait for ever.
	lost := make(chan error, 2)
	fail := func(err error) { lost <- OutputError{err}; c.Close() }
	s.Stdout, s.Stderr = &output{w: cmd.Stdout, fail: fail}, &output{w: cmd.Stderr, fail: fail}
	stdin, err := s.StdinPipe()
	if err != nil {
		return Exit{}, err
	}
	if cmd.Terminal != nil {
		restore, err := cmd.Terminal.attach(ctx, s)
		if err != nil {
			return Exit{}, err
		}
		defer restore()
	}
	if err := s.Start(wire.ExecCommand(wire.ExecRequest{Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env})); err != nil {
		return Exit{}, fmt.Errorf("guest: start the command: %w", err)
	}
	// This goroutine ends with the process at the latest: a read from a
	// terminal cannot be taken back.
	go func() {
		switch {
		case cmd.Stdin == nil:
		case cmd.Terminal != nil:
			_, _ = io.Copy(stdin, cmd.Terminal.heed(cmd.Stdin, func() { go f.expectAnswer(syscall.SIGINT) }))
		default:
			_, _ = io.Copy(stdin, cmd.Stdin)
		}
		stdin.Close()
	}()
	f.session <- s
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	exit, err := exitOf(s.Wait())
	select {
	case err = <-lost:
	default:
	}
	return exit, err
}

// OutputError is Run's answer when this side could not write the command's output.
type OutputError struct{ error }

func (e OutputError) Error() string { return "write the command's output: " + e.error.Error() }
func (e OutputError) Unwrap() error { return e.error }

// output tells of its first error.
type output struct {
	w    io.Writer
	fail func(error)
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil { // io.Copy ends here
		o.fail(err)
	}
	return n, err
}

// ErrGone is Run's answer when the connection ended before the command did.
var ErrGone = errors.New("the sandbox went away while the command ran")

func exitOf(err error) (Exit, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return Exit{}, nil
	case errors.As(err, &exit) && exit.Signal() != "":
		return Exit{128 + signalNumber(ssh.Signal(exit.Signal()))}, nil
	case errors.As(err, &exit):
		return Exit{exit.ExitStatus() & 0xff}, nil
	}
	var missing *ssh.ExitMissingError
	if errors.As(err, &missing) {
		return Exit{}, ErrGone
	}
	return Exit{}, fmt.Errorf("guest: %w", err)
}
