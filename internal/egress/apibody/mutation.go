package apibody

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// input judges the argument of a mutation, of which d is the definition: an object with known fields.
func (q *query) input(f *ast.Field, d *ast.FieldDefinition) error {
	a := f.Arguments.ForName("input")
	if a == nil || a.Value == nil {
		return fmt.Errorf("the mutation %s has no input", f.Name)
	}
	v, err := q.value(a.Value, 0)
	if err != nil {
		return err
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("the input of the mutation %s is neither an object nor a variable with one", f.Name)
	}
	known := q.types[d.Arguments.ForName("input").Type.Name()].Fields
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		def := known.ForName(name)
		if def == nil {
			return fmt.Errorf("the mutation %s has the field %s: those that may be written are %s", f.Name, short(name), namesOf(known))
		}
		if err := q.inputField(def, fields[name]); err != nil {
			return fmt.Errorf("%s of the mutation %s: %w", name, f.Name, err)
		}
	}
	return nil
}

// inputField judges the value of one field.
func (q *query) inputField(def *ast.FieldDefinition, v any) error {
	kind := def.Type.Name()
	if (v == nil || v == absent{}) {
		return nil
	}
	if def.Type.Elem == nil {
		return q.inputValue(kind, v)
	}
	list, ok := v.([]any)
	if !ok {
		return errors.New("it is no list")
	}
	for _, one := range list {
		if err := q.inputValue(kind, one); err != nil {
			return err
		}
	}
	return nil
}

// inputValue judges one value of a type: the ID of a node, or a leaf.
func (q *query) inputValue(kind string, v any) error {
	s, isText := v.(string)
	_, isBool := v.(bool)
	switch {
	case kind == "_None":
		return errors.New("it has to be empty: a project is not of one repository")
	case kind == "Boolean" && isBool:
		return nil
	case kind == "Boolean" || !isText:
		return errors.New("it is not what GitHub has there")
	case kind == "_HeadName":
		return q.headName(s)
	case q.types[kind] != nil:
		return q.node(s, kind, true)
	}
	return nil
}

// headName judges the branch of a pull request: one with an owner before it (OWNER:BRANCH) is a branch of a fork.
func (q *query) headName(name string) error {
	owner, branch, fork := strings.Cut(name, ":")
	if !fork {
		return nil
	}
	ours := slices.ContainsFunc(slices.Concat(q.scope.Read, q.scope.Write), func(r string) bool {
		of, _, _ := strings.Cut(r, "/")
		return strings.EqualFold(of, owner)
	})
	if !ours || strings.Contains(branch, ":") {
		return fmt.Errorf("%s is a branch of another owner than those of the rules: add a rule github:%.39s/REPO for the fork, or use a branch of the repository itself", short(name), owner)
	}
	return nil
}

// namesOf returns those of fields.
func namesOf(list ast.FieldList) string {
	var names []string
	for _, f := range list {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// insteadOf says what to do instead of a mutation that is refused, with REPO for the repository. It has those that agents
// and gh are known to use.
var insteadOf = map[string]string{
	"mergePullRequest":              "merging makes a commit on the base branch, which a rule github: does not open: leave it to the person, or call gh api -X PUT repos/REPO/pulls/N/merge, whose refusal names the rule that it needs",
	"enablePullRequestAutoMerge":    "merging makes a commit on the base branch, which a rule github: does not open: leave it to the person",
	"enqueuePullRequest":            "merging makes a commit on the base branch, which a rule github: does not open: leave it to the person",
	"mergeBranch":                   "commits are made by git push, which a rule git:HOST/REPO:push=BRANCH opens",
	"createCommitOnBranch":          "commits are made by git push, which a rule git:HOST/REPO:push=BRANCH opens",
	"createRef":                     "refs are changed by git push, which a rule git:HOST/REPO:push=BRANCH opens",
	"updateRef":                     "refs are changed by git push, which a rule git:HOST/REPO:push=BRANCH opens",
	"updateRefs":                    "refs are changed by git push, which a rule git:HOST/REPO:push=BRANCH opens",
	"deleteRef":                     "refs are changed by git push, which a rule git:HOST/REPO:push=BRANCH:delete opens",
	"createLinkedBranch":            "refs are changed by git push, which a rule git:HOST/REPO:push=BRANCH opens",
	"updatePullRequestBranch":       "commits are made by git push, which a rule git:HOST/REPO:push=BRANCH opens: merge the base branch with git and push",
	"revertPullRequest":             "commits are made by git push, which a rule git:HOST/REPO:push=BRANCH opens: revert with git, push, and create a pull request",
	"addPullRequestReview":          "a review speaks for the person: write a comment instead (gh pr comment, or gh api repos/REPO/pulls/N/comments)",
	"submitPullRequestReview":       "a review speaks for the person: write a comment instead (gh pr comment, or gh api repos/REPO/pulls/N/comments)",
	"addPullRequestReviewComment":   "a review speaks for the person: use addPullRequestReviewThreadReply, or gh api repos/REPO/pulls/N/comments",
	"addPullRequestReviewThread":    "a review speaks for the person: use gh api repos/REPO/pulls/N/comments",
	"dismissPullRequestReview":      "a review speaks for the person: leave it to the person",
	"resolveReviewThread":           "a branch's protection may wait for open conversations, so that ending one can let a merge pass: reply to it (addPullRequestReviewThreadReply), and leave it open",
	"unresolveReviewThread":         "a branch's protection may wait for open conversations: reply to it (addPullRequestReviewThreadReply)",
	"transferIssue":                 "it carries an issue to another repository: leave it to the person",
	"deleteIssue":                   "it cannot be undone: close the issue (closeIssue)",
	"addProjectV2ItemById":          "a project is not of one repository: leave projects to the person",
	"updateProjectV2ItemFieldValue": "a project is not of one repository: leave projects to the person",
	"deleteProjectV2Item":           "a project is not of one repository: leave projects to the person",
	"addSubIssue":                   "an issue above another one may be of another repository: name it in the text",
}

// unknownMutation is the refusal of a mutation that is not in the list.
func (q *query) unknownMutation(name string) error {
	why, ok := insteadOf[name]
	if !ok {
		why = "those that may pass are " + namesOf(q.types["Mutation"].Fields) + "; what else the rules open is the REST API (gh api repos/REPO/...)"
	}
	return fmt.Errorf("the mutation %s is refused: %s", short(name), strings.ReplaceAll(why, "REPO", q.example()))
}
