package policy

import (
	"errors"
	"fmt"
	"strings"
)

// codeHost is a set of rules about one repository at the REST API of a service, written
// NAME:OWNER/REPO[:read].
type codeHost struct {
	name    string
	summary string
	read    []string // rules with {repo} for OWNER/REPO
	write   []string // those that :read leaves out
}

// codeHosts name the requests that are needed to work on a repository with its issues and pull
// requests. Whatever opens another way to its commits (contents, git/refs, merges), to others
// (forks, invitations, keys, hooks) or speaks for the user (reviews) is not among them.
var codeHosts = []codeHost{{
	name:    "github",
	summary: "GitHub's REST API for one repository",
	read: []string{
		"GET,HEAD https://api.github.com/repos/{repo}/**",
		"GET,HEAD https://api.github.com/user",
	},
	write: []string{
		"POST https://api.github.com/repos/{repo}/issues",
		"PATCH https://api.github.com/repos/{repo}/issues/*",
		"POST https://api.github.com/repos/{repo}/issues/*/comments",
		"PATCH,DELETE https://api.github.com/repos/{repo}/issues/comments/*",
		"POST,PUT,DELETE https://api.github.com/repos/{repo}/issues/*/labels",
		"DELETE https://api.github.com/repos/{repo}/issues/*/labels/*",
		"POST,DELETE https://api.github.com/repos/{repo}/issues/*/assignees",
		"POST https://api.github.com/repos/{repo}/pulls",
		"PATCH https://api.github.com/repos/{repo}/pulls/*",
		"POST https://api.github.com/repos/{repo}/pulls/*/comments",
		"POST https://api.github.com/repos/{repo}/pulls/*/comments/*/replies",
		"PATCH,DELETE https://api.github.com/repos/{repo}/pulls/comments/*",
		"POST,DELETE https://api.github.com/repos/{repo}/pulls/*/requested_reviewers",
	},
}}

// Limits of GitHub for the names of owners and repositories, in bytes.
const (
	maxOwner = 39
	maxRepo  = 100
)

// cutCodeHost splits NAME:OWNER/REPO[:read]. github:443 is a rule about a port of a host of that
// name.
func cutCodeHost(text string) (h *codeHost, rest string) {
	for i := range codeHosts {
		if rest, ok := cutWord(text, codeHosts[i].name+":"); ok && strings.Contains(rest, "/") {
			return &codeHosts[i], rest
		}
	}
	return nil, ""
}

// cutRepository splits OWNER/REPO[:read].
func (h *codeHost) cutRepository(text string) (repo string, readOnly bool, err error) {
	repo, mode, hasMode := strings.Cut(text, ":")
	owner, name, _ := strings.Cut(repo, "/")
	name = strings.TrimSuffix(name, gitSuffix)
	switch {
	case hasMode && !strings.EqualFold(mode, "read"):
		return "", false, fmt.Errorf("a rule about a repository at the API is %s:OWNER/REPO[:read]", h.name)
	case !isRepoName(owner, maxOwner, "-_") || !isRepoName(name, maxRepo, "-_.") || name == "." || name == ".." || trimGit(name) != name:
		return "", false, fmt.Errorf("%q is no OWNER/REPO", repo)
	}
	return owner + "/" + name, hasMode, nil
}

// isRepoName reports whether a text has letters, digits and these characters only.
func isRepoName(s string, limit int, others string) bool {
	return s != "" && len(s) <= limit && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"+others) == ""
}

// expand makes the rules about a repository.
func (h *codeHost) expand(action Action, text string, at Source) ([]Rule, error) {
	repo, readOnly, err := h.cutRepository(text)
	if err != nil {
		return nil, err
	}
	if action == Deny {
		return nil, errors.New("it opens some requests: to deny all about a repository, write deny https://api.github.com/repos/OWNER/REPO/**")
	}
	texts := h.read
	if !readOnly {
		texts = append(texts[:len(texts):len(texts)], h.write...)
	}
	var rules []Rule
	for _, t := range texts {
		r, err := parseRule(action, strings.ReplaceAll(t, "{repo}", repo), at)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	return rules, nil
}

// canonical returns the canonical form of a rule whose text expand takes.
func (h *codeHost) canonical(text string) string {
	repo, readOnly, _ := h.cutRepository(text)
	if readOnly {
		repo += ":read"
	}
	return h.name + ":" + repo
}

// words returns in words what a rule opens.
func (h *codeHost) words(text string) string {
	repo, readOnly, _ := h.cutRepository(text)
	what := "to read it, and to write its issues and pull requests"
	if readOnly {
		what = "to read it"
	}
	return h.summary + ", " + repo + ", " + what + " (inspected on the host)"
}
