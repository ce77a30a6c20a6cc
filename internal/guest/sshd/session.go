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
//   - With pipes, the channel is closed when the command has ended and what it wrote was
//     sent. Processes in the background that hold the pipes are not waited for, since a
//     shell's prompt does not wait for them either; what they write later is dropped. A
//     client other than bawn's waits for them, as with OpenSSH's server (pipes.go).
//   - With a terminal, the channel is closed when the command has ended and its output
//     has been read. A process in the background that keeps the terminal open is not
//     waited for, since the kernel hangs the terminal up when its session's leader ends.
//
// When the channel ends first, because the client ended or lost its connection, the
// command is hung up (hangup.go).
type session struct {
	server  *Server
	login   *accounts.Login
	umask   *uint32 // of commands that ask for none; nil: the agent's
	channel ssh.Channel

	env      []string   // KEY=VALUE from the client
	parts    []string   // of the command string, all but the last
	partsLen int        // their length, also of those that were refused
	file     *inputFile // nil without wire.InputPart
	terminal *terminal
	streams  *streams
	running  *process.Process // the session's leader; nil until the command is started
	job      *job             // nil where the leader is the command

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
	s.file.release()
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
	case wire.RequestExecPart:
		return s.addPart(r.Payload)
	case wire.RequestInputPart:
		return s.addInput(r.Payload)
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

// addPart keeps a part of the command string. One that is too long is kept as such: the
// command then ends with the status that a shell gives for it.
func (s *session) addPart(payload []byte) bool {
	var v wire.ExecPart
	if ssh.Unmarshal(payload, &v) != nil || s.running != nil {
		return false
	}
	if s.partsLen += len(v.Part); s.partsLen > wire.MaxExec {
		s.parts = nil
		return false
	}
	s.parts = append(s.parts, v.Part)
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
	s.signal(sig)
	if sig == syscall.SIGHUP || sig == syscall.SIGTERM {
		s.signal(syscall.SIGCONT) // a stopped process handles no signal
	}
	return true
}

// signal sends a signal to the command's process group, and to the group in the foreground
// of its terminal.
func (s *session) signal(sig syscall.Signal) {
	group := s.running.PID
	if s.job != nil {
		group = s.job.pid
		s.job.signal(sig)
	} else {
		s.server.processes.SignalGroup(s.running, sig)
	}
	if s.terminal != nil {
		if front := s.terminal.foreground(); front > 1 && front != group && front != s.running.PID {
			_ = syscall.Kill(-front, sig) // the group may have ended
		}
	}
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
	go s.finish(cmd.request)
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
func (s *session) finish(req wire.ExecRequest) {
	over := make(chan struct{})
	defer close(over)
	if req.JobControl {
		go s.reportStops(over)
	}
	var terminal sync.WaitGroup
	if s.terminal != nil {
		terminal.Go(func() { s.terminal.carry(s.channel, s.running.Done) })
	}
	s.streams.carry(s.channel, s.running.Done, req.WaitOutput)
	terminal.Wait()
	status := s.running.Status
	if s.job != nil {
		status = s.job.ending(status)
	}
	if n, counted := s.streams.consumed(); counted {
		s.report(wire.RequestConsumed, wire.Consumed{Bytes: uint64(n), Unread: true})
	}
	s.exit(endOf(status))
}

// report sends the client a request that needs no reply. It fails only when the channel is
// closed.
func (s *session) report(kind string, payload any) {
	_, _ = s.channel.SendRequest(kind, false, ssh.Marshal(payload))
}

// reportStops tells the client each time that the command stops, until over is closed.
func (s *session) reportStops(over <-chan struct{}) {
	stopped := s.running.Stopped
	if s.job != nil {
		stopped = s.job.stopped
	}
	for {
		select {
		case sig := <-stopped:
			if name := wire.SignalName(sig); name != "" {
				s.report(wire.RequestStopped, wire.Stopped{Signal: name})
			}
		case <-over:
			return
		}
	}
}

// exit reports the command's end to the client and closes the channel, once.
func (s *session) exit(e ending) {
	s.once.Do(func() {
		_ = s.channel.CloseWrite()
		_, _ = s.channel.SendRequest(e.kind, false, e.payload)
		s.channel.Close()
	})
}
