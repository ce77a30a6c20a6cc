package session

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/wire"
	"golang.org/x/crypto/ssh"
)

// Forwarded are the signals that bawn passes on to a command.
var Forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

// signalName is the name of a signal on an SSH channel; empty where it has none.
func signalName(sig os.Signal) string {
	n, ok := sig.(syscall.Signal)
	if !ok {
		return ""
	}
	return wire.SignalName(n)
}

func signalNumber(s ssh.Signal) int {
	if n, ok := wire.SignalByName(string(s)); ok {
		return int(n)
	}
	return int(syscall.SIGKILL) // a signal without a name in SSH: dead all the same
}

// StillError is Run's answer when a signal was to end the command, and the guest
// gave no sign of life after it. The command ends when the guest goes on.
type StillError struct{ Signal syscall.Signal }

func (e StillError) Error() string {
	return fmt.Sprintf("the sandbox stands still and does not take signal %d (%v)", int(e.Signal), e.Signal)
}

// answerLimit is how long a guest may take to answer after a signal that is to end
// a command. Under software emulation a busy one takes seconds.
const answerLimit = 10 * time.Second

// forwarder passes a person's signals on to the command of a session. A guest that
// stands still, as when the host's disk is full, takes none, nor Ctrl-C as a key: who
// wants to end the command must still get away.
type forwarder struct {
	client     *Client
	session    chan *ssh.Session // gives the session once it has begun
	asking     sync.Mutex        // held while an answer is waited for
	unanswered atomic.Int32      // the signal after which the guest did not answer
}

// run passes signals on until the channel is closed.
func (f *forwarder) run(from <-chan os.Signal) {
	var s *ssh.Session
	for sig := range from {
		switch sig {
		case syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM:
			go f.expectAnswer(sig.(syscall.Signal))
		}
		if s == nil {
			if s = <-f.session; s == nil {
				return // it ended before it began
			}
		}
		if name := signalName(sig); name != "" {
			_ = s.Signal(ssh.Signal(name)) // fails only when the session is over
		}
	}
}

// expectAnswer ends the connection if the guest does not answer.
func (f *forwarder) expectAnswer(sig syscall.Signal) {
	if !f.asking.TryLock() {
		return // a key that is held down
	}
	defer f.asking.Unlock()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		// By a name that no server knows: all answer, if by a refusal.
		_, _, _ = f.client.ssh.SendRequest("keepalive@openssh.com", true, nil)
	}()
	select {
	case <-answered: // or the connection has ended
	case <-time.After(answerLimit):
		f.unanswered.CompareAndSwap(0, int32(sig))
		f.client.Close()
	}
}
