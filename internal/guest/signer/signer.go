// Package signer is the program that git in the guest runs to sign a commit or a tag: it has the host sign it.
// It runs with the rights of the user who runs git.
package signer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/regular"
)

// Theory of operation. git runs a signing program in one of two ways (gpg-interface.c of git):
//
//	gpg --status-fd=2 -bsau KEY          the object on standard input; the signature on standard output, and
//	                                     a line "[GNUPG:] SIG_CREATED ..." on standard error
//	                                     (doc/DETAILS of GnuPG)
//	ssh-keygen -Y sign -n git -f KEY FILE    the object in FILE; the signature in FILE.sig (ssh-keygen(1))
//
// git takes any text for the signature, whatever its format is, and tells the format by its first line when it
// verifies one. So the settings (package guest) choose the first way, which every version of git has, and the
// signature may be one by SSH all the same. The second way is for repositories whose own settings have
// gpg.format=ssh. Everything else that git or somebody asks of the program is for the guest's own gpg or ssh-keygen,
// such as to verify a signature.

// Names under which the agent is the program, one for each program whose place it takes.
const (
	GPGMode   = "bawn-sign-gpg"
	SSHMode   = "bawn-sign-ssh"
	GPGSMMode = "bawn-sign-gpgsm"
)

var modes = []string{GPGMode, SSHMode, GPGSMMode}

// Folder has the program under its names. It is in memory.
const Folder = "/run/bawn/sign"

// address is the page of the host's that signs (policy.InfoName).
const address, host = "bawn.internal:80", "bawn.internal"

const (
	// answerTime bounds the wait for the host, which waits for its turn and for a person.
	answerTime = 5 * time.Minute
	// maxObject bounds an object, in bytes: the host takes no larger one.
	maxObject = 1 << 20
	// maxAnswer bounds what the host answers, in bytes.
	maxAnswer = 256 << 10
)

// Arrange makes the program for all users of the guest. self is the agent's own file, which lies below the root of the
// guest. It may be called again.
func Arrange(folder, self string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	program := filepath.Join(folder, "program")
	f, err := os.OpenFile(program, os.O_CREATE|os.O_RDONLY, 0o755)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	f.Close()
	if err != nil {
		return err
	}
	if fi.Size() == 0 { // not mounted yet
		if err := unix.Mount(self, program, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", program, err)
		}
	}
	for _, name := range modes {
		if err := os.Symlink(filepath.Base(program), filepath.Join(folder, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// Main is the program of that name.
func Main(name string, args []string) int {
	return (&program{name: name, dial: dialHost, in: os.Stdin, out: os.Stdout, err: os.Stderr, exec: execute, tellGit: tellGit}).run(args)
}

// program is one run of the program.
type program struct {
	name     string
	dial     func() (net.Conn, error)
	in       io.Reader
	out, err io.Writer
	exec     func(name string, args []string) error // returns only if it fails
	tellGit  func(string)                           // has git's own output show a message
}

func dialHost() (net.Conn, error) {
	return net.DialTimeout("tcp", address, answerTime) //nolint:noctx // bounded
}

func (p *program) run(args []string) int {
	switch {
	case p.name == SSHMode && slices.Equal(args, []string{printKey}):
		fmt.Fprintln(p.out, anyKey)
		return 0
	case p.name == SSHMode && len(args) > 2 && args[0] == "-Y" && args[1] == "sign":
		return p.report(p.signFile(args[len(args)-1]))
	case p.name != SSHMode && slices.ContainsFunc(args, isDetachSign):
		err := p.signStream()
		if err != nil {
			p.tellGit("error: " + err.Error() + "\n")
		}
		return p.report(err)
	}
	return p.own(args)
}

// KeyCommand is the setting gpg.ssh.defaultKeyCommand: git asks it for a key where none is set, and does no more with it
// than to name it to the program.
const KeyCommand = Folder + "/" + SSHMode + " " + printKey

const (
	printKey = "--key"
	anyKey   = "key::the-key-of-the-user-on-the-host"
)

// isDetachSign reports whether an argument asks for a signature beside the text: -bsau of git, or a part of it.
func isDetachSign(arg string) bool {
	if arg == "--detach-sign" {
		return true
	}
	return len(arg) > 1 && arg[0] == '-' && arg[1] != '-' && strings.Contains(arg, "b") && strings.Trim(arg[1:], "bsau") == ""
}

// report prints an error, as git shows it, and returns the exit status.
func (p *program) report(err error) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(p.err, err)
	return 1
}

// signFile signs as ssh-keygen does.
func (p *program) signFile(file string) error {
	b, err := regular.Read(file, maxObject, 0)
	if err != nil {
		return fmt.Errorf("bawn: not signed: %w", err)
	}
	signature, err := p.sign(b)
	if err != nil {
		return err
	}
	return os.WriteFile(file+".sig", signature, 0o644) //nolint:gosec // as ssh-keygen makes it
}

// signStream signs as gpg does.
func (p *program) signStream() error {
	b, err := io.ReadAll(io.LimitReader(p.in, maxObject+1))
	if err != nil {
		return fmt.Errorf("bawn: not signed: %w", err)
	}
	signature, err := p.sign(b)
	if err != nil {
		return err
	}
	if _, err := p.out.Write(signature); err != nil {
		return err
	}
	// The line that git looks for must not be the first one for some versions.
	_, err = fmt.Fprintf(p.err, "[GNUPG:] BEGIN_SIGNING H8\n[GNUPG:] SIG_CREATED D 0 8 00 %d 0\n", time.Now().Unix())
	return err
}

// sign has the host sign an object. It speaks HTTP/1.0 (RFC 1945), which ends an answer by the end of the
// connection: net/http would add half as much again to the agent.
func (p *program) sign(object []byte) ([]byte, error) {
	if len(object) > maxObject {
		return nil, fmt.Errorf("bawn: not signed: the object has more than %d bytes", maxObject)
	}
	status, body, err := p.post(object)
	switch {
	case err != nil:
		return nil, fmt.Errorf("bawn: not signed: the host cannot be asked: %w", err)
	case status == "200" && len(body) > 0:
		return body, nil
	case bytes.HasPrefix(body, []byte("bawn: ")):
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return nil, fmt.Errorf("bawn: not signed: the host answers with the status %q", status)
}

// post posts an object to the host.
func (p *program) post(object []byte) (status string, body []byte, err error) {
	c, err := p.dial()
	if err != nil {
		return "", nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(answerTime))
	head := fmt.Sprintf("POST /sign HTTP/1.0\r\nHost: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n", host, len(object))
	_, sent := c.Write(append([]byte(head), object...)) // a refusal may come before all is sent
	r := bufio.NewReader(io.LimitReader(c, maxAnswer))
	line, err := r.ReadString('\n')
	if err != nil {
		return "", nil, errors.Join(sent, err)
	}
	words := strings.Fields(line)
	if len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return "", nil, errors.New("it does not speak HTTP")
	}
	for line != "\r\n" {
		if line, err = r.ReadString('\n'); err != nil {
			return "", nil, err
		}
	}
	body, err = io.ReadAll(r)
	return words[1], body, err
}

// own runs the program of the guest's image.
func (p *program) own(args []string) int {
	names := map[string][]string{GPGMode: {"gpg", "gpg2"}, SSHMode: {"ssh-keygen"}, GPGSMMode: {"gpgsm"}}[p.name]
	for _, name := range names {
		if err := p.exec(name, args); !errors.Is(err, exec.ErrNotFound) {
			return p.report(err)
		}
	}
	return p.report(fmt.Errorf("bawn: %s is not installed in this sandbox; the host signs, and only %s can verify", names[0], names[0]))
}

// execute replaces this process by a program of the PATH.
func execute(name string, args []string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	return syscall.Exec(path, append([]string{name}, args...), os.Environ())
}

// tellGit shows a message where git shows its own. A git before 2.40 shows nothing of what a program like gpg says
// when it fails. It is this process's parent, and of the same user.
func tellGit(message string) {
	if shows() {
		return
	}
	if pid, err := unix.PidfdOpen(os.Getppid(), 0); err == nil {
		defer unix.Close(pid)
		if fd, err := unix.PidfdGetfd(pid, 2, 0); err == nil {
			_, _ = unix.Write(fd, []byte(message))
			unix.Close(fd)
			return
		}
	}
	// Where the kernel forbids that (ptrace_scope of yama). It works for a pipe and a terminal.
	if f, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/2", os.Getppid()), os.O_WRONLY|os.O_APPEND|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0); err == nil {
		_, _ = f.WriteString(message)
		f.Close()
	}
}

// shows reports whether git shows what a program like gpg says when it fails (its release notes, 2.40.0).
func shows() bool {
	out, err := exec.Command("git", "version").Output() //nolint:noctx // ends at once
	var major, minor int
	if _, scan := fmt.Sscanf(string(out), "git version %d.%d", &major, &minor); err != nil || scan != nil {
		return true
	}
	return major > 2 || major == 2 && minor >= 40
}
