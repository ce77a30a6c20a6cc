package apibody

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

const (
	// maxTokens bounds the text of a query, in tokens.
	maxTokens = 8000
	// maxFields bounds the fields and fragments of a query, each counted where it is used.
	maxFields = 4000
	// maxDepth bounds how deep they nest, fragments included.
	maxDepth = 32
)

//go:embed github.graphql
var gitHubSchema string

// schema is the list of what may be asked.
type schema struct {
	types map[string]*ast.Definition
	// possible are the types of an interface or union.
	possible map[string][]string
}

// gitHub reads github.graphql.
var gitHub = sync.OnceValues(func() (*schema, error) {
	doc, err := parser.ParseSchema(&ast.Source{Name: "github.graphql", Input: gitHubSchema})
	if err != nil {
		return nil, err
	}
	s := &schema{types: map[string]*ast.Definition{}, possible: map[string][]string{}}
	for _, d := range doc.Definitions {
		s.types[d.Name] = d
		s.possible[d.Name] = append(s.possible[d.Name], d.Types...)
		for _, i := range d.Interfaces {
			s.possible[i] = append(s.possible[i], d.Name)
		}
	}
	return s, nil
})

// Scope are the repositories (OWNER/REPO) that a request may be about.
type Scope struct {
	Read, Write []string // by queries, and by mutations
}

// GraphQL returns what a request of GraphQL to GitHub asks, or why it must not pass: each of its operations has to be
// a query that asks, beside the names of types and fields, who people are and what the limits are, about the
// repositories of the scope only, or a mutation of what is in them. It may pass once the nodes that it names by their
// IDs are known to be there (Asked.Question).
func GraphQL(body []byte, of Scope) (*Asked, error) {
	s, err := gitHub()
	if err != nil {
		return nil, err
	}
	text, variables, err := queryOf(body)
	if err != nil {
		return nil, err
	}
	if err := checkText(text); err != nil {
		return nil, err
	}
	doc, perr := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, maxTokens)
	if perr != nil {
		return nil, fmt.Errorf("the query cannot be parsed: %.200s", perr.Error())
	}
	if len(doc.Operations) == 0 {
		return nil, errors.New("there is no query in it")
	}
	q := &query{schema: s, scope: of, values: variables, fragments: map[string]*ast.FragmentDefinition{}}
	for _, f := range doc.Fragments {
		if q.fragments[f.Name] != nil || len(f.VariableDefinition) > 0 || len(f.Directives) > 0 {
			return nil, fmt.Errorf("the fragment %s is there twice, or has variables or directives", short(f.Name))
		}
		q.fragments[f.Name] = f
	}
	for _, op := range doc.Operations {
		if err := q.operation(op); err != nil {
			return nil, err
		}
	}
	for _, f := range doc.Fragments {
		if !slices.Contains(q.used, f) {
			return nil, fmt.Errorf("the fragment %s is not used", short(f.Name))
		}
	}
	return &q.asked, nil
}

// queryOf returns the text of a request's query, and its variables.
func queryOf(body []byte) (text string, variables map[string]any, err error) {
	o, err := object(body)
	if err != nil {
		return "", nil, err
	}
	for name, v := range o {
		ok := v == nil
		switch name {
		case "query":
			text, ok = v.(string)
		case "variables":
			if !ok {
				variables, ok = v.(map[string]any)
			}
		case "operationName": // each operation is judged
			if !ok {
				_, ok = v.(string)
			}
		default:
			return "", nil, fmt.Errorf("the body has the name %s: only query, variables and operationName are understood", short(name))
		}
		if !ok {
			return "", nil, fmt.Errorf("%s in the body is not what GraphQL over HTTP has there", name)
		}
	}
	return text, variables, nil
}

// checkText refuses texts that parsers may take apart in different ways: with escapes and block strings,
// whose ends they find differently, and with characters that some take for the end of a line or for blanks.
func checkText(text string) error {
	for i := range len(text) {
		c := text[i]
		if c == '\r' && strings.HasPrefix(text[i+1:], "\n") || c == '\n' || c == '\t' || c >= ' ' && c < 0x7f && c != '\\' {
			continue
		}
		return errors.New("the text of the query has a backslash, or a character that is not printable ASCII: put such values into variables")
	}
	if strings.Contains(text, `"""`) {
		return errors.New(`the text of the query has a block string ("""): put such values into variables`)
	}
	return nil
}

// query is the judging of one request.
type query struct {
	*schema
	scope     Scope
	values    map[string]any // of variables
	fragments map[string]*ast.FragmentDefinition
	used      []*ast.FragmentDefinition
	fields    int
	asked     Asked

	defaults map[string]*ast.Value // of the variables of the operation that is judged; nil: none
}

// example returns a repository of the scope, for messages.
func (q *query) example() string {
	return slices.Concat(q.scope.Read, q.scope.Write, []string{"OWNER/REPO"})[0]
}

// operation judges one operation.
func (q *query) operation(op *ast.OperationDefinition) error {
	root := "Query"
	switch {
	case op.Operation == ast.Mutation && len(q.scope.Write) == 0:
		return errors.New("mutations are refused, since the rules only read: a rule github:OWNER/REPO (without :read or :graphql) also writes")
	case op.Operation == ast.Mutation:
		root, q.asked.Changes = "Mutation", true
	case op.Operation != ast.Query:
		return fmt.Errorf("%s is refused: only queries and mutations may pass", short(string(op.Operation)))
	}
	if len(op.Directives) > 0 {
		return errors.New("the query has a directive: only @include and @skip of fields and fragments are understood")
	}
	q.defaults = map[string]*ast.Value{}
	for _, v := range op.VariableDefinitions {
		if _, twice := q.defaults[v.Variable]; twice || len(v.Directives) > 0 {
			return fmt.Errorf("the variable %s is there twice, or has a directive", short(v.Variable))
		}
		q.defaults[v.Variable] = v.DefaultValue
	}
	return q.selections(op.SelectionSet, place{on: q.types[root]})
}

// place is where in a query a field stands.
type place struct {
	on    *ast.Definition // the type that it is asked of
	path  []string        // names of fields
	depth int
}

// below returns the place in a field or fragment.
func (p place) below(on *ast.Definition, field string) place {
	p.depth++
	if p.on = on; field != "" {
		p.path = append(p.path[:len(p.path):len(p.path)], field)
	}
	return p
}

// name returns a field as it is shown.
func (p place) name(field string) string {
	return short(strings.Join(append(p.path[max(0, len(p.path)-2):len(p.path):len(p.path)], field), "."))
}

func (q *query) selections(set ast.SelectionSet, at place) error {
	if at.depth > maxDepth {
		return fmt.Errorf("the query nests deeper than %d levels, or a fragment is in itself", maxDepth)
	}
	for _, sel := range set {
		if q.fields++; q.fields > maxFields {
			return fmt.Errorf("the query has more than %d fields", maxFields)
		}
		var err error
		switch sel := sel.(type) {
		case *ast.Field:
			err = q.field(sel, at)
		case *ast.InlineFragment:
			err = q.fragment(sel.TypeCondition, sel.Directives, sel.SelectionSet, at)
		case *ast.FragmentSpread:
			err = q.spread(sel, at)
		default:
			err = fmt.Errorf("%T is not understood", sel)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// spread judges a fragment where it is used.
func (q *query) spread(s *ast.FragmentSpread, at place) error {
	f := q.fragments[s.Name]
	if f == nil {
		return fmt.Errorf("there is no fragment %s", short(s.Name))
	}
	if !slices.Contains(q.used, f) {
		q.used = append(q.used, f)
	}
	return q.fragment(f.TypeCondition, s.Directives, f.SelectionSet, at)
}

// fragment judges the fields of a fragment, which may be about the type where it stands or one of its
// possible types; no condition is the former.
func (q *query) fragment(condition string, directives ast.DirectiveList, set ast.SelectionSet, at place) error {
	if err := q.directives(directives); err != nil {
		return err
	}
	on := at.on
	if condition != "" && condition != on.Name && !isNameOf(on.Name, condition) {
		if !slices.Contains(q.possible[on.Name], condition) {
			return fmt.Errorf("a fragment on %s at %s is not understood", short(condition), at.name("..."))
		}
		on = q.types[condition]
	}
	return q.selections(set, at.below(on, ""))
}

// isNameOf reports whether a type of ours is the name of one of GitHub's: _RepositoryName of Repository.
func isNameOf(ours, gitHubs string) bool { return ours == "_"+gitHubs+"Name" }

// directives allows those that only leave something out.
func (*query) directives(list ast.DirectiveList) error {
	for _, d := range list {
		if d.Name != "include" && d.Name != "skip" {
			return fmt.Errorf("the directive %s is not understood: only @include and @skip are", short("@"+d.Name))
		}
	}
	return nil
}

func (q *query) field(f *ast.Field, at place) error {
	if err := q.directives(f.Directives); err != nil {
		return err
	}
	if f.Name == "__typename" {
		if len(f.Arguments) > 0 || len(f.SelectionSet) > 0 {
			return errors.New("__typename has neither arguments nor fields")
		}
		return nil
	}
	d := at.on.Fields.ForName(f.Name)
	if d == nil {
		return q.unknown(f, at)
	}
	if err := q.arguments(f, d, at); err != nil {
		return err
	}
	switch on := q.types[d.Type.Name()]; {
	case on != nil:
		return q.selections(f.SelectionSet, at.below(on, f.Name))
	case len(f.SelectionSet) > 0:
		return fmt.Errorf("%s has no fields that may be asked for", at.name(f.Name))
	}
	return nil
}

// arguments judges those of a field, of which d is the definition.
func (q *query) arguments(f *ast.Field, d *ast.FieldDefinition, at place) error {
	var seen []string
	for _, a := range f.Arguments {
		if d.Arguments.ForName(a.Name) == nil || slices.Contains(seen, a.Name) {
			return fmt.Errorf("the argument %s of %s is there twice, or is not one that may be used", short(a.Name), at.name(f.Name))
		}
		seen = append(seen, a.Name)
	}
	switch {
	case at.on.Name == "Mutation":
		return q.input(f, d)
	case at.on.Name == "Query" && f.Name == "repository":
		return q.repository(f)
	case at.on.Name == "Query" && f.Name == "search":
		return q.search(f)
	case at.on.Name == "Query" && f.Name == "node":
		id, err := q.text(f, "id")
		if err != nil {
			return err
		}
		return q.node(id, d.Type.Name(), false)
	}
	return nil
}

// unknown is the refusal of a field that is not in the list.
func (q *query) unknown(f *ast.Field, at place) error {
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

// text returns the value of an argument that has to be a string, or a variable with one.
func (q *query) text(f *ast.Field, argument string) (string, error) {
	a := f.Arguments.ForName(argument)
	if a == nil || a.Value == nil {
		return "", fmt.Errorf("%s has no %s", f.Name, argument)
	}
	if a.Value.Kind == ast.EnumValue {
		return "", fmt.Errorf("%s of %s is neither a string nor a variable with one", argument, f.Name)
	}
	v, err := q.value(a.Value, 0)
	if err != nil {
		return "", err
	}
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("%s of %s is neither a string nor a variable with one", argument, f.Name)
	}
	return s, nil
}
