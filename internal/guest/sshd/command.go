package sshd

import (
	"log"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/pathlink"
	"bawn.dev/bawn/internal/guest/process"
	"bawn.dev/bawn/internal/wire"
)

// command is a program with all that it needs.
type command struct {
	request wire.ExecRequest // zero for another client's command

	argv  []string
	paths []string // where the program may be, in the order to try
	dir   string
	env   []string
}

// command returns what a request runs: SFTP, a program exactly as bawn's own client gave
// it, a line of another client by the user's shell, or the user's login shell.
func (s *session) command(r *ssh.Request) (*command, error) {
	var line string
	if r.Type == "exec" {
		var v struct{ Command string }
		if err := ssh.Unmarshal(r.Payload, &v); err != nil {
			return nil, err
		}
		if s.partsLen > wire.MaxExec {
			return nil, tooLong("the command")
		}
		line = strings.Join(append(s.parts, v.Command), "")
		s.parts = nil
	}
	req, exact, err := wire.ParseExecCommand(line)
	if err != nil {
		return nil, err
	}
	shell := s.login.Shell
	if !exact { // OpenSSH's server waits too
		req.WaitOutput = true
	}
	c := s.prepare(req)
	switch {
	case r.Type == "subsystem":
		return s.sftp(c), nil
	case exact && len(req.Argv) > 0:
		c.argv, c.paths = req.Argv, candidates(req.Argv[0], c.dir, accounts.Getenv(c.env, "PATH"))
		if len(c.paths) == 0 {
			return nil, notFound(req.Argv[0])
		}
	case r.Type == "exec" && !exact:
		c.argv, c.paths = []string{filepath.Base(shell), "-c", line}, []string{shell}
	default:
		c.argv, c.paths = []string{"-" + filepath.Base(shell)}, []string{shell}
	}
	return c, nil
}

// prepare returns a command with directory and environment, but no program.
func (s *session) prepare(req wire.ExecRequest) *command {
	logins, term := s.server.logins, ""
	if s.terminal != nil {
		term = s.terminal.name
	}
	c := &command{request: req, dir: req.Dir, env: logins.Environ(s.login, term, append(s.env, req.Env...))}
	if c.dir == "" {
		c.dir = logins.StartDir(s.login)
	}
	if err := pathlink.Make("", req.Links, logins.User()); err != nil {
		log.Print(err) // the command can do without
	}
	// The directory as the client names it, where that is the same one (POSIX XBD 8.3, PWD).
	if pwd := accounts.Getenv(c.env, "PWD"); pwd == "" || !pathlink.SameDirectory(pwd, c.dir) {
		c.env = accounts.Setenv(c.env, "PWD", c.dir)
	}
	return c
}

// sftp makes c the SFTP server. A client's relative paths start at the user's home, as
// with OpenSSH's server.
func (s *session) sftp(c *command) *command {
	c.argv, c.paths, c.dir = []string{SFTPMode}, []string{process.Self}, s.login.Home
	if fi, err := os.Stat(c.dir); err != nil || !fi.IsDir() {
		c.dir = "/"
	}
	return c
}

// candidates returns the files that name may stand for, in the order in which execvp(3)
// tries them. A name with a slash, and a relative element of path, start at dir.
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
