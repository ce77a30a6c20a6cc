package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/wire"
)

// remote is a session channel (RFC 4254, section 6) with the requests that bawn's two
// sides have beside the standard's. ssh.Session would drop those.
type remote struct {
	ssh.Channel
	current bool               // the agent knows the requests of wire.SSHVersion
	outputs sync.WaitGroup     // the copies of the command's output
	events  chan *ssh.Request  // that serve has not handled itself; closed with the channel
	stops   chan string        // names of signals that stopped the command
	reports chan wire.Consumed // the newest only

	mu    sync.Mutex
	total wire.Consumed // the last that was reported
}

// openRemote opens a session.
func (c *Client) openRemote() (*remote, error) {
	ch, requests, err := c.ssh.OpenChannel("session", nil)
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	s := &remote{
		Channel: ch, current: c.current,
		events: make(chan *ssh.Request, 2), stops: make(chan string, 1), reports: make(chan wire.Consumed, 1),
	}
	go s.serve(requests)
	return s, nil
}

// serve handles the guest's requests until the channel is closed. It never blocks: the
// whole connection would.
func (s *remote) serve(requests <-chan *ssh.Request) {
	defer close(s.events)
	for r := range requests {
		switch r.Type {
		case wire.RequestConsumed:
			var v wire.Consumed
			if ssh.Unmarshal(r.Payload, &v) == nil {
				s.note(v)
			}
		case wire.RequestStopped:
			var v wire.Stopped
			if ssh.Unmarshal(r.Payload, &v) == nil {
				offer(s.stops, v.Signal)
			}
		case "exit-status", "exit-signal":
			offer(s.events, r) // the first one counts
		}
		if r.WantReply {
			_ = r.Reply(false, nil) // fails only when the channel is closed
		}
	}
}

// offer sends v unless the channel is full.
func offer[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// note keeps a report. Reports come in order, so the last one is the true one.
func (s *remote) note(v wire.Consumed) {
	s.mu.Lock()
	s.total = v
	s.mu.Unlock()
	select {
	case <-s.reports:
	default:
	}
	offer(s.reports, v)
}

// consumed returns what the guest's processes have read of the input, as last reported.
func (s *remote) consumed() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total.Bytes
}

// ask sends a request and returns the guest's refusal as an error.
func (s *remote) ask(kind string, payload any) error {
	ok, err := s.SendRequest(kind, true, ssh.Marshal(payload))
	if err == nil && !ok {
		err = errors.New("refused")
	}
	if err != nil {
		return fmt.Errorf("guest: request %s: %w", kind, err)
	}
	return nil
}

// signal sends a signal to the command.
func (s *remote) signal(sig os.Signal) {
	number, ok := sig.(syscall.Signal)
	if name := wire.SignalName(number); ok && name != "" {
		_, _ = s.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{name})) // fails only when the session is over
	}
}

// copyOutputs begins to copy the command's output. An error of a writer goes to fail.
func (s *remote) copyOutputs(cmd Command, fail func(error)) {
	stderr := cmd.Stderr
	if stderr == nil {
		stderr = cmd.Stdout
	}
	s.outputs.Go(func() { _, _ = io.Copy(&output{cmd.Stdout, fail}, s.Channel) })
	s.outputs.Go(func() { _, _ = io.Copy(&output{stderr, fail}, s.Stderr()) })
}

// wait returns how the command ended, after its output was written. Meanwhile follow runs,
// until its argument is closed.
func (s *remote) wait(follow func(over <-chan struct{})) (Exit, error) {
	over := make(chan struct{})
	var jobs sync.WaitGroup
	jobs.Go(func() { follow(over) })
	end := <-s.events
	for range s.events { // until the channel is closed
	}
	s.outputs.Wait()
	close(over)
	jobs.Wait()
	if end == nil {
		return Exit{}, ErrGone
	}
	return exitOf(end)
}

// exitOf returns what a request exit-status or exit-signal says (RFC 4254, section 6.10).
func exitOf(r *ssh.Request) (Exit, error) {
	if r.Type == "exit-status" {
		var v struct{ Status uint32 }
		if err := ssh.Unmarshal(r.Payload, &v); err != nil {
			return Exit{}, fmt.Errorf("guest: exit status: %w", err)
		}
		return Exit{Status: int(v.Status & 0xff)}, nil
	}
	var v struct {
		Signal     string
		CoreDumped bool
		Message    string
		Language   string
	}
	if err := ssh.Unmarshal(r.Payload, &v); err != nil {
		return Exit{}, fmt.Errorf("guest: exit signal: %w", err)
	}
	sig := signalNumber(v.Signal)
	return Exit{Status: 128 + sig, Signal: syscall.Signal(sig)}, nil
}
