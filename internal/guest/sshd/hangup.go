package sshd

import (
	"slices"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/guest/process"
)

// hangUpGrace is how long a command that was hung up may take to end before it is
// killed; hangUpPoll is how often its session is looked at meanwhile.
const (
	hangUpGrace = 3 * time.Second
	hangUpPoll  = 50 * time.Millisecond
)

// hangUp ends the processes of the command's session after the client has gone: SIGHUP,
// and SIGKILL after hangUpGrace. With a terminal, processes other than the command itself
// are spared if they ignore SIGHUP (nohup). Processes that have left the session
// (setsid, tmux) are never found. A command with pipes that has ended has nothing to
// hang up: what it left in the background keeps running.
func (s *session) hangUp() {
	p := s.running
	select {
	case <-p.Done:
		if s.terminal == nil {
			return
		}
	default:
	}
	for _, m := range process.Session(p.PID) {
		_ = syscall.Kill(m.PID, syscall.SIGHUP)
		_ = syscall.Kill(m.PID, syscall.SIGCONT) // a stopped process handles no signal
	}
	s.streams.close()
	for end := time.Now().Add(hangUpGrace); time.Now().Before(end); time.Sleep(hangUpPoll) {
		if len(s.toKill()) == 0 {
			return
		}
	}
	for list := s.toKill(); len(list) > 0; list = s.toKill() {
		for _, m := range list {
			_ = syscall.Kill(m.PID, syscall.SIGKILL)
		}
		time.Sleep(hangUpPoll)
	}
}

// toKill returns the processes of the session that are not spared.
func (s *session) toKill() []process.Member {
	return slices.DeleteFunc(process.Session(s.running.PID), func(m process.Member) bool {
		command := m.PID == s.running.PID || s.job != nil && m.PID == s.job.pid
		return s.terminal != nil && !command && m.IgnoresHangup()
	})
}
