package apibody

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strings"

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

//go:embed shared.graphql
var sharedSchema string

// schema is the list of what may be asked of a code host, and the judging that is its own.
type schema struct {
	types map[string]*ast.Definition
	// possible are the types of an interface or union.
	possible map[string][]string
	service
}

// service is the judging that differs between code hosts.
type service struct {
	// root judges the arguments of a field of Query, of which d is the definition.
	root func(q *query, f *ast.Field, d *ast.FieldDefinition) error
	// unknown is the refusal of a field that is not in the list.
	unknown func(q *query, f *ast.Field, at place) error
	// mutation returns why no mutation may pass; nil: those in the list may.
	mutation func(q *query, op *ast.OperationDefinition) error
}

// newSchema reads a list.
func newSchema(name, text string, of service) (*schema, error) {
	doc, err := parser.ParseSchema(&ast.Source{Name: name, Input: sharedSchema + text})
	if err != nil {
		return nil, err
	}
	s := &schema{types: map[string]*ast.Definition{}, possible: map[string][]string{}, service: of}
	for _, d := range doc.Definitions {
		s.types[d.Name] = d
		s.possible[d.Name] = append(s.possible[d.Name], d.Types...)
		for _, i := range d.Interfaces {
			s.possible[i] = append(s.possible[i], d.Name)
		}
	}
	return s, nil
}

// Scope are the repositories (OWNER/REPO) that a request may be about.
type Scope struct {
	Read, Write []string // by queries, and by mutations
}

// judge returns what a request of GraphQL asks, or why it must not pass.
func (s *schema) judge(body []byte, of Scope) (*Asked, error) {
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
	return checkComments(text)
}

// checkComments refuses quotes in comments. GitLab escapes the ends of lines in what it takes for strings before it reads a
// text, and knows no comments there: by a quote in one, the comment would go on over the next lines.
func checkComments(text string) error {
	inString, inComment := false, false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\n':
			inComment = false
		case c == '"' && inComment:
			return errors.New("a comment in the query has a quote, by which some servers end it elsewhere: leave the comment out")
		case c == '"':
			inString = !inString
		case c == '#' && !inString:
			inComment = true
		}
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
	case op.Operation == ast.Mutation:
		if err := q.mutation(q, op); err != nil {
			return err
		}
		root, q.asked.Changes = "Mutation", true
	case op.Operation != ast.Query:
		return fmt.Errorf("%s is refused: only queries may pass, and mutations that the rules allow", short(string(op.Operation)))
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

// isNameOf reports whether a type of ours is the name of one of the code host's: _RepositoryName of Repository.
func isNameOf(ours, theirs string) bool { return ours == "_"+theirs+"Name" }

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
		return q.unknown(q, f, at)
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
	switch at.on.Name {
	case "Mutation":
		return q.input(f, d)
	case "Query":
		return q.root(q, f, d)
	}
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
