package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

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
	server  *sshServer
	who     *login
	channel ssh.Channel

	env     []string
	term    string
	pty     *os.File // master; nil without a terminal
	tty     *os.File // slave, until the command has it
	running *process
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
		sig, ok := signals[v.Name]
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
		err = errors.Join(err, tty.Chown(int(s.who.uid), 5), tty.Chmod(0o620))
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

// Exit statuses of commands that could not be run, as shells have them (POSIX
// XCU 2.8.2).
const (
	statusNotExecutable = 126
	statusNotFound      = 127
)

// startError is why a command could not be run.
type startError struct {
	status uint32
	text   string
}

func (e *startError) Error() string { return e.text }

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

// command is a program with all that it needs.
type command struct {
	argv  []string
	paths []string // where the program may be, in the order to try
	dir   string
	env   []string
}

// command turns a request into what to run.
func (s *shell) command(r *ssh.Request) (*command, error) {
	line, req := "", wire.ExecRequest{}
	exact := false
	if r.Type == "exec" {
		var v struct{ Command string }
		if err := ssh.Unmarshal(r.Payload, &v); err != nil {
			return nil, err
		}
		line = v.Command
		var err error
		if req, exact, err = wire.ParseExecCommand(line); err != nil {
			return nil, err
		}
	}
	l := s.server.logins
	c := &command{dir: req.Dir}
	c.env = l.environ(s.who, s.term, append(s.env, req.Env...))
	if c.dir == "" {
		c.dir = l.startDir(s.who)
	}
	switch {
	case r.Type == "subsystem":
		// Where a client's relative paths start, by custom of sshd.
		c.argv, c.paths, c.dir = []string{modeSFTP}, []string{selfExe}, s.who.home
		if fi, err := os.Stat(c.dir); err != nil || !fi.IsDir() {
			c.dir = "/"
		}
	case exact && len(req.Argv) > 0:
		c.argv = req.Argv
		c.paths = candidates(req.Argv[0], c.dir, environment(c.env).get("PATH"))
		if len(c.paths) == 0 {
			return nil, notFound(req.Argv[0])
		}
	case r.Type == "exec" && !exact:
		c.argv, c.paths = []string{filepath.Base(s.who.shell), "-c", line}, []string{s.who.shell}
	default:
		c.argv, c.paths = []string{"-" + filepath.Base(s.who.shell)}, []string{s.who.shell}
	}
	return c, nil
}

func notFound(name string) error {
	if strings.Contains(name, "/") {
		return &startError{statusNotFound, name + ": no such file in the guest"}
	}
	return &startError{statusNotFound, name + ": command not found in the guest"}
}

// candidates are the places where name may be, as execvp(3) looks for it. A
// name with a slash, and an element of path that is relative, start at dir.
func candidates(name, dir, path string) []string {
	if name == "" {
		return nil
	}
	if strings.Contains(name, "/") {
		return []string{name}
	}
	var list []string
	for _, p := range filepath.SplitList(path) {
		file := p + "/" + name
		if p == "" {
			file = "./" + name
		}
		at := file
		if !filepath.IsAbs(at) {
			at = dir + "/" + file
		}
		if fi, err := os.Stat(at); err == nil && !fi.IsDir() {
			list = append(list, file)
		}
	}
	return list
}

// start runs the command with our ends of its streams kept in s.
func (s *shell) start(c *command) error {
	if fi, err := os.Stat(c.dir); err != nil || !fi.IsDir() {
		if err == nil {
			err = syscall.ENOTDIR
		}
		return &startError{statusNotExecutable, fmt.Sprintf("directory %s: %v", c.dir, errnoOf(err))}
	}
	attr := &syscall.ProcAttr{Dir: c.dir, Env: c.env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: s.who.credential()}}
	var theirs []*os.File
	if s.pty != nil {
		attr.Sys.Setctty = true // descriptor 0
		theirs = []*os.File{s.tty, s.tty, s.tty}
		s.tty = nil
	} else {
		var err error
		if s.stdio, theirs, err = pipes(); err != nil {
			return err
		}
	}
	for _, f := range theirs {
		attr.Files = append(attr.Files, f.Fd()) // Fd makes it blocking, as programs expect
	}
	p, err := s.try(c, attr)
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		for _, f := range s.stdio {
			f.Close()
		}
		return err
	}
	s.running = p
	return nil
}

// try executes the first candidate that can be, as execvp(3) does.
func (s *shell) try(c *command, attr *syscall.ProcAttr) (*process, error) {
	var denied error
	for _, path := range c.paths {
		p, err := s.server.processes.start(path, c.argv, attr)
		switch {
		case err == nil:
			return p, nil
		case errors.Is(err, syscall.ENOEXEC):
			// A script without #!: a shell runs it (execvp(3)).
			argv := append([]string{"sh", path}, c.argv[1:]...)
			if p, err := s.server.processes.start("/bin/sh", argv, attr); err == nil {
				return p, nil
			}
			return nil, &startError{statusNotExecutable, path + ": " + err.Error()}
		case errors.Is(err, syscall.EACCES):
			denied = err
			continue
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
			return nil, s.missing(c, path)
		}
		return nil, &startError{statusNotExecutable, path + ": " + err.Error()}
	}
	name := c.argv[0]
	if denied == nil {
		return nil, notFound(name)
	}
	return nil, &startError{statusNotExecutable, name + ": " + denied.Error()}
}

// missing explains ENOENT of execve(2), which may mean the file or what it
// names to run it.
func (s *shell) missing(c *command, path string) error {
	at := path
	if !filepath.IsAbs(at) {
		at = c.dir + "/" + at
	}
	if _, err := os.Stat(at); err == nil {
		return &startError{statusNotFound, path + ": the interpreter or loader that it names is not in the guest"}
	}
	if slices.Contains(c.paths, s.who.shell) && path == s.who.shell {
		return &startError{statusNotFound, fmt.Sprintf("the image has no shell (%s): name a program to run instead", path)}
	}
	return notFound(path)
}

func errnoOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// pipes makes the three standard streams.
func pipes() (ours, theirs []*os.File, err error) {
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			for _, f := range slices.Concat(ours, theirs) {
				f.Close()
			}
			return nil, nil, fmt.Errorf("pipe: %w", err)
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	return ours, theirs, nil
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
		<-s.running.done
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
		<-s.running.done
	}
	outputs.Wait()
	if s.pty != nil {
		s.pty.Close()
	}
	s.exit(endOf(s.running.status))
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

// ending is the last request on a session channel (RFC 4254 section 6.10).
type ending struct {
	kind    string
	payload []byte
}

func exitStatus(n uint32) ending {
	return ending{"exit-status", ssh.Marshal(struct{ Status uint32 }{n})}
}

func endOf(st syscall.WaitStatus) ending {
	if !st.Signaled() {
		return exitStatus(uint32(st.ExitStatus()))
	}
	name := signalName(st.Signal())
	if name == "" { // as a shell would say it
		return exitStatus(128 + uint32(st.Signal()))
	}
	return ending{"exit-signal", ssh.Marshal(struct {
		Signal     string
		CoreDumped bool
		Message    string
		Language   string
	}{name, st.CoreDump(), st.Signal().String(), ""})}
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
	s.server.processes.signalGroup(s.running, sig)
	if s.pty == nil {
		return
	}
	raw, err := s.pty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if pgrp, err := unix.IoctlGetInt(int(fd), unix.TIOCGPGRP); err == nil && pgrp > 1 && pgrp != s.running.pid {
			_ = syscall.Kill(-pgrp, sig)
		}
	})
}

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
	case <-p.done:
		if s.pty == nil {
			return // what it left behind in the background goes on
		}
	default:
	}
	for _, m := range session(p.pid) {
		_ = syscall.Kill(m.pid, syscall.SIGHUP)
		_ = syscall.Kill(m.pid, syscall.SIGCONT) // a stopped process would not hear
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
			_ = syscall.Kill(m.pid, syscall.SIGKILL)
		}
		if len(list) == 0 {
			return
		}
		time.Sleep(hangUpLook)
	}
}

// doomed are the processes of the session that are not spared.
func (s *shell) doomed() []member {
	return slices.DeleteFunc(session(s.running.pid), func(m member) bool {
		return s.pty != nil && m.pid != s.running.pid && m.ignoresHangup()
	})
}
