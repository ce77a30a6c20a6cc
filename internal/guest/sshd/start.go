package sshd

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"bawn.dev/bawn/internal/guest/process"
)

// Exit statuses of commands that could not be run, as shells report them (POSIX XCU,
// section 2.8.2).
const (
	statusNotExecutable = 126
	statusNotFound      = 127
)

// startError reports why a command could not be run, and the status that stands for it.
type startError struct {
	status uint32
	text   string
}

func (e *startError) Error() string { return e.text }

// tooLong is the error of arguments and environment that are longer than the kernel
// accepts (execve(2), E2BIG).
func tooLong(name string) error {
	return &startError{statusNotExecutable, name + ": Argument list too long"}
}

func notFound(name string) error {
	if strings.Contains(name, "/") {
		return &startError{statusNotFound, name + ": no such file in the guest"}
	}
	return &startError{statusNotFound, name + ": command not found in the guest"}
}

// start runs the command on the session's terminal, or on new pipes.
func (s *session) start(c *command) error {
	if fi, err := os.Stat(c.dir); err != nil || !fi.IsDir() {
		if err == nil {
			err = syscall.ENOTDIR
		}
		return &startError{statusNotExecutable, fmt.Sprintf("directory %s: %v", c.dir, errnoOf(err))}
	}
	attr := &syscall.ProcAttr{Dir: c.dir, Env: c.env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: s.login.Credential()}}
	attr.Sys.Setctty = s.terminal != nil // descriptor 0
	x, err := s.newStreams(c.request)
	if err != nil {
		return err
	}
	for _, f := range x.theirs {
		attr.Files = append(attr.Files, f.Fd()) // Fd sets it to blocking mode, as programs expect
	}
	p, err := s.executeAs(c, attr)
	x.release()
	if err != nil {
		x.close()
		return err
	}
	s.streams, s.running = x, p
	return nil
}

// executeAs is execute with the limits of the request. Other clients' commands have the
// umask of their connection and the agent's limit of open files.
func (s *session) executeAs(c *command, attr *syscall.ProcAttr) (*process.Process, error) {
	if err := process.AllowOpenFiles(c.request.OpenFiles); err != nil {
		log.Print(err) // the command can do without
	}
	umask := cmp.Or(c.request.Umask, s.umask)
	if umask == nil {
		return s.execute(c, attr)
	}
	return process.WithUmask(*umask, func() (*process.Process, error) { return s.execute(c, attr) })
}

// launch executes one file for the command.
func (s *session) launch(c *command, path string, argv []string, attr *syscall.ProcAttr) (p *process.Process, err error) {
	if s.terminal == nil || !c.request.JobControl {
		return s.server.processes.Start(path, argv, attr)
	}
	p, s.job, err = s.startJob(path, argv, attr)
	return p, err
}

// execute starts the first candidate that can be executed, as execvp(3) does.
func (s *session) execute(c *command, attr *syscall.ProcAttr) (*process.Process, error) {
	var denied error
	for _, path := range c.paths {
		p, err := s.launch(c, path, c.argv, attr)
		switch {
		case err == nil:
			return p, nil
		case errors.Is(err, syscall.ENOEXEC):
			return s.script(c, path, attr)
		case errors.Is(err, syscall.EACCES):
			denied = err
			continue
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
			return nil, s.missing(c, path)
		case errors.Is(err, syscall.E2BIG):
			return nil, tooLong(path)
		}
		return nil, &startError{statusNotExecutable, path + ": " + err.Error()}
	}
	name := c.argv[0]
	if denied == nil {
		return nil, notFound(name)
	}
	return nil, &startError{statusNotExecutable, name + ": " + denied.Error()}
}

// script starts a file that names no interpreter by a shell, as execvp(3) does.
func (s *session) script(c *command, path string, attr *syscall.ProcAttr) (*process.Process, error) {
	argv := append([]string{"sh", path}, c.argv[1:]...)
	p, err := s.launch(c, "/bin/sh", argv, attr)
	if err != nil {
		return nil, &startError{statusNotExecutable, path + ": " + syscall.ENOEXEC.Error()}
	}
	return p, nil
}

// missing explains ENOENT of execve(2): the file is missing, or the interpreter or
// loader that it names.
func (s *session) missing(c *command, path string) error {
	at := path
	if !filepath.IsAbs(at) {
		at = c.dir + "/" + at
	}
	if _, err := os.Stat(at); err == nil {
		return &startError{statusNotFound, path + ": the interpreter or loader that it names is not in the guest"}
	}
	if path == s.login.Shell {
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
