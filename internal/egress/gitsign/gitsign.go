// Package gitsign signs commits and tags of git by the key of the person, as git on this host would: with the
// program and the key of the person's own configuration. It decides nothing about what is signed.
package gitsign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/regular"
	"bawn.dev/bawn/internal/sys/settings"
	"bawn.dev/bawn/internal/sys/text"
)

// Theory of operation. git does not sign itself: it runs a program, in one of two ways (gpg-interface.c of
// git; gitformat-signature(5)), and so does this package:
//
//	PROGRAM --status-fd=2 -bsau KEY           OpenPGP and X.509: the object on standard input, the
//	                                          signature on standard output, SIG_CREATED among the status
//	                                          lines on standard error (doc/DETAILS of GnuPG)
//	PROGRAM -Y sign -n git -f KEYFILE FILE    SSH: the object in FILE, the signature in FILE.sig
//	                                          (ssh-keygen(1)); -U where the key is in the agent
//
// The program may ask the person for a passphrase, a PIN or a touch, by means of an agent of its own: it has
// no terminal here.

const (
	// signTime bounds one signature, in which the person may be asked for something.
	signTime = time.Minute
	// maxSignature bounds a signature, in bytes. Those of X.509 have certificates in them.
	maxSignature = 64 << 10
	// maxSaid bounds what is kept of a program's standard error, in bytes.
	maxSaid = 8 << 10
)

// namespace is that of git's signatures by SSH: one that is made for it is none for anything else
// (ssh-keygen(1), -n).
const namespace = "git"

// Error is why an object was not signed.
type Error struct {
	Reason string // for the guest: no path and no key of the host
	Detail string // for the person: the last line that the program printed
}

func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Reason
	}
	return e.Reason + ": " + e.Detail
}

// Sign returns the signature of an object. It reads the person's settings anew, as Read does, so that a change of
// them counts. dir is a folder that no guest sees; Sign makes it, and removes it with all that is in it. One call at a
// time may use it. An error is an *Error.
func Sign(ctx context.Context, project, dir string, object []byte) ([]byte, error) {
	s, err := Read(ctx, project)
	if err != nil {
		return nil, &Error{Reason: "the signing key of the user cannot be used: bawn logs --supervisor says there why", Detail: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	sign := s.signByStream
	if s.format.name == ssh {
		sign = s.signByFile
	}
	signature, r, err := sign(ctx, dir, object)
	if err == nil {
		err = s.format.check(signature)
	}
	switch {
	case err == nil:
		return signature, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, &Error{fmt.Sprintf("the signing program of the host did not end within %v: the user may be asked for a passphrase, a PIN or a touch there", signTime), r.lastLine()}
	case r.why() != "":
		return nil, &Error{r.why(), r.lastLine()}
	}
	return nil, &Error{"the signing program of the host failed: bawn logs --supervisor says there why", strings.TrimSpace(err.Error() + ": " + r.lastLine())}
}

// errNoStatus is the error of a program that ends well and does not say that it signed.
var errNoStatus = errors.New("it did not report that it made a signature")

// signByStream signs as GnuPG does.
func (s *Settings) signByStream(ctx context.Context, _ string, object []byte) ([]byte, *result, error) {
	if err := settings.CheckGnuPG(); err != nil {
		return nil, &result{}, err
	}
	r, err := execute(ctx, s.program, []string{"--status-fd=2", "-bsau", s.key}, object)
	if err == nil && !r.has("SIG_CREATED") {
		err = errNoStatus
	}
	return r.out, r, err
}

// signByFile signs as ssh-keygen does.
func (s *Settings) signByFile(ctx context.Context, dir string, object []byte) (signature []byte, r *result, err error) {
	_ = os.RemoveAll(dir) // of a process that was killed
	defer os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, &result{}, err
	}
	file, key := filepath.Join(dir, "object"), s.key
	args := []string{"-Y", "sign", "-n", namespace, "-f"}
	if s.literal != "" {
		key = filepath.Join(dir, "key.pub")
		if err := os.WriteFile(key, []byte(s.literal+"\n"), 0o600); err != nil {
			return nil, &result{}, err
		}
	}
	args = append(args, key)
	if s.literal != "" {
		args = append(args, "-U")
	}
	if err := os.WriteFile(file, object, 0o600); err != nil {
		return nil, &result{}, err
	}
	if r, err = execute(ctx, s.program, append(args, file), nil); err != nil {
		return nil, r, err
	}
	signature, err = regular.Read(file+".sig", maxSignature, regular.NoFollow)
	return signature, r, err
}

// result is what a program printed.
type result struct {
	out, said []byte
	code      int // its exit status; -1: none
}

// passed are the variables by which programs find their agents, and these a screen to ask on. A supervisor has them
// (package handoff).
var passed = []string{
	"SSH_AUTH_SOCK", "GNUPGHOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
}

// folders are those of passed that have settings, which may name code.
var folders = []string{"GNUPGHOME", "XDG_CONFIG_HOME"}

// execute runs a signing program, or one that prints a key.
func execute(ctx context.Context, program string, args []string, in []byte) (*result, error) {
	c := proc.Command(ctx, program, args...)
	c.Env = append(c.Env, settings.Passed(passed...)...)
	if err := settings.CheckFolders(folders...); err != nil {
		return &result{}, err
	}
	return run(ctx, c, in)
}

// run runs a command, which ends with ctx, and what it started as well.
func run(ctx context.Context, c *exec.Cmd, in []byte) (*result, error) {
	out, said := &bounded.Writer{Max: maxSignature}, &bounded.Writer{Max: maxSaid}
	c.Dir = "/" // no project, and no repository
	c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(in), out, said
	proc.InSession(c)
	err := proc.Run(c)
	r := &result{out: out.Kept, said: said.Kept, code: -1}
	if c.ProcessState != nil {
		r.code = c.ProcessState.ExitCode()
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = ctx.Err()
	case err == nil && out.Over:
		err = fmt.Errorf("it printed more than %d bytes", maxSignature)
	}
	return r, err
}

// lastLine returns the last line that the program said which is no status line.
func (r *result) lastLine() string {
	last := ""
	for line := range strings.Lines(string(r.said)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "[GNUPG:]") {
			last = line
		}
	}
	return text.Line(last)
}

// status returns the words of the status lines with that keyword (doc/DETAILS of GnuPG).
func (r *result) status(keyword string) (lines [][]string) {
	for line := range strings.Lines(string(r.said)) {
		if rest, ok := strings.CutPrefix(line, "[GNUPG:] "); ok {
			if words := strings.Fields(rest); len(words) > 0 && words[0] == keyword {
				lines = append(lines, words)
			}
		}
	}
	return lines
}

// has reports whether the program wrote a status line with that keyword.
func (r *result) has(keyword string) bool { return len(r.status(keyword)) > 0 }
