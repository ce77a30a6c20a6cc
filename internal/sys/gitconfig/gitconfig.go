// Package gitconfig reads the git configuration of the user and of the system, by means of git.
package gitconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/sys/bounded"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/text"
)

// maxList bounds what git prints, in bytes.
const maxList = 64 << 10

// Value is a value of the configuration.
type Value struct {
	File string // the file that sets it
	Key  string // section and variable in lower case
	Text string // empty: the file has the key alone
}

// Error says why git could not read the configuration.
type Error struct {
	Said string // the last line that git printed
	Err  error
}

func (e *Error) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("read git's configuration: %v: %s", e.Err, e.Said), ": ")
}

func (e *Error) Unwrap() error { return e.Err }

// Read returns the values whose keys match the regular expression pattern, those that count last at the end: of the
// system's configuration (/etc/gitconfig), of the user's (~/.gitconfig, git/config), and of the files that these
// include. Nothing of a repository and of the environment is among them. Conditional includes
// (git-config(1), includeIf) count as in the directory dir, an absolute path, or in no repository if dir is empty.
// Who can write there chooses which condition is true, and no other file. An error is an *Error, or says that there
// is no git. It may be called by several goroutines at once.
func Read(ctx context.Context, dir, pattern string) (list []Value, err error) {
	if dir != "" {
		if _, err := os.Stat(dir); err != nil {
			return nil, &Error{Err: err}
		}
	}
	for _, scope := range []string{"--system", "--global"} {
		part, err := read(ctx, dir, scope, pattern)
		if err != nil {
			return nil, err
		}
		list = append(list, part...)
	}
	return list, nil
}

func read(ctx context.Context, dir, scope, pattern string) ([]Value, error) {
	git := proc.Command(ctx, "git", "config", scope, "--includes", "--show-origin", "-z", "--get-regexp", pattern)
	// The traces that the configuration may ask for would write files (git-config(1), trace2.*).
	git.Env = append(git.Env, "GIT_TRACE2=0", "GIT_TRACE2_EVENT=0", "GIT_TRACE2_PERF=0")
	if xdg := os.Getenv("XDG_CONFIG_HOME"); xdg != "" {
		git.Env = append(git.Env, "XDG_CONFIG_HOME="+xdg)
	}
	git.Dir = "/"
	if dir != "" {
		git.Dir = dir
		git.Env = append(git.Env, "PWD="+spelled(dir)) // conditions name directories as people do
	}
	out, said := &bounded.Writer{Max: maxList}, &bounded.Writer{Max: maxList}
	git.Stdout, git.Stderr = out, said
	proc.InSession(git)
	err := proc.Run(git)
	if missing := proc.Missing(err, "git"); missing != nil {
		return nil, missing
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = ctx.Err()
	case err == nil && out.Over:
		err = fmt.Errorf("it is longer than %d bytes", maxList)
	case err != nil && len(said.Kept) == 0 && git.ProcessState != nil && git.ProcessState.ExitCode() == 1:
		return nil, nil // no key matches
	}
	if err != nil {
		return nil, &Error{lastLine(said.Kept), err}
	}
	return parse(out.Kept)
}

// parse reads git's list of ORIGIN NUL KEY [LF VALUE] NUL.
func parse(list []byte) (values []Value, err error) {
	fields := bytes.Split(list, []byte{0})
	for f := range slices.Chunk(fields[:len(fields)-1], 2) {
		if len(f) < 2 {
			return nil, &Error{Err: errors.New("git's list is cut off")}
		}
		file, ok := strings.CutPrefix(string(f[0]), "file:")
		if !ok {
			continue
		}
		key, value, _ := strings.Cut(string(f[1]), "\n")
		values = append(values, Value{file, key, value})
	}
	return values, nil
}

// spelled returns the working directory as the shell names it, if that is dir, else dir.
func spelled(dir string) string {
	pwd := os.Getenv("PWD")
	a, errA := os.Stat(pwd)
	b, errB := os.Stat(dir)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return pwd
	}
	return dir
}

func lastLine(said []byte) string {
	said = bytes.TrimSpace(said)
	return text.Line(string(said[bytes.LastIndexByte(said, '\n')+1:]))
}
