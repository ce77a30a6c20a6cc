package guest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"

	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/guest/signer"
	"bawn.dev/bawn/internal/wire"
)

// git's configuration of the whole system (git-config(1)) belongs to the guest's
// administrator. The agent adds one section at its start, which includes a file of the
// agent's own: settings of the administrator come later, and so prevail, and `git config
// --system` never edits what the next start writes again. The own file is in /run, so that it
// is in no image that is made of the sandbox.

const (
	gitConfig    = "/etc/gitconfig"
	ownGitConfig = "/run/bawn/gitconfig"
)

// maxGitConfig is the size from which on gitConfig is left alone, in bytes.
const maxGitConfig = 64 << 10

// gitSettings are what the agent tells git. Its methods may be called concurrently.
type gitSettings struct {
	system, own string // files

	mu     sync.Mutex
	author wire.Author
	sign   bool     // the host signs commits and tags
	dirs   []string // shared directories
}

// trust lets every user of the guest use git in a shared directory, whose repositories belong
// to one of them (git-config(1), safe.directory).
func (g *gitSettings) trust(dir string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Contains(g.dirs, dir) {
		g.dirs = append(g.dirs, dir)
	}
	return g.write()
}

// identify sets whose commits are made where nothing else says so, and whether the host signs them.
func (g *gitSettings) identify(author wire.Author, sign bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.author, g.sign = author, sign
	return g.write()
}

// write writes the files; g.mu is held.
func (g *gitSettings) write() error {
	return errors.Join(etc.Replace(g.own, gitText(g.author, g.sign, g.dirs), 0o644), g.include())
}

// include makes the system's configuration include the own file.
func (g *gitSettings) include() error {
	text := etc.Read(g.system)
	section := []byte("[include]\n\tpath = " + gitQuote(g.own) + " " + ownLine + "\n")
	if bytes.Contains(text, section) || len(text) >= maxGitConfig {
		return nil
	}
	return etc.Replace(g.system, append(section, text...), 0o644)
}

// gitText is the own file.
func gitText(author wire.Author, sign bool, dirs []string) []byte {
	var b strings.Builder
	b.WriteString(ownLine + ": git of the whole system includes this file.\n")
	// A repository's other worktrees may lie where only the host sees them: git gc must not take
	// them for removed, nor what they have staged for unused.
	b.WriteString("[gc]\n\tworktreePruneExpire = never\n\tpruneExpire = never\n")
	if author != (wire.Author{}) {
		b.WriteString("[user]\n")
	}
	if author.Name != "" {
		b.WriteString("\tname = " + gitQuote(author.Name) + "\n")
	}
	if author.Email != "" {
		b.WriteString("\temail = " + gitQuote(author.Email) + "\n")
	}
	if sign {
		b.WriteString(signText)
	}
	for _, dir := range dirs {
		b.WriteString("[safe]\n\tdirectory = " + gitQuote(dir) + "\n\tdirectory = " + gitQuote(dir+"/*") + "\n")
	}
	return []byte(b.String())
}

// signText are the settings by which git signs commits and tags (git-config(1)). tag.gpgSign is left alone: it makes a tag
// of its own, with an editor for its message, of what is asked for as a mere name of a commit (git tag v1).
const signText = "[commit]\n\tgpgSign = true\n[tag]\n\tforceSignAnnotated = true\n" +
	"[gpg]\n\tformat = openpgp\n\tprogram = " + signer.Folder + "/" + signer.GPGMode + "\n" +
	"[gpg \"openpgp\"]\n\tprogram = " + signer.Folder + "/" + signer.GPGMode + "\n" +
	"[gpg \"ssh\"]\n\tprogram = " + signer.Folder + "/" + signer.SSHMode + "\n\tdefaultKeyCommand = " + signer.KeyCommand + "\n" +
	"[gpg \"x509\"]\n\tprogram = " + signer.Folder + "/" + signer.GPGSMMode + "\n"

// gitQuote returns a value in quotes (git-config(1), SYNTAX).
func gitQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}
