package apibody

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Theory of operation: nodes
//
// A mutation names what it changes by the ID of a node, which does not say in whose repository that is, and so does
// the field node of a query. An ID can be of any form, and an agent finds some everywhere: in texts, in answers about
// other repositories, by counting. So no ID counts as ours because of where it was seen. Before a request with IDs is sent on,
// bawn asks the server itself (Asked.Question), with the credential of the request, of which type each node is and in which
// repository, and refuses the request unless each is what it has to be there (Asked.Judge). The question is
// made here, and of the guest's request only the IDs are in it, as the values of variables. The guest does not get the
// answer; and a refusal does not tell an ID in another repository from one of nothing at all.

const (
	// maxNodes bounds the nodes of one request.
	maxNodes = 100
	// maxID bounds an ID, in bytes. Those of GitHub have fewer than 100.
	maxID = 256
)

// repositoryOf is how each type of node is asked for its repository; empty: it is in none (people, teams).
var repositoryOf = map[string]string{
	"Repository":               "nameWithOwner",
	"Issue":                    "repository { nameWithOwner }",
	"IssueComment":             "repository { nameWithOwner }",
	"Label":                    "repository { nameWithOwner }",
	"Milestone":                "repository { nameWithOwner }",
	"PullRequest":              "repository { nameWithOwner }",
	"PullRequestReviewComment": "repository { nameWithOwner }",
	"PullRequestReviewThread":  "repository { nameWithOwner }",
	"Bot":                      "",
	"IssueType":                "",
	"Mannequin":                "",
	"Organization":             "",
	"Team":                     "",
	"User":                     "",
}

// Asked is what a request asks.
type Asked struct {
	// About are the repositories that it names, and Changed those in which it changes something, as they are written in the
	// scope; the latter, and those of the field node, are known after Judge.
	About, Changed []string
	// Changes: it is or has a mutation.
	Changes bool
	nodes   []node
}

// node is what has to be in a repository.
type node struct {
	id    string
	types []string // of which it is one
	write bool     // it is of a mutation
}

func (a *Asked) about(repository string) {
	if !slices.Contains(a.About, repository) {
		a.About = append(a.About, repository)
	}
}

// node notes the ID of a node, which has to be of a type or one of its possible types.
func (q *query) node(id, of string, write bool) error {
	types := q.possible[of]
	if len(types) == 0 {
		types = []string{of}
	}
	for _, t := range types {
		if _, known := repositoryOf[t]; !known {
			return fmt.Errorf("the repository of a node of the type %s is not known", t)
		}
	}
	one := node{id, types, write}
	switch {
	case id == "" || len(id) > maxID:
		return fmt.Errorf("%s is no ID", short(id))
	case slices.ContainsFunc(q.asked.nodes, one.equal):
		return nil
	case len(q.asked.nodes) >= maxNodes:
		return fmt.Errorf("it names more than %d nodes", maxNodes)
	}
	q.asked.nodes = append(q.asked.nodes, one)
	return nil
}

func (n node) equal(o node) bool {
	return n.id == o.id && n.write == o.write && slices.Equal(n.types, o.types)
}

// Question returns the body of the request that asks the server about the nodes; nil: there are none. Its answer is for
// Judge.
func (a *Asked) Question() []byte {
	if len(a.nodes) == 0 {
		return nil
	}
	var declared, asked []string
	variables := map[string]string{}
	for i, n := range a.nodes {
		name := nodeName(i)
		variables[name] = n.id
		declared = append(declared, "$"+name+": ID!")
		asked = append(asked, name+": node(id: $"+name+") { __typename"+n.fields()+" }")
	}
	b, err := json.Marshal(map[string]any{
		"query":     "query(" + strings.Join(declared, ", ") + ") { " + strings.Join(asked, " ") + " }",
		"variables": variables,
	})
	if err != nil {
		panic(err) // texts alone
	}
	return b
}

// nodeName is the variable of a node, and the name of what is known of it.
func nodeName(i int) string { return "n" + strconv.Itoa(i) }

// fields returns what is asked of a node. A server that does not know a type refuses a question that names it, so it
// names only those that the node may be of.
func (n node) fields() string {
	var b strings.Builder
	for _, t := range n.types {
		if f := repositoryOf[t]; f != "" {
			b.WriteString(" ... on " + t + " { " + f + " }")
		}
	}
	return b.String()
}

// errAnswer means that nothing is known of the nodes.
var errAnswer = errors.New("the server was asked in which repository the nodes are that the request names, and its answer is not understood: try again")

// Judge returns why a request must not pass, by the server's answer to the question; nil: each of its nodes is in a repository
// of the scope. Names of repositories are compared as GitHub does, in any case.
func (a *Asked) Judge(answer []byte, of Scope) error {
	o, err := object(answer)
	if err != nil {
		return errAnswer
	}
	data, ok := o["data"].(map[string]any)
	if !ok {
		return errAnswer
	}
	for i, n := range a.nodes {
		known, _ := data[nodeName(i)].(map[string]any)
		repo, err := n.judge(known, of)
		switch {
		case err != nil:
			return err
		case repo == "":
		case n.write:
			if !slices.Contains(a.Changed, repo) {
				a.Changed = append(a.Changed, repo)
			}
		default:
			a.about(repo)
		}
	}
	return nil
}

// judge returns the repository of a node, as it is written in the scope; empty if it is in none.
func (n node) judge(known map[string]any, of Scope) (string, error) {
	ours := of.Read
	if n.write {
		ours = of.Write
	}
	kind, _ := known["__typename"].(string)
	if slices.Contains(n.types, kind) {
		within := known
		if kind != "Repository" {
			within, _ = known["repository"].(map[string]any)
		}
		name, _ := within["nameWithOwner"].(string)
		i := slices.IndexFunc(ours, func(r string) bool { return strings.EqualFold(r, name) })
		switch {
		case repositoryOf[kind] == "":
			return "", nil
		case i >= 0:
			return ours[i], nil
		}
	}
	return "", fmt.Errorf("the ID %s is not known as that of a node of the type %s in %s: take it from an answer about the repository", short(n.id), strings.Join(n.types, " or "), strings.Join(ours, " or "))
}
