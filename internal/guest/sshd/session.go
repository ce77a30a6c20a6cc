package sshd

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/wire"
)

// shell is one SSH session channel and the command that runs in it.
//
// Theory of operation. The command leads a session of its own (setsid(2)), under
// a pseudo-terminal or with three pipes. Without a terminal, the channel is
// closed when the command has ended and all its output has been read, which is
// when the last process that holds it has let go, as with a pipe or sshd. With
// a terminal it is closed when the command has ended and what it wrote has been
// read: the terminal goes with its session's leader.
//
// When the channel goes first, because the client died, closed it, or lost its
// connection, the command is hung up: SIGHUP to its session, and SIGKILL a
// little later. Only processes under a terminal that ignore SIGHUP are spared
// (nohup), and those that left the session (setsid, tmux).
type shell struct {
	server  *Server
	who     *accounts.Login
	channel ssh.Channel

	env     []string
	term    string
	pty     *os.File // master; nil without a terminal
	tty     *os.File // slave, until the command has it
	running *process.Process
	stdio   []*os.File // our ends
	once    sync.Once
}

// maxEnv bounds what a client may set, in variables.
const maxEnv = 4096

// serve answers the channel's requests until it is closed.
func (s *shell) serve(requests <-chan *ssh.Request) {
	for r := range requests {
		ok := s.request(r)
		if r.WantReply {
			_ = r.Reply(ok, nil) // shows as a closed channel
		}
		if ok && s.running == nil && starts(r.Type) {
			s.begin(r)
		}
	}
	// The client is gone, or has seen the end.
	if s.running != nil {
		go s.hangUp()
	} else {
		s.closeTTY()
	}
	s.channel.Close()
}

func starts(kind string) bool { return kind == "exec" || kind == "shell" || kind == "subsystem" }

// request answers one; those that start a command are only checked here, since
// their reply must precede the command's output.
func (s *shell) request(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		var v struct{ Name, Value string }
		if ssh.Unmarshal(r.Payload, &v) != nil || len(s.env) >= maxEnv || strings.ContainsAny(v.Name, "=\x00") {
			return false
		}
		s.env = append(s.env, v.Name+"="+v.Value)
		return true
	case "pty-req":
		return s.running == nil && s.pty == nil && s.openTTY(r.Payload) == nil
	case "window-change":
		var v struct{ Columns, Rows, Width, Height uint32 }
		if ssh.Unmarshal(r.Payload, &v) != nil || s.pty == nil {
			return false
		}
		return resize(s.pty, v.Columns, v.Rows, v.Width, v.Height) == nil
	case "signal":
		var v struct{ Name string }
		if ssh.Unmarshal(r.Payload, &v) != nil || s.running == nil {
			return false
		}
		sig, ok := wire.SignalByName(v.Name)
		if ok {
			s.signal(sig)
		}
		return ok
	case "exec", "shell":
		return s.running == nil
	case "subsystem":
		var v struct{ Name string }
		return s.running == nil && ssh.Unmarshal(r.Payload, &v) == nil && v.Name == "sftp"
	}
	return false // auth-agent-req@openssh.com, x11-req and the unknown
}

func (s *shell) openTTY(payload []byte) error {
	var v struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	if err := ssh.Unmarshal(payload, &v); err != nil {
		return err
	}
	master, tty, err := openTTY()
	if err != nil {
		return err
	}
	err = resize(master, v.Columns, v.Rows, v.Width, v.Height)
	err = errors.Join(err, setModes(tty, v.Modes))
	if os.Geteuid() == 0 {
		// Group tty (5) may write to it, as write(1) needs (Debian's policy;
		// devpts is mounted with the same number).
		err = errors.Join(err, tty.Chown(int(s.who.UID), 5), tty.Chmod(0o620))
	}
	if err != nil {
		master.Close()
		tty.Close()
		return err
	}
	s.pty, s.tty, s.term = master, tty, v.Term
	return nil
}

func (s *shell) closeTTY() {
	if s.tty != nil {
		s.tty.Close()
		s.tty = nil
	}
	if s.pty != nil {
		s.pty.Close()
	}
}

// begin starts the command of the request.
func (s *shell) begin(r *ssh.Request) {
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

// fail tells the client why its command does not run.
func (s *shell) fail(err error) {
	var se *startError
	if !errors.As(err, &se) {
		se = &startError{statusNotExecutable, err.Error()}
	}
	end := "\n"
	if s.pty != nil {
		end = "\r\n"
	}
	_, _ = io.WriteString(s.channel.Stderr(), "bawn: "+se.text+end)
	s.closeTTY()
	s.exit(exitStatus(se.status))
}

// finish carries the command's streams, and tells the client how it ended.
func (s *shell) finish() {
	var outputs sync.WaitGroup
	if s.pty != nil {
		go func() { _, _ = io.Copy(s.pty, s.channel) }()
		outputs.Add(1)
		go func() {
			defer outputs.Done()
			_, _ = io.Copy(s.channel, s.pty)
			s.drainTTY()
		}()
		<-s.running.Done
		// Wakes the copy, also when a process in the background keeps the
		// terminal open.
		_ = s.pty.SetReadDeadline(time.Unix(1, 0))
	} else {
		go func() {
			_, _ = io.Copy(s.stdio[0], s.channel)
			s.stdio[0].Close()
		}()
		outputs.Add(2)
		for i, w := range []io.Writer{s.channel, s.channel.Stderr()} {
			go func() {
				defer outputs.Done()
				_, _ = io.Copy(w, s.stdio[1+i])
				// Whoever still writes gets SIGPIPE: nobody will read it.
				s.stdio[1+i].Close()
			}()
		}
		<-s.running.Done
	}
	outputs.Wait()
	if s.pty != nil {
		s.pty.Close()
	}
	s.exit(endOf(s.running.Status))
}

// drainTTY sends what is left after the deadline has cut the copy short. A read
// that would block first flushes what the kernel has under way (n_tty_read), so
// nothing of the ended command is missed.
func (s *shell) drainTTY() {
	_ = s.pty.SetReadDeadline(time.Time{})
	raw, err := s.pty.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 32<<10)
	for {
		var n int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, rerr = unix.Read(int(fd), buf)
			return true
		})
		if errors.Is(rerr, unix.EINTR) {
			continue
		}
		if err != nil || rerr != nil || n <= 0 {
			return
		}
		if _, err := s.channel.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (s *shell) exit(e ending) {
	s.once.Do(func() {
		_ = s.channel.CloseWrite()
		_, _ = s.channel.SendRequest(e.kind, false, e.payload)
		s.channel.Close()
	})
}

// signal sends sig to the command's process group, and with a terminal also to
// the one in the foreground.
func (s *shell) signal(sig syscall.Signal) {
	s.server.processes.SignalGroup(s.running, sig)
	if s.pty == nil {
		return
	}
	raw, err := s.pty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if pgrp, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && pgrp > 1 && pgrp != s.running.PID {
			_ = syscall.Kill(-pgrp, sig)
		}
	})
}
