package gitssh

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Commands of sessions.
//
// Theory of operation. git asks a server by a line for a shell: the name of a program, a space, and
// the path of the repository in single quotes (git's connect.c, sq_quote). Servers take such a line
// apart in different ways: some give it to a shell, some have a parser of their own, some look for
// options. So only what all of them read alike is taken: one of two programs and one path of letters,
// digits and a few signs, none of which means anything to a shell or in a URL. What is sent on is
// written anew from what was read (Command.String).

// maxCommand bounds the line of a command, in bytes.
const maxCommand = 1024

const (
	uploadPack    = "git-upload-pack"    // a fetch
	receivePack   = "git-receive-pack"   // a push
	uploadArchive = "git-upload-archive" // git archive --remote
)

// signs are the characters that a path may have beside letters and digits. A tilde is a user's home
// directory only at the beginning, and a rule that begins so means just that.
const signs = "-._+@~,="

// Command is what a session asks for: to fetch from a repository, or to push to it.
type Command struct {
	Push     bool
	Path     []string // its segments; the last one may end in .git
	absolute bool
}

// Errors of lines that are no commands of git's, or that no rule is about.
var (
	errNoCommand = errors.New("this server takes only git fetch and git push over SSH (git-upload-pack 'PATH', git-receive-pack 'PATH')")
	errArchive   = errors.New("git archive --remote over SSH is not included in rules about repositories: fetch the repository instead")
	errLFS       = errors.New("Git LFS over SSH is not included in rules about repositories") //nolint:staticcheck // a name
)

// ParseCommand reads the line of a session. Its errors are for the user of git.
func ParseCommand(line string) (c Command, err error) {
	if len(line) > maxCommand {
		return c, fmt.Errorf("the command is longer than %d bytes", maxCommand)
	}
	program, argument, _ := strings.Cut(line, " ")
	switch {
	case program == uploadPack:
	case program == receivePack:
		c.Push = true
	case program == uploadArchive:
		return c, errArchive
	case strings.HasPrefix(program, "git-lfs-"):
		return c, errLFS
	default:
		return c, errNoCommand
	}
	path, quoted := strings.CutPrefix(argument, "'")
	if quoted {
		path, quoted = strings.CutSuffix(path, "'")
	}
	if !quoted {
		return c, errNoCommand
	}
	path, c.absolute = strings.CutPrefix(path, "/")
	c.Path, err = splitPath(path)
	return c, err
}

// splitPath returns the segments of a repository's path.
func splitPath(path string) ([]string, error) {
	if !utf8.ValidString(path) {
		return nil, errors.New("the path of the repository is not UTF-8")
	}
	for _, c := range path {
		if c != '/' && !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.IsMark(c) && !strings.ContainsRune(signs, c) {
			return nil, fmt.Errorf("the path of the repository has the character %q, which servers read in different ways", c)
		}
	}
	segments := strings.Split(strings.TrimSuffix(path, "/"), "/")
	for _, s := range segments {
		switch s {
		case "":
			return nil, errors.New("the path of the repository has an empty part")
		case ".", "..":
			return nil, fmt.Errorf("the path of the repository has the part %q", s)
		}
	}
	if segments[0][0] == '-' {
		return nil, errors.New("the path of the repository begins like an option")
	}
	return segments, nil
}

// String returns the line for the server.
func (c Command) String() string {
	program, path := uploadPack, strings.Join(c.Path, "/")
	if c.Push {
		program = receivePack
	}
	if c.absolute {
		path = "/" + path
	}
	return program + " '" + path + "'"
}
