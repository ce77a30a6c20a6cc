package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/wire"
)

// Command describes a command for Run.
type Command struct {
	// Argv is the program and its arguments, run without a shell. Empty is the user's
	// login shell.
	Argv []string
	// Dir is the working directory in the guest. Empty is the sandbox's own, or else the
	// user's home.
	Dir string
	// Env is KEY=VALUE, over the variables of a login.
	Env []string
	// Links are the host's symbolic links on the way to Dir, for the guest to make.
	Links []wire.Link

	// Stdin is the command's input; nil is none. Run does not close it, and a read from it
	// may outlive Run: a read from a terminal cannot be interrupted.
	Stdin *os.File
	// Stdout and Stderr receive the command's output. Each is written by one goroutine,
	// both at the same time. With a terminal, all output goes to Stdout.
	Stdout, Stderr io.Writer
	// Terminal is the user's terminal, for a command that runs under one; else nil.
	Terminal *Terminal
	// Signals are passed on to the command while Run runs; nil is none.
	Signals <-chan os.Signal
}

// Exit is the result of a command.
type Exit struct {
	Status int // exit status; 128+n for a command that signal n ended
}

// ErrGone is returned by Run if the connection ended before the command did.
var ErrGone = errors.New("the sandbox ended while the command ran")

// OutputError is returned by Run if the command's output could not be written on the host.
type OutputError struct{ error }

func (e OutputError) Error() string { return "write the command's output: " + e.error.Error() }
func (e OutputError) Unwrap() error { return e.error }

// Run runs the command and returns when it has ended and all its output is written. An
// error means that bawn failed, not the command: ErrGone, StillError, OutputError, or the
// guest's refusal. A context that ends, like any error on the way, closes the client,
// which ends the command.
func (c *Client) Run(ctx context.Context, cmd Command) (Exit, error) {
	f := &forwarder{client: c, session: make(chan *ssh.Session, 1)}
	over := make(chan struct{})
	defer close(over)
	go f.run(cmd.Signals, over)
	exit, err := c.run(ctx, cmd, f)
	if sig := f.unanswered.Load(); sig != 0 {
		return Exit{}, StillError{syscall.Signal(sig)}
	}
	return exit, err
}

// run is Run, but for the forwarder's verdict. It gives the forwarder the session that
// signals go to.
func (c *Client) run(ctx context.Context, cmd Command, f *forwarder) (Exit, error) {
	defer close(f.session)
	s, err := c.ssh.NewSession()
	if err != nil {
		return Exit{}, fmt.Errorf("guest: %w", err)
	}
	defer s.Close()
	// A command whose output is not read any more would wait for ever.
	lost := make(chan error, 2)
	fail := func(err error) { lost <- OutputError{err}; c.Close() }
	s.Stdout, s.Stderr = &output{cmd.Stdout, fail}, &output{cmd.Stderr, fail}
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
	if err := s.Start(wire.ExecCommand(wire.ExecRequest{Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env, Links: cmd.Links})); err != nil {
		return Exit{}, fmt.Errorf("guest: start the command: %w", err)
	}
	go copyInput(stdin, cmd, f)
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

// copyInput copies the command's input until it ends, and passes its end on.
func copyInput(stdin io.WriteCloser, cmd Command, f *forwarder) {
	defer stdin.Close()
	switch {
	case cmd.Stdin == nil:
	case cmd.Terminal != nil:
		interrupted := func() { go f.expectAnswer(syscall.SIGINT) }
		_, _ = io.Copy(stdin, cmd.Terminal.watchInterrupt(cmd.Stdin, interrupted))
	default:
		_, _ = io.Copy(stdin, cmd.Stdin)
	}
}

// output is a writer that reports errors to fail.
type output struct {
	w    io.Writer
	fail func(error)
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if err != nil { // at most once: io.Copy ends here
		o.fail(err)
	}
	return n, err
}

// exitOf translates the result of ssh.Session.Wait.
func exitOf(err error) (Exit, error) {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return Exit{}, nil
	case errors.As(err, &exit) && exit.Signal() != "":
		return Exit{128 + signalNumber(exit.Signal())}, nil
	case errors.As(err, &exit):
		return Exit{exit.ExitStatus() & 0xff}, nil
	}
	var missing *ssh.ExitMissingError
	if errors.As(err, &missing) {
		return Exit{}, ErrGone
	}
	return Exit{}, fmt.Errorf("guest: %w", err)
}
