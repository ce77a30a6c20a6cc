package apibody

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2/ast"
)

//go:embed github.graphql
var gitHubSchema string

// gitHub reads github.graphql.
var gitHub = sync.OnceValues(func() (*schema, error) {
	return newSchema("github.graphql", gitHubSchema, service{root: gitHubRoot, unknown: unknownToGitHub, mutation: gitHubMutation})
})

// GraphQL returns what a request of GraphQL to GitHub asks, or why it must not pass: each of its operations has to be
// a query that asks, beside the names of types and fields, who people are and what the limits are, about the
// repositories of the scope only, or a mutation of what is in them. It may pass once the nodes that it names by their
// IDs are known to be there (Asked.Question).
func GraphQL(body []byte, of Scope) (*Asked, error) {
	s, err := gitHub()
	if err != nil {
		return nil, err
	}
	return s.judge(body, of)
}

// gitHubMutation returns why no mutation may pass.
func gitHubMutation(q *query, _ *ast.OperationDefinition) error {
	if len(q.scope.Write) == 0 {
		return errors.New("mutations are refused, since the rules only read: a rule github:OWNER/REPO (without :read or :graphql) also writes")
	}
	return nil
}

// gitHubRoot judges the arguments of a field of Query.
func gitHubRoot(q *query, f *ast.Field, d *ast.FieldDefinition) error {
	switch f.Name {
	case "repository":
		return q.repository(f)
	case "search":
		return q.search(f)
	case "node":
		id, err := q.text(f, "id")
		if err != nil {
			return err
		}
		return q.node(id, d.Type.Name(), false)
	}
	return nil
}

// unknownToGitHub is the refusal of a field that is not in the list.
func unknownToGitHub(q *query, f *ast.Field, at place) error {
	repo := q.example()
	if at.on.Name == "Mutation" {
		return q.unknownMutation(f.Name)
	}
	if at.on.Name != "Query" {
		return fmt.Errorf("%s is not among the fields that may be asked for, as far as it is known to stay in the repository: leave it out, or use the REST API (gh api repos/%s/...)", at.name(f.Name), repo)
	}
	if f.Name == "organization" {
		return fmt.Errorf("%s is refused, as it leads beyond the repository: to request a review, use gh api repos/%s/pulls/N/requested_reviewers -f 'reviewers[]=LOGIN'", at.name(f.Name), repo)
	}
	owner, name, _ := strings.Cut(repo, "/")
	return fmt.Errorf("%s is refused, as it leads beyond the repository: ask for repository(owner: %q, name: %q) { issue, issues, pullRequest, pullRequests, ... }, or use the REST API (gh api repos/%s/...)",
		at.name(f.Name), owner, name, repo)
}

// repository judges which one a query is about.
func (q *query) repository(f *ast.Field) error {
	owner, err := q.text(f, "owner")
	if err != nil {
		return err
	}
	name, err := q.text(f, "name")
	if err != nil {
		return err
	}
	full := owner + "/" + name
	if strings.Contains(owner, "/") || !slices.Contains(q.scope.Read, full) {
		return fmt.Errorf("the query is about the repository %s, and the rules are about %s (written just so)", short(full), strings.Join(q.scope.Read, ", "))
	}
	q.asked.about(full)
	return nil
}
