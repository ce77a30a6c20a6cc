package apibody

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

// writes are rules of which those about own/app also write.
var writes = Scope{Read: []string{"own/app", "own/lib", "me/fork"}, Write: []string{"own/app", "me/fork"}}

// nodesOf stand for GitHub's: type and repository by ID.
var nodesOf = map[string][2]string{
	"R_app": {"Repository", "own/app"}, "R_fork": {"Repository", "me/fork"}, "R_lib": {"Repository", "own/lib"}, "R_evil": {"Repository", "evil/app"},
	"I_app": {"Issue", "Own/App"}, "I_lib": {"Issue", "own/lib"}, "I_evil": {"Issue", "evil/app"},
	"PR_app": {"PullRequest", "own/app"}, "PR_evil": {"PullRequest", "evil/app"}, "IC_app": {"IssueComment", "own/app"}, "IC_evil": {"IssueComment", "evil/app"},
	"LA_app": {"Label", "own/app"}, "LA_evil": {"Label", "evil/app"}, "MI_app": {"Milestone", "own/app"}, "RT_app": {"PullRequestReviewThread", "own/app"},
	"RC_app": {"PullRequestReviewComment", "own/app"}, "U_me": {"User", ""}, "T_x": {"Team", ""}, "B_x": {"Bot", ""}, "IT_x": {"IssueType", ""},
	"D_app": {"Discussion", "own/app"}, "G_me": {"Gist", ""},
}

// gitHubAnswers answers a question as GitHub does: by executing it, not by how it is built.
func gitHubAnswers(t testing.TB, question []byte) []byte {
	t.Helper()
	var body struct {
		Query     string
		Variables map[string]string
	}
	if err := json.Unmarshal(question, &body); err != nil {
		t.Fatal(err)
	}
	doc, err := parser.ParseQuery(&ast.Source{Input: body.Query})
	if err != nil || len(doc.Operations) != 1 || doc.Operations[0].Operation != ast.Query {
		t.Fatalf("the question %s: %v", body.Query, err)
	}
	data := map[string]any{}
	for _, sel := range doc.Operations[0].SelectionSet {
		f := sel.(*ast.Field)
		if f.Name != "node" || len(f.Arguments) != 1 {
			t.Fatalf("the question %s", body.Query)
		}
		data[f.Alias] = nil
		n, ok := nodesOf[body.Variables[f.Arguments.ForName("id").Value.Raw]]
		if !ok {
			continue
		}
		one := map[string]any{}
		for _, sel := range f.SelectionSet {
			switch sel := sel.(type) {
			case *ast.Field:
				one[sel.Alias] = n[0]
			case *ast.InlineFragment:
				if sel.TypeCondition != n[0] {
					continue
				}
				if one["repository"] = map[string]any{"nameWithOwner": n[1]}; n[0] == "Repository" {
					one["nameWithOwner"] = n[1]
				}
			}
		}
		data[f.Alias] = one
	}
	b, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// judged judges a request as a gateway does.
func judged(t testing.TB, body string, of Scope) (*Asked, error) {
	t.Helper()
	asked, err := GraphQL([]byte(body), of)
	if err != nil {
		return nil, err
	}
	if q := asked.Question(); q != nil {
		return asked, asked.Judge(gitHubAnswers(t, q), of)
	}
	return asked, nil
}

// mutate is a mutation as gh writes it.
func mutate(name, fields string) string {
	return fmt.Sprintf("mutation M($input: %sInput!) { %s(input: $input) { %s } }", strings.ToUpper(name[:1])+name[1:], name, fields)
}

// input is the value of its variable.
func input(pairs ...any) map[string]any {
	o := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		o[pairs[i].(string)] = pairs[i+1]
	}
	return map[string]any{"input": o}
}

// TestMutations: what gh and agents change in a repository passes, once GitHub says that it is there.
func TestMutations(t *testing.T) {
	for name, step := range map[string]struct {
		text string
		with map[string]any
	}{
		"gh issue create":             {mutate("createIssue", "issue { id url }"), input("repositoryId", "R_app", "title", "a", "body", "R_evil", "labelIds", []string{"LA_app"}, "assigneeIds", []string{"U_me"}, "milestoneId", "MI_app", "projectIds", []string{}, "issueTypeId", "IT_x")},
		"gh pr create":                {mutate("createPullRequest", "pullRequest { id url }"), input("repositoryId", "R_app", "title", "a", "body", "b", "draft", false, "baseRefName", "main", "headRefName", "feature/x", "maintainerCanModify", true)},
		"gh pr create, from our fork": {mutate("createPullRequest", "pullRequest { id url }"), input("repositoryId", "R_app", "title", "a", "baseRefName", "main", "headRefName", "Me:x", "headRepositoryId", "R_fork")},
		"gh pr create --label":        {mutate("updatePullRequest", "clientMutationId"), input("pullRequestId", "PR_app", "labelIds", []string{"LA_app"}, "assigneeIds", nil)},
		"gh pr create --reviewer":     {mutate("requestReviews", "clientMutationId"), input("pullRequestId", "PR_app", "userIds", []string{"U_me"}, "teamIds", []string{"T_x"}, "botIds", []string{"B_x"}, "union", true)},
		"gh pr comment":               {mutate("addComment", "commentEdge { node { url } }"), input("subjectId", "PR_app", "body", "see I_evil")},
		"gh issue comment":            {mutate("addComment", "commentEdge { node { url } }"), input("subjectId", "I_app", "body", "x")},
		"gh issue comment --edit":     {mutate("updateIssueComment", "issueComment { url }"), input("id", "IC_app", "body", "x")},
		"gh issue comment --delete":   {mutate("deleteIssueComment", "clientMutationId"), input("id", "IC_app")},
		"gh issue edit":               {mutate("updateIssue", "__typename"), input("id", "I_app", "title", "x", "state", "OPEN")},
		"gh issue edit --add-label":   {mutate("addLabelsToLabelable", "__typename"), input("labelableId", "I_app", "labelIds", []string{"LA_app"})},
		"gh issue edit --add-assign":  {mutate("replaceActorsForAssignable", "__typename"), input("assignableId", "I_app", "actorIds", []string{"U_me"})},
		"gh issue close":              {mutate("closeIssue", "issue { id }"), input("issueId", "I_app", "stateReason", "NOT_PLANNED", "duplicateIssueId", "I_app")},
		"gh issue reopen":             {mutate("reopenIssue", "issue { id }"), input("issueId", "I_app")},
		"gh pr close":                 {mutate("closePullRequest", "pullRequest { id }"), input("pullRequestId", "PR_app")},
		"gh pr reopen":                {mutate("reopenPullRequest", "pullRequest { id }"), input("pullRequestId", "PR_app")},
		"gh pr ready":                 {mutate("markPullRequestReadyForReview", "pullRequest { id }"), input("pullRequestId", "PR_app")},
		"gh pr ready --undo":          {mutate("convertPullRequestToDraft", "pullRequest { id }"), input("pullRequestId", "PR_app")},
		"an answer in a review":       {`mutation($id: ID!, $text: String!) { addPullRequestReviewThreadReply(input: {pullRequestReviewThreadId: $id, body: $text}) { comment { id url } } }`, map[string]any{"id": "RT_app", "text": "done"}},
		"an edited answer":            {mutate("updatePullRequestReviewComment", "pullRequestReviewComment { id }"), input("pullRequestReviewCommentId", "RC_app", "body", "x")},
		"written inline":              {`mutation { a: addComment(input: {subjectId: "I_app", body: "x"}) { clientMutationId } ...m } fragment m on Mutation { closeIssue(input: {issueId: "I_app", stateReason: COMPLETED}) { issue { ... on Issue { state } } } }`, nil},
		"defaults":                    {`mutation($id: ID! = "I_app", $reason: IssueClosedStateReason, $list: [ID!] = ["LA_app"]) { closeIssue(input: {issueId: $id, stateReason: $reason}) { clientMutationId } addLabelsToLabelable(input: {labelableId: $id, labelIds: $list}) { labelable { ... on Issue { id } } } }`, nil},
	} {
		asked, err := judged(t, bodyOf(t, step.text, step.with), writes)
		if err != nil || !asked.Changes || !slices.Contains(asked.Changed, "own/app") {
			t.Errorf("%s: %+v, %v", name, asked, err)
		}
		if _, err := judged(t, bodyOf(t, step.text, step.with), reads); err == nil || !strings.Contains(err.Error(), "the rules only read") {
			t.Errorf("%s passes by a rule that reads: %v", name, err)
		}
	}
}

// TestNodes: what gh asks by node passes, if the node is in a repository that may be read.
func TestNodes(t *testing.T) {
	checks := `query PullRequestStatusChecks($id: ID!, $endCursor: String) { node(id: $id) { ...on PullRequest { statusCheckRollup: commits(last: 1) { nodes { commit { statusCheckRollup { contexts(first: 100, after: $endCursor) { nodes { __typename ...on CheckRun { name isRequired(pullRequestId: $id) } } pageInfo { hasNextPage endCursor } } } } } } } } }`
	for id, repo := range map[string]string{"PR_app": "own/app", "PR_evil": "", "I_lib": "own/lib", "R_app": "", "nothing": "", "LA_app": ""} {
		asked, err := judged(t, bodyOf(t, checks, map[string]any{"id": id}), reads)
		if (err == nil) != (repo != "") || err == nil && (strings.Join(asked.About, " ") != repo || asked.Changes) {
			t.Errorf("%s: %+v, %v", id, asked, err)
		}
	}
	for _, text := range []string{
		`fragment repo on Repository { id name owner { login } viewerPermission defaultBranchRef { name target { oid } } isPrivate } query RepositoryNetwork { viewer { login } repo_000: repository(owner: "own", name: "app") { ...repo parent { ...repo } } }`,
		`query RepositoryResolveMetadataIDs { u000: user(login: "me") { id login } repository(owner: "own", name: "app") { l000: label(name: "bug") { id name } } }`,
	} {
		if _, err := judged(t, bodyOf(t, text, nil), reads); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestAttackMutations: what would change something elsewhere, or do more than the rules open.
func TestAttackMutations(t *testing.T) {
	const comment = "addComment"
	many := []string{}
	for i := range 101 {
		many = append(many, fmt.Sprint("LA_", i))
	}
	for name, step := range map[string]struct {
		text string
		with map[string]any
		say  string
	}{
		"an issue elsewhere":               {mutate(comment, "clientMutationId"), input("subjectId", "I_evil", "body", "x"), `"I_evil" is not known`},
		"a repository elsewhere":           {mutate("createIssue", "clientMutationId"), input("repositoryId", "R_evil", "title", "x"), `"R_evil" is not known`},
		"one that may only be read":        {mutate(comment, "clientMutationId"), input("subjectId", "I_lib", "body", "x"), `"I_lib" is not known`},
		"one that is nowhere":              {mutate(comment, "clientMutationId"), input("subjectId", "I_none", "body", "x"), `"I_none" is not known`},
		"another kind of node":             {mutate(comment, "clientMutationId"), input("subjectId", "D_app", "body", "x"), `"D_app" is not known`},
		"a repository for an issue":        {mutate(comment, "clientMutationId"), input("subjectId", "R_app", "body", "x"), `"R_app" is not known`},
		"a gist for a person":              {mutate("addAssigneesToAssignable", "clientMutationId"), input("assignableId", "I_app", "assigneeIds", []string{"G_me"}), `"G_me" is not known`},
		"a label elsewhere":                {mutate("addLabelsToLabelable", "clientMutationId"), input("labelableId", "I_app", "labelIds", []string{"LA_app", "LA_evil"}), `"LA_evil" is not known`},
		"a duplicate elsewhere":            {mutate("closeIssue", "clientMutationId"), input("issueId", "I_app", "duplicateIssueId", "I_evil"), `"I_evil" is not known`},
		"the head in a stranger's fork":    {mutate("createPullRequest", "clientMutationId"), input("repositoryId", "R_app", "title", "x", "headRefName", "x", "baseRefName", "main", "headRepositoryId", "R_evil"), `"R_evil" is not known`},
		"the head in a fork, by its owner": {mutate("createPullRequest", "clientMutationId"), input("repositoryId", "R_app", "title", "x", "headRefName", "evil:x", "baseRefName", "main"), "github:evil/REPO"},
		"the head in a fork of ours":       {mutate("createPullRequest", "clientMutationId"), input("repositoryId", "R_app", "title", "x", "headRefName", "own:secret:x", "baseRefName", "main"), "another owner"},
		"a project":                        {mutate("createIssue", "clientMutationId"), input("repositoryId", "R_app", "title", "x", "projectIds", []string{"P_1"}), "not of one repository"},
		"a field that is not known":        {mutate("createIssue", "clientMutationId"), input("repositoryId", "R_app", "title", "x", "parentIssueId", "I_evil"), `the field "parentIssueId"`},
		"the same in another case":         {mutate(comment, "clientMutationId"), input("subjectId", "I_app", "SubjectId", "I_evil", "body", "x"), `the field "SubjectId"`},
		"an ID that is a number":           {mutate(comment, "clientMutationId"), input("subjectId", 7, "body", "x"), "not what GitHub has there"},
		"an ID that is an object":          {mutate(comment, "clientMutationId"), input("subjectId", map[string]any{"id": "I_app"}, "body", "x"), "not what GitHub has there"},
		"an ID that is a list":             {mutate(comment, "clientMutationId"), input("subjectId", []string{"I_app"}, "body", "x"), "not what GitHub has there"},
		"a list that is none":              {mutate("addLabelsToLabelable", "clientMutationId"), input("labelableId", "I_app", "labelIds", "LA_evil"), "no list"},
		"a list in a list":                 {mutate("addLabelsToLabelable", "clientMutationId"), input("labelableId", "I_app", "labelIds", [][]string{{"LA_evil"}}), "not what GitHub has there"},
		"a text that is an object":         {mutate(comment, "clientMutationId"), input("subjectId", "I_app", "body", map[string]any{"x": 1}), "not what GitHub has there"},
		"too long an ID":                   {mutate(comment, "clientMutationId"), input("subjectId", strings.Repeat("x", 257), "body", "x"), "is no ID"},
		"too many":                         {mutate("addLabelsToLabelable", "clientMutationId"), input("labelableId", "I_app", "labelIds", many), "more than 100 nodes"},
		"no input":                         {`mutation { addComment { clientMutationId } }`, nil, "has no input"},
		"an input that is none":            {`mutation { addComment(input: "x") { clientMutationId } }`, nil, "neither an object"},
		"an input twice":                   {`mutation { addComment(input: {subjectId: "I_app"}, input: {subjectId: "I_evil"}) { clientMutationId } }`, nil, "twice"},
		"another argument":                 {`mutation { addComment(input: {subjectId: "I_app"}, subjectId: "I_evil") { clientMutationId } }`, nil, "argument"},
		"an ID twice":                      {`mutation { addComment(input: {subjectId: "I_app", subjectId: "I_evil", body: "x"}) { clientMutationId } }`, nil, "twice"},
		"an ID twice, by a variable":       {`mutation($a: ID) { addComment(input: {subjectId: $a, subjectId: "I_evil", body: "x"}) { clientMutationId } }`, nil, "twice"},
		"a variable that is not declared":  {`mutation { addComment(input: $input) { clientMutationId } }`, input("subjectId", "I_app"), "not declared"},
		"a variable of another operation":  {`query A($input: X = {subjectId: "I_app"}) { viewer { login } } mutation B { addComment(input: $input) { clientMutationId } }`, nil, "not declared"},
		"a default elsewhere":              {`mutation($id: ID! = "I_evil") { addComment(input: {subjectId: $id, body: "x"}) { clientMutationId } }`, nil, `"I_evil" is not known`},
		"a value over the default":         {`mutation($id: ID! = "I_app") { addComment(input: {subjectId: $id, body: "x"}) { clientMutationId } }`, map[string]any{"id": "I_evil"}, `"I_evil" is not known`},
		"a second mutation":                {`mutation { a: addComment(input: {subjectId: "I_app", body: "x"}) { clientMutationId } b: addComment(input: {subjectId: "I_evil", body: "x"}) { clientMutationId } }`, nil, `"I_evil" is not known`},
		"a second operation":               {`query A { viewer { login } } mutation B { addComment(input: {subjectId: "I_evil", body: "x"}) { clientMutationId } }`, nil, `"I_evil" is not known`},
		"one that is skipped":              {`mutation { addComment(input: {subjectId: "I_evil", body: "x"}) @skip(if: true) { clientMutationId } }`, nil, `"I_evil" is not known`},
		"one in a fragment":                {`mutation { ...f } fragment f on Mutation { addComment(input: {subjectId: "I_evil", body: "x"}) { clientMutationId } }`, nil, `"I_evil" is not known`},
		"under the name of another":        {`mutation { addComment: mergePullRequest(input: {pullRequestId: "PR_app"}) { clientMutationId } }`, nil, `"mergePullRequest" is refused`},
		"an answer with more":              {mutate(comment, "commentEdge { node { issue { repository { name } } } }"), input("subjectId", "I_app", "body", "x"), "not among the fields"},
		"an answer about the owner":        {mutate("createPullRequest", "pullRequest { author { ... on User { repositories { nodes { name } } } } }"), input("repositoryId", "R_app"), "not among the fields"},
		"a query as a mutation":            {`mutation { repository(owner: "own", name: "app") { id } }`, nil, `"repository" is refused`},
		"a mutation as a query":            {`query { addComment(input: {subjectId: "I_app", body: "x"}) { clientMutationId } }`, nil, `"addComment" is refused`},
		"merging":                          {mutate("mergePullRequest", "clientMutationId"), input("pullRequestId", "PR_app"), "gh api -X PUT repos/own/app/pulls/N/merge"},
		"merging later":                    {mutate("enablePullRequestAutoMerge", "clientMutationId"), input("pullRequestId", "PR_app"), "commit on the base branch"},
		"approving":                        {mutate("addPullRequestReview", "clientMutationId"), input("pullRequestId", "PR_app", "event", "APPROVE"), "speaks for the person"},
		"ending a conversation":            {mutate("resolveReviewThread", "clientMutationId"), input("threadId", "RT_app"), "leave it open"},
		"a commit":                         {mutate("createCommitOnBranch", "clientMutationId"), input("branch", map[string]any{"repositoryNameWithOwner": "own/app"}), "git push"},
		"a ref":                            {mutate("createRef", "clientMutationId"), input("repositoryId", "R_app"), "git push"},
		"moving an issue":                  {mutate("transferIssue", "clientMutationId"), input("issueId", "I_app", "repositoryId", "R_evil"), "another repository"},
		"a gist, a key, a fork":            {mutate("cloneTemplateRepository", "clientMutationId"), input("repositoryId", "R_app"), "those that may pass are addAssigneesToAssignable"},
	} {
		if asked, err := judged(t, bodyOf(t, step.text, step.with), writes); err == nil || !strings.Contains(err.Error(), step.say) {
			t.Errorf("%s: %+v, %v, not %q", name, asked, err, step.say)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(insteadOf)) {
		if _, err := judged(t, bodyOf(t, mutate(name, "clientMutationId"), input("id", "I_app")), writes); err == nil || strings.Contains(err.Error(), "REPO,") || !strings.Contains(err.Error(), "is refused") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAttackAnswersAboutNodes: an answer that does not say of each node where it is lets nothing pass.
func TestAttackAnswersAboutNodes(t *testing.T) {
	body := bodyOf(t, `mutation { a: addComment(input: {subjectId: "I_app", body: "x"}) { clientMutationId } b: closeIssue(input: {issueId: "I_two"}) { clientMutationId } }`, nil)
	const one = `"n0":{"__typename":"Issue","repository":{"nameWithOwner":"own/app"}}`
	for answer, passes := range map[string]bool{
		`{"data":{` + one + `,"n1":{"__typename":"Issue","repository":{"nameWithOwner":"own/APP"}}}}`: true,
		`{"data":{` + one + `}}`: false,
		`{"data":{` + one + `,"n1":null},"errors":[{"type":"NOT_FOUND"}]}`:                                        false,
		`{"data":{` + one + `,"n1":{}}}`:                                                                          false,
		`{"data":{` + one + `,"n1":[{"__typename":"Issue","repository":{"nameWithOwner":"own/app"}}]}}`:           false,
		`{"data":{` + one + `,"n1":{"__typename":"Issue"}}}`:                                                      false,
		`{"data":{` + one + `,"n1":{"__typename":"Issue","repository":null}}}`:                                    false,
		`{"data":{` + one + `,"n1":{"__typename":"Issue","nameWithOwner":"own/app"}}}`:                            false,
		`{"data":{` + one + `,"n1":{"__typename":"Issue","repository":{"nameWithOwner":""}}}}`:                    false,
		`{"data":{` + one + `,"n1":{"__typename":"Issue","repository":{"nameWithOwner":["own/app"]}}}}`:           false,
		`{"data":{` + one + `,"n1":{"__typename":"PullRequest","repository":{"nameWithOwner":"own/app"}}}}`:       false,
		`{"data":{` + one + `,"n1":{"__typename":"User","repository":{"nameWithOwner":"own/app"}}}}`:              false,
		`{"data":{` + one + `,` + one + `}}`:                                                                      false,
		`{"data":{` + one + `,"n1":{"__typename":"Issue","repository":{"nameWithOwner":"own/app"}}}} {"data":{}}`: false,
		`{"data":null}`: false, `{"errors":[]}`: false, ``: false, `[]`: false, `null`: false, `<html>`: false,
	} {
		asked, err := GraphQL([]byte(body), writes)
		if err != nil {
			t.Fatal(err)
		}
		if err := asked.Judge([]byte(answer), writes); (err == nil) != passes {
			t.Errorf("%s: %v", answer, err)
		}
	}
	// The rules that are in force when the answer comes count.
	asked, err := GraphQL([]byte(body), writes)
	if err != nil {
		t.Fatal(err)
	}
	answer := `{"data":{` + one + `,` + strings.Replace(one, "n0", "n1", 1) + `}}`
	if err := asked.Judge([]byte(answer), Scope{Read: writes.Read, Write: []string{"me/fork"}}); err == nil || errors.Is(err, errAnswer) {
		t.Errorf("%v", err)
	}
}

// TestMutationFields: what a mutation may be given is the ID of a node whose repository can be asked for, or a leaf; and
// each field whose name says that it is an ID has the type of a node.
func TestMutationFields(t *testing.T) {
	s, err := gitHub()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range s.types["Mutation"].Fields {
		if len(m.Arguments) != 1 || m.Arguments[0].Name != "input" {
			t.Fatalf("%s has other arguments than input", m.Name)
		}
		subject := false
		for _, f := range s.types[m.Arguments[0].Type.Name()].Fields {
			kind := s.types[f.Type.Name()]
			isID := (f.Name == "id" || strings.HasSuffix(f.Name, "Id") || strings.HasSuffix(f.Name, "Ids")) && f.Name != "clientMutationId"
			if isID != (kind != nil || f.Type.Name() == "_None") {
				t.Errorf("%s.%s is of the type %s", m.Name, f.Name, f.Type)
			}
			if kind == nil {
				continue
			}
			possible := s.possible[kind.Name]
			if len(possible) == 0 {
				possible = []string{kind.Name}
			}
			for _, p := range possible {
				if _, ok := repositoryOf[p]; !ok {
					t.Errorf("%s.%s may be of the type %s, whose repository is not asked for", m.Name, f.Name, p)
				}
				subject = subject || repositoryOf[p] != ""
			}
		}
		if !subject {
			t.Errorf("nothing says in which repository %s changes something", m.Name)
		}
		if _, refused := insteadOf[m.Name]; refused {
			t.Errorf("%s is refused, too", m.Name)
		}
	}
}

// FuzzNodes: whatever a request is, its question has its IDs in variables only, and each node that passes is in the scope.
func FuzzNodes(f *testing.F) {
	f.Add("I_app", "x", `{"data":{"n0":{"__typename":"Issue","repository":{"nameWithOwner":"own/app"}}}}`)
	f.Add(`"}) { id } x: node(id: "I_evil`, "$n1", `{"data":{"n0":null}}`)
	f.Fuzz(func(t *testing.T, id, text, answer string) {
		asked, err := GraphQL([]byte(bodyOf(t, mutate("addComment", "clientMutationId"), input("subjectId", id, "body", text))), writes)
		if err != nil {
			return
		}
		var q struct {
			Query     string
			Variables map[string]string
		}
		want := "query($n0: ID!) { n0: node(id: $n0) { __typename ... on Issue { repository { nameWithOwner } } ... on PullRequest { repository { nameWithOwner } } } }"
		if err := json.Unmarshal(asked.Question(), &q); err != nil || q.Query != want || len(q.Variables) != 1 || q.Variables["n0"] != id {
			t.Fatalf("%s, %v", asked.Question(), err)
		}
		if asked.Judge([]byte(answer), writes) == nil && !slices.Contains([]string{"own/app", "me/fork"}, strings.Join(asked.Changed, " ")) {
			t.Fatalf("%s: %q", answer, asked.Changed)
		}
	})
}
