package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// execPrefix begins the command string of an SSH exec request that carries an
// ExecRequest. The byte 0x01 cannot begin a command that the user types.
const execPrefix = "\x01bawn-exec:"

// ExecRequest is a command that the guest runs exactly as given, without a shell.
//
// SSH carries a command as one string, which servers give to the login shell (RFC 4254,
// section 6.5). So bawn's own commands are encoded in such a string (ExecCommand), and the
// string of any other client is left to the shell.
type ExecRequest struct {
	// Argv is the program and its arguments; empty is the user's login shell.
	Argv []string `json:"argv,omitempty"`
	// Dir is the working directory. Empty is Identity.Workdir, or else the home directory.
	Dir string `json:"dir,omitempty"`
	// Env is KEY=VALUE, over the variables of a login.
	Env []string `json:"env,omitempty"`
	// Links are the host's symbolic links on the way to Dir. The guest makes those that are
	// missing there.
	Links []Link `json:"links,omitempty"`

	// Input is the command's standard input where it has no terminal.
	Input Input `json:"input,omitempty"`
	// SeparateError gives a command with a terminal a pipe as its standard error.
	SeparateError bool `json:"separateError,omitempty"`
	// JoinError makes standard error the same pipe as standard output, so that the order of what is
	// written to the two is kept. Without a terminal only; agents of older builds ignore it.
	JoinError bool `json:"joinError,omitempty"`
	// WaitOutput delays the command's end until all processes that hold its standard output
	// or standard error have closed them.
	WaitOutput bool `json:"waitOutput,omitempty"`
	// JobControl asks for RequestStopped when the command stops. With a terminal, the
	// command gets a process group of its own below the session's leader, so that the
	// terminal's stop signals act on it (POSIX XBD 3.264, orphaned process group).
	JobControl bool `json:"jobControl,omitempty"`

	// Umask is the command's file mode creation mask (umask(2)). Nil leaves the agent's.
	Umask *uint32 `json:"umask,omitempty"`
	// OpenFiles is a soft limit of open files (getrlimit(2), RLIMIT_NOFILE). The command's is
	// at least as high, up to the agent's hard limit.
	OpenFiles uint64 `json:"openFiles,omitempty"`
}

// Link is a symbolic link.
type Link struct {
	Path   string // absolute; its parents are no links, or stand earlier in the list
	Target string
}

// ExecCommand returns the SSH command string that carries r.
func ExecCommand(r ExecRequest) string {
	b, err := json.Marshal(rawExec{raw(r.Argv), []byte(r.Dir), raw(r.Env), rawLinks(r.Links), r.Input, r.SeparateError, r.JoinError, r.WaitOutput, r.JobControl, r.Umask, r.OpenFiles})
	if err != nil {
		panic(err) // byte slices always marshal
	}
	return execPrefix + base64.RawURLEncoding.EncodeToString(b)
}

// ParseExecCommand is the inverse of ExecCommand. For the command string of another client
// ok is false and err is nil. For a string with the prefix of ExecCommand ok is true, and
// err tells whether the rest is well formed.
func ParseExecCommand(s string) (r ExecRequest, ok bool, err error) {
	enc, ok := strings.CutPrefix(s, execPrefix)
	if !ok {
		return ExecRequest{}, false, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(enc)
	if err != nil {
		return ExecRequest{}, true, fmt.Errorf("exec request: %w", err)
	}
	var x rawExec
	if err := json.Unmarshal(b, &x); err != nil {
		return ExecRequest{}, true, fmt.Errorf("exec request: %w", err)
	}
	return ExecRequest{
		Argv: cooked(x.Argv), Dir: string(x.Dir), Env: cooked(x.Env), Links: cookedLinks(x.Links),
		Input: x.Input, SeparateError: x.SeparateError, JoinError: x.JoinError, WaitOutput: x.WaitOutput, JobControl: x.JobControl,
		Umask: x.Umask, OpenFiles: x.OpenFiles,
	}, true, nil
}

// rawExec is an ExecRequest with bytes for strings. Arguments and paths need not be UTF-8,
// and JSON strings would replace what is not.
type rawExec struct {
	Argv [][]byte `json:"argv,omitempty"`
	Dir  []byte   `json:"dir,omitempty"`
	Env  [][]byte `json:"env,omitempty"`

	Links [][2][]byte `json:"links,omitempty"` // path and target

	Input         Input `json:"input,omitempty"`
	SeparateError bool  `json:"separateError,omitempty"`
	JoinError     bool  `json:"joinError,omitempty"`
	WaitOutput    bool  `json:"waitOutput,omitempty"`
	JobControl    bool  `json:"jobControl,omitempty"`

	Umask     *uint32 `json:"umask,omitempty"`
	OpenFiles uint64  `json:"openFiles,omitempty"`
}

func raw(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, s := range list {
		out[i] = []byte(s)
	}
	return out
}

func cooked(list [][]byte) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

func rawLinks(list []Link) [][2][]byte {
	out := make([][2][]byte, len(list))
	for i, l := range list {
		out[i] = [2][]byte{[]byte(l.Path), []byte(l.Target)}
	}
	return out
}

func cookedLinks(list [][2][]byte) []Link {
	var out []Link
	for _, l := range list {
		out = append(out, Link{string(l[0]), string(l[1])})
	}
	return out
}
