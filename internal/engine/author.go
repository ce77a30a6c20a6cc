package engine

import (
	"context"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proc"
)

// authorLimit bounds the wait for git, which reads two small files.
const authorLimit = 2 * time.Second

// gitAuthor returns user.name and user.email of the user's own git configuration. It is empty
// where the host has no git, or git cannot tell: a sandbox can do without.
func gitAuthor(ctx context.Context) sandbox.Author {
	ctx, cancel := context.WithTimeout(ctx, authorLimit)
	defer cancel()
	git := proc.Command(ctx, "git", "config", "--global", "--includes", "-z", "--get-regexp", `^user\.(name|email)$`)
	git.Dir = "/" // no repository: neither the project's configuration nor a conditional include counts
	// A trace that the configuration asks for would write files (git-config(1), trace2.*).
	git.Env = append(git.Env, "GIT_TRACE2=0", "GIT_TRACE2_EVENT=0", "GIT_TRACE2_PERF=0")
	if dir := os.Getenv("XDG_CONFIG_HOME"); dir != "" {
		git.Env = append(git.Env, "XDG_CONFIG_HOME="+dir) // git reads git/config there, too
	}
	git.WaitDelay = authorLimit
	out, err := git.Output()
	if err != nil { // also where neither is set
		return sandbox.Author{}
	}
	return parseAuthor(string(out))
}

// parseAuthor reads git's "KEY\nVALUE\0" list, of which the last value of a key counts.
func parseAuthor(list string) (a sandbox.Author) {
	for entry := range strings.SplitSeq(list, "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		switch key {
		case "user.name":
			a.Name = oneLine(value)
		case "user.email":
			a.Email = oneLine(value)
		}
	}
	return a
}

// maxAuthor bounds a name and an e-mail address, in bytes. The longest address is 254 bytes
// (RFC 5321, erratum 1690).
const maxAuthor = 254

// oneLine makes a value one line of printable text of at most maxAuthor bytes.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	for len(s) > maxAuthor {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}
