package apibody

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// The text of a search of issues and pull requests is a list of words and qualifiers, all of which have to hold. It passes if one of
// them is repo: with a repository of the scope, and each part is of a form that can mean nothing else: no operators (OR, NOT,
// parentheses), by which another part could hold instead, and no quotes but around the whole value of a qualifier.

// maxSearch bounds the text of a search, in bytes. GitHub takes no more than 256 characters: a server that cut off the rest could leave
// out the repository.
const maxSearch = 256

// searchPart is one part of such a text.
var searchPart = regexp.MustCompile(`^(?:(-?[a-z-]+):)?("[\pL\pN ._/+&'-]*"|[\pL\pN@._/+*<>=-]+)(?: +|$)`)

// qualifiers are those of a search that narrow it down. Not among them is what names another place in which to search (org, user), and
// what the text of an issue links to.
var qualifiers = []string{
	"archived", "assignee", "author", "base", "closed", "comments", "commenter", "created", "draft", "head", "in", "interactions", "involves", "is", "label", "language", "locked",
	"mentions", "merged", "milestone", "no", "reactions", "reason", "review", "review-requested", "reviewed-by", "sort", "state", "status", "type", "updated", "user-review-requested",
}

// search judges a search.
func (q *query) search(f *ast.Field) error {
	kind := f.Arguments.ForName("type")
	if kind == nil || kind.Value == nil {
		return errors.New("search has no type")
	}
	of, err := q.value(kind.Value, 0)
	if err != nil {
		return err
	}
	if of != "ISSUE" && of != "ISSUE_ADVANCED" {
		return errors.New("search is for issues and pull requests only (type: ISSUE): to find others, use git and the REST API in the repository")
	}
	text, err := q.text(f, "query")
	if err != nil {
		return err
	}
	repo, err := searched(text, q.scope.Read)
	if err != nil {
		return fmt.Errorf("the text of a search is %w; for example, write repo:%s is:open label:bug", err, q.example())
	}
	q.asked.about(repo)
	return nil
}

// searched returns the repository to which the text of a search keeps.
func searched(text string, repositories []string) (repo string, err error) {
	if len(text) > maxSearch {
		return "", fmt.Errorf("longer than %d bytes", maxSearch)
	}
	for rest := strings.Trim(text, " "); rest != ""; {
		m := searchPart.FindStringSubmatch(rest)
		if m == nil {
			return "", fmt.Errorf("not understood at %s", short(rest))
		}
		rest = rest[len(m[0]):]
		switch name, value := m[1], m[2]; {
		case name == "repo" && repo == "" && slices.Contains(repositories, value):
			repo = value
		case name == "repo":
			return "", fmt.Errorf("about %s, and not about one of %s (written just so)", short(value), strings.Join(repositories, ", "))
		case name != "" && !slices.Contains(qualifiers, strings.TrimPrefix(name, "-")):
			return "", fmt.Errorf("refused because of the qualifier %s", short(name))
		case name == "" && (value[0] == '"' || value[0] == '-') || hasOperator(value):
			return "", fmt.Errorf("not understood at %s", short(value))
		}
	}
	if repo == "" {
		return "", errors.New("about no repository")
	}
	return repo, nil
}

// hasOperator reports whether a word of a value is an operator, also in quotes.
func hasOperator(value string) bool {
	return slices.ContainsFunc(strings.Fields(strings.Trim(value, `"`)), func(w string) bool {
		return slices.Contains([]string{"AND", "OR", "NOT"}, strings.ToUpper(w))
	})
}
