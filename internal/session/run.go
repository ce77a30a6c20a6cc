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

	// Stdin is the command's input; nil is none. Run does not close it. Of a pipe, a socket
	// or a file no more is taken than the command's processes have read (input.go).
	Stdin *os.File
	// Stdout and Stderr receive the command's output. Each is written by one goroutine,
	// both at the same time. With a terminal, Stderr nil sends all output to Stdout.
	Stdout, Stderr io.Writer
	// WaitOutput delays the end of Run until all of the command's processes have closed its
	// output, those in the background too.
	WaitOutput bool
	// Terminal is the user's terminal, for a command that runs under one; else nil.
	Terminal *Terminal
	// Signals are passed on to the command while Run runs; nil is none.
	Signals <-chan os.Signal
	// JobControl makes this process stop and continue with the command (job.go).
	JobControl bool

	// Umask is the command's file mode creation mask; nil leaves the guest's.
	Umask *uint32
	// OpenFiles is what the command's soft limit of open files is at least, where the guest
	// has so many.
	OpenFiles uint64
}

// Exit is the result of a command.
type Exit struct {
	Status int            // exit status; 128+n for a command that signal n ended
	Signal syscall.Signal // that ended the command; 0 for none
}

// ErrGone is returned by Run if the connection ended before the command did.
var ErrGone = errors.New("the sandbox ended while the command ran")

// ErrOlderGuest is returned by Run for arguments that are too long for the agent of an
// earlier bawn, which the sandbox has run since then.
var ErrOlderGuest = errors.New("the sandbox was started by an earlier bawn, which does not accept such long arguments")

// OutputError is returned by Run if the command's output could not be written on the host.
type OutputError struct{ error }

func (e OutputError) Error() string { return "write the command's output: " + e.error.Error() }
func (e OutputError) Unwrap() error { return e.error }

// InputError is returned by Run if the command's input could not be read on the host. The command was
// ended, as it cannot be told: what it has read would look like all of it.
type InputError struct{ error }

func (e InputError) Error() string { return "read the command's input: " + e.error.Error() }
func (e InputError) Unwrap() error { return e.error }

// Run runs the command and returns when it has ended and its output is written. An
// error means that bawn failed, not the command: ErrGone, ErrOlderGuest, StillError,
// OutputError, InputError, or the guest's refusal. A context that ends, like any error on the way,
// closes the client, which ends the command.
func (c *Client) Run(ctx context.Context, cmd Command) (Exit, error) {
	f := &forwarder{client: c, session: make(chan *remote, 1), ready: make(chan struct{})}
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
func (c *Client) run(ctx context.Context, cmd Command, f *forwarder) (exit Exit, err error) {
	defer close(f.session)
	s, err := c.openRemote()
	if err != nil {
		return Exit{}, err
	}
	defer s.Close()
	front, err := attach(s, cmd)
	if err != nil {
		return Exit{}, err
	}
	defer front.detach()
	if cmd.Terminal != nil {
		screen := &screen{to: cmd.Stdout}
		cmd.Stdout = screen
		defer func() { // the command could not do so itself
			if err != nil || exit.Signal != 0 {
				screen.restore()
			}
		}()
	}
	in, err := s.startWith(cmd, front, f)
	if err != nil {
		return Exit{}, err
	}
	defer in.close()
	// A command whose output is not read any more would wait for ever.
	lost := make(chan error, 3)
	fail := func(err error) { lost <- OutputError{err}; c.Close() }
	s.copyOutputs(cmd, fail)
	in.fail = func(err error) { lost <- InputError{err}; c.Close() }
	go in.carry(s)
	f.session <- s
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	exit, err = s.wait(func(over <-chan struct{}) { front.follow(s, f, cmd.Signals, over) })
	in.finish(s)
	select {
	case err = <-lost:
	default:
	}
	return exit, err
}

// startWith starts the command with the standard input that it names. The caller closes the
// input.
func (s *remote) startWith(cmd Command, front *foreground, f *forwarder) (*source, error) {
	in, err := newSource(cmd, front, f)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	err = in.giveFile(s)
	if err == nil {
		err = s.start(cmd, in.kind())
	}
	if err == nil {
		if err = front.enter(); err != nil {
			err = fmt.Errorf("terminal: %w", err)
		}
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// sameFile reports whether two outputs of a command are one file, pipe or socket of the host, as
// with 2>&1.
func sameFile(a, b io.Writer) bool {
	f, ok := a.(*os.File)
	g, also := b.(*os.File)
	if !ok || !also {
		return false
	}
	fi, err := f.Stat()
	gi, err2 := g.Stat()
	return err == nil && err2 == nil && os.SameFile(fi, gi)
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

// start starts the command, whose standard input is of that kind.
func (s *remote) start(cmd Command, input wire.Input) error {
	line := wire.ExecCommand(wire.ExecRequest{
		Argv: cmd.Argv, Dir: cmd.Dir, Env: cmd.Env, Links: cmd.Links, Input: input, WaitOutput: cmd.WaitOutput,
		SeparateError: cmd.Terminal != nil && cmd.Stderr != nil, JoinError: cmd.Terminal == nil && sameFile(cmd.Stdout, cmd.Stderr), JobControl: cmd.JobControl,
		Umask: cmd.Umask, OpenFiles: cmd.OpenFiles,
	})
	parts, last := wire.SplitExec(line)
	if len(parts) > 0 && !s.current {
		return ErrOlderGuest
	}
	for _, part := range parts {
		if _, err := s.SendRequest(wire.RequestExecPart, false, ssh.Marshal(wire.ExecPart{Part: part})); err != nil {
			return fmt.Errorf("guest: start the command: %w", err)
		}
	}
	return s.ask("exec", struct{ Command string }{last})
}
