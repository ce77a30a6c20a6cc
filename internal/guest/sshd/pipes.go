package sshd

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/wire"
)

// streams are the standard streams of a command: its terminal, pipes, or both. theirs are
// the command's ends in the order of the descriptors 0 to 2; input, output and errors are
// our ends of the pipes among them, nil for the others. file is the command's input where
// that is no pipe but a file.
type streams struct {
	theirs         []*os.File
	input          *input
	file           *inputFile
	output, errors *outlet
}

// newStreams makes the streams that the request asks for. The pipes belong to the user,
// who could otherwise not open them again (/dev/stdin, /proc/self/fd/1).
func (s *session) newStreams(req wire.ExecRequest) (*streams, error) {
	x := &streams{}
	err := x.open(s, req)
	if err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func (x *streams) open(s *session, req wire.ExecRequest) error {
	if t := s.terminal; t != nil {
		x.theirs = []*os.File{t.tty, t.tty, t.tty}
		if !req.SeparateError {
			return nil
		}
		r, w, err := s.pipe()
		if err == nil {
			x.errors, x.theirs[2] = &outlet{file: r}, w
		}
		return err
	}
	in, err := x.openInput(s, req.Input)
	if err != nil {
		return err
	}
	x.theirs = append(x.theirs, in)
	outlets := []**outlet{&x.output, &x.errors}
	if req.JoinError {
		outlets = outlets[:1]
	}
	for _, to := range outlets {
		r, w, err := s.pipe()
		if err != nil {
			return err
		}
		*to, x.theirs = &outlet{file: r}, append(x.theirs, w)
	}
	if req.JoinError {
		x.theirs = append(x.theirs, x.theirs[1])
	}
	return nil
}

// openInput returns the command's end of its standard input.
func (x *streams) openInput(s *session, kind wire.Input) (*os.File, error) {
	switch kind {
	case wire.InputNone:
		return os.Open(os.DevNull)
	case wire.InputDirectory:
		return os.Open("/")
	case wire.InputWriteOnly:
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	case wire.InputFile:
		x.file = s.file
		return s.file.open(s.login)
	case wire.InputPipe, wire.InputCounted:
	}
	r, w, err := s.pipe()
	if err != nil {
		return nil, err
	}
	x.input = &input{file: w, counted: kind == wire.InputCounted}
	return r, nil
}

// pipe returns the two ends of a new pipe that belongs to the user.
func (s *session) pipe() (r, w *os.File, err error) {
	if r, w, err = os.Pipe(); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	if os.Geteuid() == 0 {
		if err = r.Chown(int(s.login.UID), int(s.login.GID)); err != nil {
			r.Close()
			w.Close()
			return nil, nil, fmt.Errorf("pipe: %w", err)
		}
	}
	return r, w, nil
}

// release closes the command's ends, which the command holds by then.
func (x *streams) release() {
	for _, f := range x.theirs {
		f.Close()
	}
}

// close closes all ends. It may be called more than once, and while carry runs.
func (x *streams) close() {
	x.release()
	if x.input != nil {
		x.input.file.Close()
	}
	for _, o := range x.outlets() {
		o.file.Close()
	}
}

// consumed returns how much of the input was read, if that is counted. It is called once,
// after the command's end.
func (x *streams) consumed() (n int64, counted bool) {
	if x.file != nil {
		return x.file.position(), true
	}
	if x.input != nil && x.input.counted {
		return x.input.consumed(), true
	}
	return 0, false
}

func (x *streams) outlets() (list []*outlet) {
	for _, o := range []*outlet{x.output, x.errors} {
		if o != nil {
			list = append(list, o)
		}
	}
	return list
}

// carry copies between the pipes and the channel. It returns when the command has ended
// (done is closed) and its output was sent; with wait, when all processes have closed the
// output. What is written later is read and dropped, so that no process gets SIGPIPE.
func (x *streams) carry(channel ssh.Channel, done <-chan struct{}, wait bool) {
	if x.input != nil {
		go x.input.carry(channel, func(c wire.Consumed) {
			_, _ = channel.SendRequest(wire.RequestConsumed, false, ssh.Marshal(c))
		})
	}
	var copies sync.WaitGroup
	for o, w := range map[*outlet]io.Writer{x.output: channel, x.errors: channel.Stderr()} {
		if o != nil {
			copies.Go(func() { o.carry(w, done) })
		}
	}
	closed := make(chan struct{})
	go func() { copies.Wait(); close(closed) }()
	if wait {
		<-closed
		<-done
		return
	}
	<-done
	x.settle(closed)
	for _, o := range x.outlets() {
		o.detach()
	}
}

// After a command's end, settleQuiet is how long its output may be silent before what the
// command left in the background is not waited for any more, and settleLimit bounds the
// wait for such processes that do not stop writing. A pipeline such as a shell's
// "> >(tee log)" ends meanwhile.
const (
	settlePoll  = 10 * time.Millisecond
	settleQuiet = 300 * time.Millisecond
	settleLimit = 2 * time.Second
)

// settle returns when all output is closed, or when all that was written before the
// command's end was sent and the rest is silent.
func (x *streams) settle(closed <-chan struct{}) {
	for _, o := range x.outlets() {
		o.mark()
	}
	var last int64
	var since, sent time.Time
	for {
		select {
		case <-closed:
			return
		case <-time.After(settlePoll):
		}
		passed, all := int64(0), true
		for _, o := range x.outlets() {
			n, reached := o.progress()
			passed, all = passed+n, all && reached
		}
		now := time.Now()
		if sent.IsZero() && all {
			sent = now
		}
		if since.IsZero() || passed != last {
			last, since = passed, now
		}
		if all && (now.Sub(since) >= settleQuiet || now.Sub(sent) >= settleLimit) {
			return
		}
	}
}
