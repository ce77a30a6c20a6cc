package session

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// Forwarded are the signals that bawn passes on to a command.
var Forwarded = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
	syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM,
}

// signalNumber returns the number of a signal that ended a command. One that is not in
// the table counts as SIGKILL: the command is dead all the same.
func signalNumber(name string) int {
	if sig, ok := wire.SignalByName(name); ok {
		return int(sig)
	}
	return int(syscall.SIGKILL)
}

// StillError is returned by Run if the guest did not answer after a signal that was to end
// the command. The command receives the signal when the guest continues.
type StillError struct{ Signal syscall.Signal }

func (e StillError) Error() string {
	return fmt.Sprintf("the sandbox is paused and did not receive signal %d (%v)", int(e.Signal), e.Signal)
}

// defaultAnswerLimit is how long a guest may take to answer after a signal that is to end
// a command. Under software emulation a busy one takes seconds.
const defaultAnswerLimit = 10 * time.Second

// forwarder passes the user's signals on to the command of a session. A guest that stands
// still, as when the host's disk is full, handles neither signals nor Ctrl-C as a key. So
// after each of them an answer is expected, or else the user could not get away.
type forwarder struct {
	client     *Client
	ready      chan struct{} // closed when follow is to receive the signals
	session    chan *remote  // gives the session once its command is started
	asking     sync.Mutex    // held while an answer is waited for
	unanswered atomic.Int32  // the signal after which the guest did not answer
}

// run handles the signals that come before the command is started, and gives the session
// them then. It ends with that, or when Run is over, or the channel of signals is closed. A
// guest that answers and starts no command could hold the user for ever: after a signal that is
// to end the command it must start within the client's limit, and a second one ends the wait.
func (f *forwarder) run(from <-chan os.Signal, over <-chan struct{}) {
	var early []os.Signal
	var ending os.Signal // the first that is to end the command
	var late <-chan time.Time
	for {
		select {
		case sig := <-from:
			switch {
			case sig == nil:
				return // closed
			case ending != nil && ends(sig):
				f.giveUp(sig)
			case ends(sig):
				ending, late = sig, time.After(f.client.answerLimit)
			}
			f.mayEnd(sig)
			early = append(early, sig)
		case <-late:
			f.giveUp(ending)
		case s := <-f.session:
			if s == nil {
				return // the command was not started
			}
			for _, sig := range early {
				s.signal(sig)
			}
			close(f.ready)
			return
		case <-over:
			return
		}
	}
}

// pass passes a signal on to the command of a session that was started.
func (f *forwarder) pass(s *remote, sig os.Signal) {
	f.mayEnd(sig)
	s.signal(sig)
}

// ends reports whether a signal is to end the command.
func ends(sig os.Signal) bool {
	return sig == syscall.SIGHUP || sig == syscall.SIGINT || sig == syscall.SIGTERM
}

// mayEnd expects an answer after a signal that is to end the command.
func (f *forwarder) mayEnd(sig os.Signal) {
	if ends(sig) {
		go f.expectAnswer(sig.(syscall.Signal))
	}
}

// giveUp ends the connection because the guest did not do what a signal asked for.
func (f *forwarder) giveUp(sig os.Signal) {
	f.unanswered.CompareAndSwap(0, int32(sig.(syscall.Signal)))
	f.client.Close()
}

// expectAnswer ends the connection if the guest does not answer within the client's limit.
func (f *forwarder) expectAnswer(sig syscall.Signal) {
	if !f.asking.TryLock() {
		return // one at a time: a key may be held down
	}
	defer f.asking.Unlock()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		// Every server answers: one that does not know the name refuses.
		_, _, _ = f.client.ssh.SendRequest("keepalive@openssh.com", true, nil)
	}()
	select {
	case <-answered: // or the connection has ended
	case <-time.After(f.client.answerLimit):
		f.giveUp(sig)
	}
}
