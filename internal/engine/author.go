package engine

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/gitconfig"
)

// authorLimit bounds the wait for git, which reads a few small files.
const authorLimit = 2 * time.Second

// gitAuthor returns user.name and user.email of git's configuration of the user and of the system, as it counts in
// the project: people have conditional includes for their projects at work. What the project's repository itself sets
// is not in it: git in the guest reads that. It is empty where the host has no git, or git cannot tell: a sandbox can
// do without.
func gitAuthor(ctx context.Context, spec *sandbox.Spec) (a sandbox.Author) {
	ctx, cancel := context.WithTimeout(ctx, authorLimit)
	defer cancel()
	// The path in the guest is where the user has the project, also of a fork, which has a copy.
	values, err := gitconfig.Read(ctx, spec.Project.Guest, authorKeys)
	if err != nil { // no such directory, or a repository that git does not read
		values, _ = gitconfig.Read(ctx, "", authorKeys)
	}
	for _, v := range values {
		switch v.Key {
		case "user.name":
			a.Name = oneLine(v.Text)
		case "user.email":
			a.Email = oneLine(v.Text)
		}
	}
	return a
}

// authorKeys matches the keys that make an Author.
const authorKeys = `^user\.(name|email)$`

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
