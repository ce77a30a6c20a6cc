package sshd

import (
	"slices"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/guest/process"
)

// Grace of a command that was hung up until it is killed, and how often to look
// whether it has ended.
const (
	hangUpGrace = 3 * time.Second
	hangUpLook  = 50 * time.Millisecond
)

// hangUp ends the command's session.
func (s *shell) hangUp() {
	p := s.running
	select {
	case <-p.Done:
		if s.pty == nil {
			return // what it left behind in the background goes on
		}
	default:
	}
	for _, m := range process.Session(p.PID) {
		_ = syscall.Kill(m.PID, syscall.SIGHUP)
		_ = syscall.Kill(m.PID, syscall.SIGCONT) // a stopped process would not hear
	}
	if s.pty == nil {
		for _, f := range s.stdio {
			f.Close()
		}
	}
	for end := time.Now().Add(hangUpGrace); time.Now().Before(end); time.Sleep(hangUpLook) {
		if len(s.doomed()) == 0 {
			return
		}
	}
	for {
		list := s.doomed()
		for _, m := range list {
			_ = syscall.Kill(m.PID, syscall.SIGKILL)
		}
		if len(list) == 0 {
			return
		}
		time.Sleep(hangUpLook)
	}
}

// doomed are the processes of the session that are not spared.
func (s *shell) doomed() []process.Member {
	return slices.DeleteFunc(process.Session(s.running.PID), func(m process.Member) bool {
		return s.pty != nil && m.PID != s.running.PID && m.IgnoresHangup()
	})
}
