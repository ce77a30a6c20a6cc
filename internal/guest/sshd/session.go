package sshd

import (
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/wire"
)

// session is one SSH session channel and the command that runs in it.
//
// Theory of operation. A client sends requests on the channel: first what the command
// shall have (env, pty-req), then one that starts it (exec, shell or subsystem), then
// what happens to it (signal, window-change). serve answers them one after the other, in
// one goroutine, which alone uses the fields up to `once`.
//
// The command leads a session of its own in the sense of setsid(2), with a
// pseudo-terminal or with three pipes as its streams. Its end is reported by finish, in a
// second goroutine:
//
//   - With pipes, the channel is closed when the command has ended and its output has
//     ended too, which is when the last process that holds the pipes has closed them. A
//     pipeline in a shell and OpenSSH's server behave so as well.
//   - With a terminal, the channel is closed when the command has ended and its output
//     has been read. A process in the background that keeps the terminal open is not
//     waited for, since the kernel hangs the terminal up when its session's leader ends.
//
// When the channel ends first, because the client ended or lost its connection, the
// command is hung up (hangup.go).
type session struct {
	server  *Server
	login   *accounts.Login
	channel ssh.Channel

	env      []string // KEY=VALUE from the client
	terminal *terminal
	pipes    *pipes
	running  *process.Process // nil until the command is started

	once sync.Once // reports the end
}

// maxEnv bounds the variables that a client may set.
const maxEnv = 4096

// serve answers the channel's requests until the channel is closed.
func (s *session) serve(requests <-chan *ssh.Request) {
	for r := range requests {
		ok := s.answer(r)
		if r.WantReply {
			_ = r.Reply(ok, nil) // fails only when the channel is closed
		}
		if ok && s.running == nil && startsCommand(r.Type) {
			s.begin(r)
		}
	}
	// The client has closed the channel, or its connection is lost.
	if s.running != nil {
		go s.hangUp()
	} else if s.terminal != nil {
		s.terminal.close()
	}
	s.channel.Close()
}

func startsCommand(request string) bool {
	return request == "exec" || request == "shell" || request == "subsystem"
}

// answer handles one request and reports whether it was successful. A request that
// starts a command is only checked here: its reply must precede the command's output.
func (s *session) answer(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload)
	case "pty-req":
		return s.openTerminal(r.Payload)
	case "window-change":
		return s.changeWindow(r.Payload)
	case "signal":
		return s.passSignal(r.Payload)
	case "exec", "shell":
		return s.running == nil
	case "subsystem":
		var v struct{ Name string }
		return s.running == nil && ssh.Unmarshal(r.Payload, &v) == nil && v.Name == "sftp"
	}
	return false // auth-agent-req@openssh.com, x11-req and unknown ones
}

func (s *session) setEnv(payload []byte) bool {
	var v struct{ Name, Value string }
	if ssh.Unmarshal(payload, &v) != nil || len(s.env) >= maxEnv || strings.ContainsAny(v.Name, "=\x00") {
		return false
	}
	s.env = append(s.env, v.Name+"="+v.Value)
	return true
}

func (s *session) openTerminal(payload []byte) bool {
	if s.running != nil || s.terminal != nil {
		return false
	}
	t, err := newTerminal(payload, s.login.UID)
	if err != nil {
		return false
	}
	s.terminal = t
	return true
}

func (s *session) changeWindow(payload []byte) bool {
	var w window
	if ssh.Unmarshal(payload, &w) != nil || s.terminal == nil {
		return false
	}
	return resize(s.terminal.master, w) == nil
}

// passSignal sends a signal to the command's process group, and to the group in the
// foreground of its terminal.
func (s *session) passSignal(payload []byte) bool {
	var v struct{ Name string }
	if ssh.Unmarshal(payload, &v) != nil || s.running == nil {
		return false
	}
	sig, ok := wire.SignalByName(v.Name)
	if !ok {
		return false
	}
	s.server.processes.SignalGroup(s.running, sig)
	if s.terminal != nil {
		if group := s.terminal.foreground(); group > 1 && group != s.running.PID {
			_ = syscall.Kill(-group, sig) // the group may have ended
		}
	}
	return true
}

// begin starts the command of the request.
func (s *session) begin(r *ssh.Request) {
	cmd, err := s.command(r)
	if err == nil {
		err = s.start(cmd)
	}
	if err != nil {
		s.fail(err)
		return
	}
	go s.finish()
}

// fail reports to the client why its command does not run.
func (s *session) fail(err error) {
	var se *startError
	if !errors.As(err, &se) {
		se = &startError{statusNotExecutable, err.Error()}
	}
	end := "\n"
	if s.terminal != nil {
		end = "\r\n"
	}
	_, _ = io.WriteString(s.channel.Stderr(), "bawn: "+se.text+end)
	if s.terminal != nil {
		s.terminal.close()
	}
	s.exit(exitStatus(se.status))
}

// finish carries the command's streams until it has ended, and reports how it ended.
func (s *session) finish() {
	if s.terminal != nil {
		s.terminal.carry(s.channel, s.running.Done)
	} else {
		s.pipes.carry(s.channel)
		<-s.running.Done
	}
	s.exit(endOf(s.running.Status))
}

// exit reports the command's end to the client and closes the channel, once.
func (s *session) exit(e ending) {
	s.once.Do(func() {
		_ = s.channel.CloseWrite()
		_, _ = s.channel.SendRequest(e.kind, false, e.payload)
		s.channel.Close()
	})
}
