package apibody

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2/ast"
)

//go:embed gitlab.graphql
var gitLabSchema string

// gitLab reads gitlab.graphql.
var gitLab = sync.OnceValues(func() (*schema, error) {
	return newSchema("gitlab.graphql", gitLabSchema, service{root: gitLabRoot, unknown: unknownToGitLab, mutation: gitLabMutation})
})

// GitLabGraphQL returns what a request of GraphQL to GitLab asks, or why it must not pass: each of its operations has to be a query that
// asks, beside the names of types and fields, and who the user is, about these projects (GROUP/PROJECT) only. It names no node by
// its ID, so Asked.Question is nil.
func GitLabGraphQL(body []byte, projects []string) (*Asked, error) {
	s, err := gitLab()
	if err != nil {
		return nil, err
	}
	return s.judge(body, Scope{Read: projects})
}

// gitLabRoot judges the arguments of a field of Query. A project is compared in the case that the rule has: GitLab takes every case, and
// finds the same project, so that nothing is lost by it.
func gitLabRoot(q *query, f *ast.Field, _ *ast.FieldDefinition) error {
	if f.Name != "project" {
		return nil
	}
	path, err := q.text(f, "fullPath")
	if err != nil {
		return err
	}
	if !slices.Contains(q.scope.Read, path) {
		return fmt.Errorf("the query is about the project %s, and the rules are about %s (written just so)", short(path), strings.Join(q.scope.Read, ", "))
	}
	q.asked.about(path)
	return nil
}

// restOf returns the path of a project in the REST API of GitLab.
func (q *query) restOf() string { return "projects/" + strings.ReplaceAll(q.example(), "/", "%2F") }

// unknownToGitLab is the refusal of a field that is not in the list.
func unknownToGitLab(q *query, f *ast.Field, at place) error {
	switch {
	case at.on.Name == "Query":
		return fmt.Errorf("%s is refused, as it leads beyond the project: ask for project(fullPath: %q) { issue, issues, mergeRequest, mergeRequests, pipelines, repository, ... }, or use the REST API (glab api %s/...)",
			at.name(f.Name), q.example(), q.restOf())
	case strings.HasSuffix(f.Name, "Html"):
		return fmt.Errorf("%s is refused, as GitLab names there what a text refers to in other projects: ask for the text itself (%s)", at.name(f.Name), short(strings.TrimSuffix(f.Name, "Html")))
	}
	return fmt.Errorf("%s is not among the fields that may be asked for, as far as it is known to stay in the project: leave it out, or use the REST API (glab api %s/...)", at.name(f.Name), q.restOf())
}

// gitLabCall is what to do instead of mutations, by the beginning of their names, with PROJECT for the path of the project.
type gitLabCall struct{ mutation, instead string }

// gitLabCalls are those of mutations that agents use; the first that fits counts.
var gitLabCalls = []gitLabCall{
	{"mergeRequestAccept", "merging makes a commit on the target branch, which a rule gitlab: does not open: leave it to the person"},
	{"issueMove", "it carries an issue to another project: leave it to the person"},
	{"createIssue", "use glab api -X POST PROJECT/issues -f title=..."},
	{"workItemCreate", "use glab api -X POST PROJECT/issues -f title=..."},
	{"updateIssue", "use glab api -X PUT PROJECT/issues/IID -f ..."},
	{"issueSet", "use glab api -X PUT PROJECT/issues/IID -f ..."},
	{"workItemUpdate", "use glab api -X PUT PROJECT/issues/IID -f ..."},
	{"mergeRequestCreate", "use glab api -X POST PROJECT/merge_requests -f source_branch=... -f target_branch=... -f title=..."},
	{"mergeRequestUpdate", "use glab api -X PUT PROJECT/merge_requests/IID -f ..."},
	{"mergeRequestSet", "use glab api -X PUT PROJECT/merge_requests/IID -f ..."},
	{"createNote", "use glab api -X POST PROJECT/issues/IID/notes -f body=... (or merge_requests/IID/notes)"},
	{"updateNote", "use glab api -X PUT PROJECT/issues/IID/notes/ID -f body=... (or merge_requests/IID/notes/ID)"},
	{"destroyNote", "use glab api -X DELETE PROJECT/issues/IID/notes/ID (or merge_requests/IID/notes/ID)"},
	{"createDiscussion", "use glab api -X POST PROJECT/issues/IID/discussions -f body=... (or merge_requests/IID/discussions)"},
	{"createDiffNote", "use glab api -X POST PROJECT/merge_requests/IID/discussions with a position"},
	{"discussionToggleResolve", "use glab api -X PUT PROJECT/merge_requests/IID/discussions/ID -F resolved=true"},
}

// gitLabMutation is the refusal of every mutation. They name what they change by IDs, or projects by paths, and take texts with commands.
func gitLabMutation(q *query, op *ast.OperationDefinition) error {
	name := ""
	for _, sel := range op.SelectionSet {
		if f, ok := sel.(*ast.Field); ok {
			name = f.Name
			break
		}
	}
	instead := "what may be written are issues, merge requests and notes (glab api -X POST PROJECT/issues -f title=...)"
	if i := slices.IndexFunc(gitLabCalls, func(c gitLabCall) bool { return strings.HasPrefix(name, c.mutation) }); i >= 0 {
		instead = gitLabCalls[i].instead
	}
	return fmt.Errorf("mutations of GitLab are refused (%s): %s; the REST API writes where a rule gitlab:GROUP/PROJECT without :read or :graphql is", short(name), strings.ReplaceAll(instead, "PROJECT", q.restOf()))
}
