package engine

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/sys/regular"
)

// Rules that name a remote of the project's repository: git:origin:push=feature/*.
//
// Theory of operation. The remote is looked up once, when the user gives the rule, and the rule
// that is kept names the repository; a notice says which. It is not looked up again: where the
// guest has made the repository itself (git init), or may write .git/config (--no-guard), it could
// name another one. For the same reason bawn.yaml takes no such rule. Only the host's own
// .git/config is read, never the guest's version of it, and no file that it includes.

const (
	// RuleRemote is the reason of a notice: a rule names a remote, which was looked up (Text says what it
	// leads to).
	RuleRemote Reason = "rule-remote"
	// RemoteUnusable is the reason of an error: the remote that a rule names is not known, or leads to no repository that a
	// rule can be about.
	RemoteUnusable Reason = "rule-remote-unusable"
)

// maxGitConfig bounds the configuration of a repository that is read, in bytes.
const maxGitConfig = 1 << 20

// withRemotes returns rules with the repositories of the remotes that they name.
func (e *Engine) withRemotes(s Scope, rules []string) ([]string, error) {
	out := make([]string, 0, len(rules))
	for _, text := range rules {
		name, ok := policy.GitRemote(text)
		if !ok {
			out = append(out, text)
			continue
		}
		repository, err := e.remoteOf(s, name)
		if err != nil {
			return nil, &Error{Reason: RemoteUnusable, Sandbox: s.Sandbox, Err: fmt.Errorf("the rule %q names the remote %q: %w", text, name, err)}
		}
		rule := policy.WithRepository(text, repository)
		e.notify(Notice{Reason: RuleRemote, Sandbox: s.Sandbox, Text: fmt.Sprintf("the remote %s is %s: the rule is %s", name, repository, rule)})
		out = append(out, rule)
	}
	return out, nil
}

// remoteOf returns the repository of a remote of a sandbox's project, as rules name it.
func (e *Engine) remoteOf(s Scope, name string) (string, error) {
	if s.All {
		return "", errors.New("a rule for all sandboxes has no project")
	}
	spec, err := e.sandboxes.Dir(s.Sandbox).Spec()
	if err != nil {
		return "", err
	}
	address, err := remoteURL(spec.Dir, name)
	if err != nil {
		return "", err
	}
	repository, err := repositoryOf(address)
	if err != nil {
		return "", fmt.Errorf("its URL is %.200q: %w", address[strings.LastIndexByte(address, '@')+1:], err) // without a password
	}
	return repository, nil
}

// anyRepository stands for that of a remote where only the form of a rule is checked.
const anyRepository = "repository.example/owner/name"

// withAnyRepository returns rules in the form that package policy takes, to be checked.
func withAnyRepository(rules []string) []string {
	out := make([]string, len(rules))
	for i, text := range rules {
		if out[i] = text; isRemoteRule(text) {
			out[i] = policy.WithRepository(text, anyRepository)
		}
	}
	return out
}

func isRemoteRule(text string) bool {
	_, ok := policy.GitRemote(text)
	return ok
}

// remoteURL returns the URL of a remote, as the host's configuration of the repository of a
// directory has it.
func remoteURL(dir, name string) (string, error) {
	git := filepath.Join(dir, ".git")
	if m, _, err := gitDirOf(dir); err == nil { // a linked worktree or a submodule
		git = m.Host
	}
	text, err := regular.Read(filepath.Join(git, "config"), maxGitConfig, unix.O_NOFOLLOW)
	if err != nil {
		return "", fmt.Errorf("the repository's configuration cannot be read (%w)", err)
	}
	c := config.New()
	if err := config.NewDecoder(bytes.NewReader(text)).Decode(c); err != nil {
		return "", fmt.Errorf("%s/config: %w", git, err)
	}
	if !c.HasSection("remote") || !c.Section("remote").HasSubsection(name) {
		return "", fmt.Errorf("%s/config has no such remote", git)
	}
	remote := c.Section("remote").Subsection(name)
	urls := append(remote.OptionAll("url"), remote.OptionAll("pushurl")...)
	switch {
	case len(urls) == 0 || urls[0] == "":
		return "", fmt.Errorf("%s/config gives it no URL", git)
	case len(urls) > 1:
		return "", fmt.Errorf("%s/config gives it several URLs", git)
	}
	return urls[0], nil
}

var errNoURL = errors.New("it does not lead to a server over HTTPS or SSH: write git:HOST/OWNER/REPO")

// repositoryOf returns the repository of a URL of git's (git-clone(1), GIT URLS) as rules name it,
// HOST[:PORT]/PATH.
func repositoryOf(address string) (string, error) {
	host, path, ok := cutAddress(address)
	if !ok || strings.Contains(path, ":") || !strings.Contains(host, ".") { // else a name of ~/.ssh/config
		return "", errNoURL
	}
	repository := host + "/" + strings.Trim(path, "/")
	rules, err := policy.ParseRule(policy.Allow, "git:"+repository)
	if err != nil {
		return "", fmt.Errorf("no rule can be about it: %w", err)
	}
	return strings.TrimPrefix(rules[0].Text, "git:"), nil
}

// cutAddress splits a URL of git's: https://[USER@]HOST[:PORT]/PATH, ssh://[USER@]HOST[:PORT]/PATH,
// or [USER@]HOST:PATH. The usual port of SSH is left out: a rule without a port is about it, too.
func cutAddress(address string) (host, path string, ok bool) {
	if !strings.Contains(address, "://") {
		host, path, ok = strings.Cut(address, ":")
		if ok = ok && !strings.Contains(host, "/") && !strings.HasPrefix(path, ":"); !ok {
			return "", "", false
		}
		return host[strings.LastIndexByte(host, '@')+1:], path, true
	}
	u, err := url.Parse(address)
	if err != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", "", false
	}
	switch u.Scheme {
	case "https":
		return u.Host, u.EscapedPath(), true
	case "ssh", "git+ssh", "ssh+git":
		if u.Port() == "22" {
			return u.Hostname(), u.EscapedPath(), true
		}
		return u.Host, u.EscapedPath(), true
	}
	return "", "", false
}
