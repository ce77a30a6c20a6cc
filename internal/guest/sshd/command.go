package sshd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/wire"
)

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
	c.env = l.Environ(s.who, s.term, append(s.env, req.Env...))
	if c.dir == "" {
		c.dir = l.StartDir(s.who)
	}
	switch {
	case r.Type == "subsystem":
		// Where a client's relative paths start, by custom of sshd.
		c.argv, c.paths, c.dir = []string{SFTPMode}, []string{process.Self}, s.who.Home
		if fi, err := os.Stat(c.dir); err != nil || !fi.IsDir() {
			c.dir = "/"
		}
	case exact && len(req.Argv) > 0:
		c.argv = req.Argv
		c.paths = candidates(req.Argv[0], c.dir, accounts.Getenv(c.env, "PATH"))
		if len(c.paths) == 0 {
			return nil, notFound(req.Argv[0])
		}
	case r.Type == "exec" && !exact:
		c.argv, c.paths = []string{filepath.Base(s.who.Shell), "-c", line}, []string{s.who.Shell}
	default:
		c.argv, c.paths = []string{"-" + filepath.Base(s.who.Shell)}, []string{s.who.Shell}
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
	attr := &syscall.ProcAttr{Dir: c.dir, Env: c.env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: s.who.Credential()}}
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
func (s *shell) try(c *command, attr *syscall.ProcAttr) (*process.Process, error) {
	var denied error
	for _, path := range c.paths {
		p, err := s.server.processes.Start(path, c.argv, attr)
		switch {
		case err == nil:
			return p, nil
		case errors.Is(err, syscall.ENOEXEC):
			// A script without #!: a shell runs it (execvp(3)).
			argv := append([]string{"sh", path}, c.argv[1:]...)
			if p, err := s.server.processes.Start("/bin/sh", argv, attr); err == nil {
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
	if slices.Contains(c.paths, s.who.Shell) && path == s.who.Shell {
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
