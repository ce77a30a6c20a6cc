package apibody

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

// reads are rules that only read.
var reads = Scope{Read: []string{"own/app", "own/lib"}}

// bodyOf returns the body of a request with a query and variables.
func bodyOf(t testing.TB, query string, variables map[string]any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// about is a query with these fields of own/app.
func about(fields string) string {
	return `query($owner: String!, $repo: String!, $n: Int!) { repository(owner: $owner, name: $repo) { ` + fields + ` } }`
}

var own = map[string]any{"owner": "own", "repo": "app", "n": 7, "limit": 30, "states": []string{"OPEN"}, "endCursor": nil}

// queries are such as gh and agents make, written anew, with what they ask.
var queries = map[string]string{
	"gh pr list": `fragment pr on PullRequest{number,title,state,url,headRefName,headRepositoryOwner{id,login,...on User{name}},isCrossRepository,isDraft,createdAt}
		query PullRequestList($owner: String!, $repo: String!, $limit: Int!, $endCursor: String, $baseBranch: String, $headBranch: String, $state: [PullRequestState!] = OPEN) {
			repository(owner: $owner, name: $repo) {
				pullRequests(states: $state, baseRefName: $baseBranch, headRefName: $headBranch, first: $limit, after: $endCursor, orderBy: {field: CREATED_AT, direction: DESC}) {
					totalCount
					nodes { ...pr }
					pageInfo { hasNextPage endCursor }
				}
			}
		}`,
	"gh issue list": `fragment issue on Issue {number,title,url,state,updatedAt,stateReason,labels(first:100){nodes{id,name,description,color},totalCount}}
		query IssueList($owner: String!, $repo: String!, $limit: Int, $endCursor: String, $states: [IssueState!] = OPEN, $assignee: String) {
			repository(owner: $owner, name: $repo) {
				hasIssuesEnabled
				issues(first: $limit, after: $endCursor, orderBy: {field: CREATED_AT, direction: DESC}, states: $states, filterBy: {assignee: $assignee}) {
					totalCount
					nodes { ...issue }
					pageInfo { hasNextPage endCursor }
				}
			}
		}`,
	"gh issue view": `query IssueByNumber($owner: String!, $repo: String!, $n: Int!) {
			repository(owner: $owner, name: $repo) {
				hasIssuesEnabled
				issue: issueOrPullRequest(number: $n) {
					__typename
					...on Issue{number,url,state,createdAt,title,body,author{login,...on User{id,name}},milestone{number,title,description,dueOn},assignees(first:100){nodes{id,login,name,databaseId},totalCount},
						labels(first:100){nodes{id,name,description,color},totalCount},reactionGroups{content,users{totalCount}},
						comments(last: 1) {nodes {author{login,...on User{id,name}},authorAssociation,body,createdAt,includesCreatedEdit,isMinimized,minimizedReason,reactionGroups{content,users{totalCount}}},totalCount},stateReason}
					...on PullRequest{number,url,state,title,body,projectCards(first:100){nodes{project{name}column{name}},totalCount}}
				}
			}
		}`,
	"gh pr view": `query PullRequestByNumber($owner: String!, $repo: String!, $n: Int!) {
			repository(owner: $owner, name: $repo) {
				pullRequest(number: $n) {url,number,title,state,body,author{login,...on User{id,name}},autoMergeRequest{authorEmail,commitBody,commitHeadline,mergeMethod,enabledAt,enabledBy{login,...on User{id,name}}},
					isDraft,maintainerCanModify,mergeable,additions,deletions,commits{totalCount},baseRefName,headRefName,headRepositoryOwner{id,login,...on User{name}},headRepository{id,name,nameWithOwner},isCrossRepository,
					reviewRequests(first: 100) {nodes {requestedReviewer {__typename,...on User{login},...on Bot{login},...on Team{organization{login} name,slug}}}},
					reviews(first: 100) {nodes {id,author{login},authorAssociation,submittedAt,body,state,commit{oid},reactionGroups{content,users{totalCount}}} pageInfo{hasNextPage,endCursor} totalCount},
					baseRef{branchProtectionRule{requiresStrictStatusChecks}},mergeCommit{oid},potentialMergeCommit{oid},
					statusCheckRollup: commits(last: 1) {nodes {commit {statusCheckRollup {contexts(first:100) {nodes {__typename ...on StatusContext {context,state,targetUrl,createdAt,description},
						...on CheckRun {name,checkSuite{workflowRun{event,workflow{name}}},status,conclusion,startedAt,completedAt,detailsUrl}},pageInfo{hasNextPage,endCursor}}}}}}}
			}
		}`,
	"gh pr view, projects": about(`pullRequest(number: $n) { projectItems(first: 100) { totalCount nodes { id project { id title } status: fieldValueByName(name: "Status") { ... on ProjectV2ItemFieldSingleSelectValue { optionId name } } } pageInfo { hasNextPage endCursor } } }`),
	"gh repo view":         `query RepositoryInfo($owner: String!, $repo: String!) {repository(owner: $owner, name: $repo) {id,name,owner{id,login},hasIssuesEnabled,description,hasWikiEnabled,viewerPermission,defaultBranchRef{name},licenseInfo{key,name,nickname},watchers{totalCount},issues(states:OPEN){totalCount},repositoryTopics(first:100){nodes{topic{name}}}}}`,
	"gh's features":        `query PullRequest_fields { PullRequest: __type(name: "PullRequest") { fields(includeDeprecated: true) { name type { ofType { name } } } } viewer { login } }`,
	"introspection":        `{ __schema { queryType { name } directives { name locations args { ...a } } types { ...t enumValues(includeDeprecated: true) { name } possibleTypes { name } } } } fragment a on __InputValue { name type { ...u } } fragment t on __Type { kind name fields { name args { defaultValue } type { ...u } } } fragment u on __Type { name ofType { name ofType { name } } }`,
	"an agent's threads": `{ r: repository(owner: "own", name: "app", followRenames: false) { pullRequest(number: 7) { reviewThreads(first: 50) { nodes { isResolved path line comments(first: 5) { nodes { body author { login } } } } } } }
		# who I am
		viewer { login id } rateLimit { remaining resetAt } __typename ... on Query { rateLimit { cost } } }`,
	"files and history": about(`object(expression: "HEAD:a") { ... on Tree { entries { name object { ... on Blob { text } ... on GitObject { oid } } } } } ref(qualifiedName: "main") { target { ... on Commit { history(first: 5, path: "a") { nodes { oid messageHeadline author { name user { login } } } } } } }`),
	"directives":        about(`name @include(if: true) ... @skip(if: false) { url } ...r @include(if: true)`) + ` fragment r on Repository { id }`,
	"two queries":       `query A { repository(owner: "own", name: "app") { id } } query B { repository(owner: "own", name: "lib") { id } }`,
	"no variables":      `query($owner: String = "own", $other: String = "app") { repository(owner: $owner, name: $other) { id } }`,
	"both":              `{ a: repository(owner: "own", name: "app") { id } b: repository(owner: "own", name: "lib") { id } }`,
}

func TestQueries(t *testing.T) {
	for name, text := range queries {
		asked, err := GraphQL([]byte(bodyOf(t, text, own)), reads)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if asked.Changes || asked.Question() != nil {
			t.Errorf("%s: %+v", name, asked)
		}
		for _, r := range asked.About {
			if r != "own/app" && r != "own/lib" {
				t.Errorf("%s is about %q", name, asked.About)
			}
		}
	}
	if asked, err := GraphQL([]byte(bodyOf(t, queries["both"], nil)), reads); err != nil || strings.Join(asked.About, " ") != "own/app own/lib" {
		t.Errorf("%+v, %v", asked, err)
	}
	if _, err := GraphQL([]byte(bodyOf(t, queries["both"], nil)), Scope{Read: reads.Read[:1], Write: reads.Read}); err == nil {
		t.Error("a repository beside the one of the rule")
	}
	for _, body := range []string{`{"query":"{viewer{login}}"}`, ` {"operationName": null, "variables": null, "query": "{viewer{login}}"} `, `{"operationName":"","variables":{},"query":"\u007bviewer{login}}"}`} {
		if _, err := GraphQL([]byte(body), reads); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// TestAttackQueries: what would read or write elsewhere.
func TestAttackQueries(t *testing.T) {
	deep := strings.Repeat("... on Query { ", 40) + "rateLimit { cost }" + strings.Repeat(" }", 40)
	for text, say := range map[string]string{
		// other repositories
		`{ repository(owner: "own", name: "secret") { id } }`:                                                            `"own/secret"`,
		`{ repository(owner: "Own", name: "app") { id } }`:                                                               "written just so",
		`{ repository(owner: "own/app", name: "x") { id } }`:                                                             "about the repository",
		`{ repository(owner: "own", name: "") { id } }`:                                                                  "about the repository",
		`{ a: repository(owner: "own", name: "app") { id } repository: repository(owner: "evil", name: "app") { id } }`:  `"evil/app"`,
		`{ repository(owner: "own", name: "app", owner: "evil") { id } }`:                                                "twice",
		`{ repository(owner: "own", name: "app", id: "x") { id } }`:                                                      "argument",
		`{ repository(owner: "own") { id } }`:                                                                            "no name",
		`{ repository(owner: own, name: app) { id } }`:                                                                   "neither a string",
		`{ repository(owner: ["own"], name: "app") { id } }`:                                                             "neither a string",
		`query($o: String!) { repository(owner: $o, name: "app") { id } }`:                                               "neither a string",
		`query($owner: String!) { repository(owner: $undeclared, name: "app") { id } }`:                                  "not declared",
		`query($n: Int!) { repository(owner: $n, name: "app") { id } }`:                                                  "neither a string",
		`query($endCursor: String = "own") { repository(owner: $endCursor, name: "app") { id } }`:                        "neither a string",
		`query($owner: String = "own", $owner: String = "evil") { repository(owner: $owner, name: "app") { id } }`:       "twice",
		`query A { viewer { login } } query B { repository(owner: "evil", name: "app") { id } }`:                         `"evil/app"`,
		`query A($repo: String = "app") { viewer { login } } query B { repository(owner: "own", name: $repo) { id } }`:   "not declared",
		`{ ...f } fragment f on Query { repository(owner: "evil", name: "app") { id } }`:                                 `"evil/app"`,
		`{ ... @include(if: true) { repository(owner: "evil", name: "app") { id } } }`:                                   `"evil/app"`,
		`query { repository(owner: "evil", name: "app") @skip(if: true) { id } }`:                                        `"evil/app"`,
		`{ __typename ...f } fragment f on Query { viewer { login } } fragment f on Query { viewer { repositories } }`:   "twice",
		about(`parent { name issues(first: 9) { nodes { body } } }`):                                                     `"repository.parent.issues"`,
		about(`forks(first: 9) { nodes { name } }`):                                                                      `"repository.forks"`,
		about(`templateRepository { name }`):                                                                             "templateRepository",
		about(`owner { login repositories(first: 9) { nodes { name } } }`):                                               `"repository.owner.repositories"`,
		about(`owner { ... on User { gists(first: 9) { nodes { name } } } }`):                                            "gists",
		about(`owner { ... on Organization { teams(first: 9) { nodes { name } } } }`):                                    "teams",
		about(`owner { ... on Repository { id } }`):                                                                      "fragment",
		about(`parent { ... on Repository { object(expression: "HEAD") { id } } }`):                                      `"repository.parent.object"`,
		about(`parent { parent { name } }`):                                                                              `"repository.parent.parent"`,
		about(`parent { ... on _RepositoryName { parent { id } } }`):                                                     `"repository.parent.parent"`,
		about(`owner { ... on _RepositoryName { id } }`):                                                                 "fragment",
		about(`issue(number: $n) { author { ... on User { repositories(first: 9) { nodes { name } } } } }`):              "repositories",
		about(`issue(number: $n) { author { ... on Node { id } } }`):                                                     "fragment",
		about(`issue(number: $n) { repository { issues(first: 9) { nodes { body } } } }`):                                "issues",
		about(`issue(number: $n) { repository { ... on Repository { parent { name } } } }`):                              `"issue.repository.parent"`,
		about(`issue(number: $n) { timelineItems(first: 9) { nodes { ... on CrossReferencedEvent { source } } } }`):      "timelineItems",
		about(`issue(number: $n) { parent { title } }`):                                                                  "parent",
		about(`pullRequest(number: $n) { closingIssuesReferences(first: 9) { nodes { body } } }`):                        "closingIssuesReferences",
		about(`pullRequest(number: $n) { headRepository { object(expression: "HEAD") { id } } }`):                        "object",
		about(`pullRequest(number: $n) { headRef { target { ... on Commit { history { nodes { oid } } } } } }`):          "fragment",
		about(`pullRequest(number: $n) { commits(first: 9) { nodes { commit { repository { name } } } } }`):              "repository",
		about(`pullRequest(number: $n) { commits(first: 9) { nodes { commit { associatedPullRequests { nodes } } } } }`): "associatedPullRequests",
		about(`pullRequest(number: $n) { projectItems(first: 9) { nodes { project { items { nodes { id } } } } } }`):     "items",
		about(`deployKeys(first: 9) { nodes { key } }`):                                                                  "deployKeys",
		about(`collaborators(first: 9) { nodes { login } }`):                                                             "collaborators",
		`{ __schema { ... on Query { node(id: "x") { id } } } }`:                                                         "fragment",
		`{ __type(name: "Query") { node(id: "x") { id } } }`:                                                             `"__type.node"`,
		`{ __schema { types { fields { name { x } } } } }`:                                                               "no fields",
		about(`__schema { types { name } }`):                                                                             `"repository.__schema"`,
		about(`name { x }`):                                                                                              "no fields",
		about(`name(x: 1)`):                                                                                              "argument",
		about(`name @client`):                                                                                            "directive",
		about(`...missing`):                                                                                              "no fragment",
		about(`id`) + ` fragment f on X { y }`:                                                                           "not used",
		about(`...f`) + ` fragment f on Repository { id ...f }`:                                                          "deeper",
		about(`...f`) + ` fragment f on User { login }`:                                                                  "fragment",
		about(`...f`) + ` fragment f($x: String = "a") on Repository { id }`:                                             "variables",
		about(`id`) + ` fragment f on Repository @x { id }`:                                                              "directives",
		`query @x { viewer { login } }`:                                                                                  "directive",
		`query($a: String @x) { viewer { login } }`:                                                                      "directive",
		"{" + deep + "}": "deeper",
		`{ rateLimit { ` + strings.Repeat("cost ", 4001) + `} }`: "more than 4000 fields",
		`{ ...a } fragment a on Query {` + strings.Repeat("...b ", 99) + `} fragment b on Query {` + strings.Repeat("...c ", 99) + `} fragment c on Query { __typename }`: "more than 4000 fields",
		`{ rateLimit { ` + strings.Repeat("cost ", 8001) + `} }`: "token limit",
		strings.Repeat("{a", 2000):                               "parsed",
		// other ways to data
		`{ node(id: "R_1") { ... on Repository { name } } }`:                                        `fragment on "Repository"`,
		`{ node(id: "U_1") { ... on User { repositories { nodes { name } } } } }`:                   `fragment on "User"`,
		`{ node(id: "I_1") { id } }`:                                                                `"node.id"`,
		`{ node(id: "I_1") { ... on Node { id } } }`:                                                `fragment on "Node"`,
		`{ node(id: 7) { __typename } }`:                                                            "neither a string",
		`{ node(id: ["I_1"]) { __typename } }`:                                                      "neither a string",
		`{ node(id: "") { __typename } }`:                                                           "is no ID",
		`{ node { __typename } }`:                                                                   "node has no id",
		`{ nodes(ids: ["R_1"]) { id } }`:                                                            `"nodes" is refused`,
		`{ resource(url: "https://github.com/evil/x") { url } }`:                                    `"resource"`,
		`{ search(query: "x", type: ISSUE, first: 9) { issueCount } }`:                              `the text of a search`,
		`{ search(query: "repo:own/app x", type: ISSUE) { nodes { ... on Repository { name } } } }`: `fragment on "Repository"`,
		`{ discussions(first: 9) { totalCount } }`:                                                  `ask for repository(owner: "own", name: "app")`,
		`{ user(login: "x") { login repositories(first: 9) { nodes { name } } } }`:                  `"user.repositories"`,
		`{ organization(login: "x") { login } }`:                                                    `"organization"`,
		`{ repositoryOwner(login: "own") { repositories { nodes { name } } } }`:                     `"repositoryOwner"`,
		`{ viewer { login repositories(first: 9) { nodes { name } } } }`:                            `"viewer.repositories"`,
		`{ viewer { ... on User { email } } }`:                                                      "email",
		`{ relay { repository(owner: "evil", name: "x") { id } } }`:                                 `"relay"`,
		// writing
		`mutation { addComment(input: {subjectId: "I_1", body: "x"}) { clientMutationId } }`:                                   "mutations are refused",
		`mutation { createIssue(input: {repositoryId: "R_1", title: "x"}) { issue { id } } }`:                                  "a rule github:OWNER/REPO (without",
		`mutation { createCommitOnBranch(input: {branch: {repositoryNameWithOwner: "own/app", branchName: "m"}}) { commit } }`: "mutations are refused",
		`query A { viewer { login } } mutation B { deleteIssue(input: {issueId: "I_1"}) { clientMutationId } }`:                "mutations are refused",
		`subscription { viewer { login } }`: "only queries",
		``:                                  "no query",
		`fragment f on Query { viewer { login } }`:   "no query",
		`type Query { x: Int } { viewer { login } }`: "parsed",
		// texts that could be read in two ways
		`{ repository(owner: "own", name: "\u0061pp") { id } }`: "backslash",
		`{ repository(owner: """own""", name: "app") { id } }`:  "block string",
		"{ viewer { login } } # \r { node }":                    "printable",
		"{ viewer { login } } # \u2028 { node }":                "printable",
		"{ viewer { login } }\x00":                              "printable",
		"\ufeff{ viewer { login } }":                            "printable",
		"{ viewer { login\u00a0} }":                             "printable",
	} {
		if named, err := GraphQL([]byte(bodyOf(t, text, own)), reads); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%.150s: %v, %v, not %q", text, named, err, say)
		}
	}
}

// TestAttackGraphQLBodies: bodies of which a server may read another part.
func TestAttackGraphQLBodies(t *testing.T) {
	for body, say := range map[string]string{
		``:                              "one JSON object",
		`null`:                          "one JSON object",
		`[{"query":"{viewer{login}}"}]`: "one by one",
		`{"query":"{viewer{login}}"}{}`: "one JSON object",
		`{"query":"{viewer{login}}"} x`: "one JSON object",
		`{"query":"{viewer{login}}",}`:  "one JSON object",
		`{"query":"{viewer{login}}","query":"{node(id:1){id}}"}`:         "twice",
		`{"query":"{viewer{login}}","\u0071uery":"{node(id:1){id}}"}`:    "twice",
		`{"query":"{viewer{login}}","Query":"{node(id:1){id}}"}`:         `"Query"`,
		`{"query":"{viewer{login}}","variables":{"a":{"x":1,"x":2}}}`:    "twice",
		`{"query":"{viewer{login}}","extensions":{"persistedQuery":{}}}`: "extensions",
		`{"query":"{viewer{login}}","id":"x"}`:                           `"id"`,
		`{"query":["{viewer{login}}"]}`:                                  "query in the body",
		`{"query":"{viewer{login}}","variables":"{}"}`:                   "variables in the body",
		`{"query":"{viewer{login}}","operationName":1}`:                  "operationName in the body",
		`{"query":null}`: "query in the body",
		`{"query":"{viewer{login}}","variables":{"a":"\ud800"}}`:                                                  "character",
		`{"query":"{viewer{login}}","variables":{"\ud800":1}}`:                                                    "character",
		"{\"query\":\"{viewer{login}}\",\"variables\":{\"a\":\"\xff\"}}":                                          "one JSON object",
		"\ufeff{\"query\":\"{viewer{login}}\"}":                                                                   "one JSON object",
		`{"query":"{viewer{login}}","variables":{"a":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}}`: "deeper",
		`{"query":"{viewer{login}}"` + strings.Repeat(" ", MaxBody) + `}`:                                         "longer",
		`{/* */"query":"{viewer{login}}"}`:                                                                        "one JSON object",
	} {
		if _, err := GraphQL([]byte(body), reads); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%.120q: %v, not %q", body, err, say)
		}
	}
}

// TestGitHubFields: from the types in the list, no way leads to another repository or to what a person owns.
// Only repository, whose arguments are judged, leads to a Repository.
func TestGitHubFields(t *testing.T) {
	s, err := gitHub()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := parser.ParseSchema(&ast.Source{Input: sharedSchema + gitHubSchema})
	if err != nil || len(doc.Definitions) != len(s.types) {
		t.Fatalf("a type is there twice: %v", err)
	}
	reached := map[string]bool{"Query": true, "Mutation": true}
	for _, d := range doc.Definitions {
		for _, f := range d.Fields {
			to := f.Type.Name()
			reached[to] = true
			for _, a := range f.Arguments {
				reached[a.Type.Name()] = true
			}
			if d.Kind == ast.InputObject {
				continue // the types of IDs
			}
			if to == "Repository" && (d.Name != "Query" || f.Name != "repository") || to == "Query" || to == "Mutation" || to == "Node" {
				t.Errorf("%s.%s leads to %s", d.Name, f.Name, to)
			}
			if strings.HasPrefix(f.Name, "_") && d.Name != "Query" {
				t.Errorf("%s.%s", d.Name, f.Name)
			}
		}
		for _, name := range []string{"parent", "forks", "repositories", "gists", "timelineItems", "associatedPullRequests", "closingIssuesReferences", "email", "organizations"} {
			if f := d.Fields.ForName(name); f != nil && d.Name+"."+name != "GitActor.email" && f.Type.Name() != "_RepositoryName" {
				t.Errorf("%s.%s", d.Name, name)
			}
		}
		if strings.HasPrefix(d.Name, "__") {
			for _, f := range d.Fields {
				if to := s.types[f.Type.Name()]; to != nil && !strings.HasPrefix(to.Name, "__") {
					t.Errorf("%s.%s leads to data", d.Name, f.Name)
				}
			}
		} else if strings.HasPrefix(d.Name, "_") {
			for _, f := range d.Fields {
				if to := s.types[f.Type.Name()]; to != nil && to.Name != "RepositoryOwner" && !strings.HasPrefix(to.Name, "_") || len(f.Arguments) > 0 {
					t.Errorf("%s.%s is more than a name", d.Name, f.Name)
				}
			}
			if d.Kind != ast.Object || len(d.Interfaces) > 0 || len(d.Fields) > 11 {
				t.Errorf("%s is more than a name", d.Name)
			}
		}
	}
	for name := range s.types {
		for _, p := range s.possible[name] {
			reached[p] = true
			if s.types[p] == nil {
				t.Errorf("%s: there is no type %s", name, p)
			}
		}
	}
	for name := range s.types {
		if !reached[name] {
			t.Errorf("nothing leads to %s", name)
		}
	}
}

func FuzzGraphQL(f *testing.F) {
	schema, err := gitHub()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range queries {
		f.Add([]byte(bodyOf(f, text, own)))
	}
	for _, text := range []string{`mutation { x }`, `{ node(id: 1) { id } }`, about("parent { id }"), `{ a: repository(owner: "own", name: "app") { ... on Repository { id } } }`} {
		f.Add([]byte(bodyOf(f, text, own)))
	}
	f.Add([]byte(`{"query":"\ud800","variables":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		named, err := GraphQL(body, Scope{Read: reads.Read, Write: reads.Read})
		if err != nil {
			if named != nil {
				t.Fatalf("refused, and about %+v", named)
			}
			return
		}
		// What passes is a query whose roots are in the list: read anew, by another reader of JSON.
		var plain struct{ Query string }
		if err := json.Unmarshal(body, &plain); err != nil {
			t.Fatal(err)
		}
		doc, err := parser.ParseQuery(&ast.Source{Input: plain.Query})
		if err != nil {
			t.Fatalf("%q: %v", plain.Query, err)
		}
		for _, op := range doc.Operations {
			for _, sel := range op.SelectionSet {
				root := map[ast.Operation]string{ast.Query: "Query", ast.Mutation: "Mutation"}[op.Operation]
				if field, ok := sel.(*ast.Field); root == "" || ok && field.Name != "__typename" && schema.types[root].Fields.ForName(field.Name) == nil {
					t.Fatalf("%q passes", plain.Query)
				}
				if op.Operation == ast.Mutation && !named.Changes {
					t.Fatalf("%q counts as a query", plain.Query)
				}
			}
		}
	})
}

func TestGitLab(t *testing.T) {
	for _, body := range []string{
		"", `{}`, `{"body":"see /usr/bin/env and a /word in it"}`, `{"description":"- /move x\n> /merge\n/usr/bin\n/etc/x y\n` + "`/tmp`" + `\n//","title":"a","labels":"x,y","assignee_ids":[1,2]}`,
		`{"title":"a","source_branch":"b","target_branch":"main","remove_source_branch":true}`, `{"state_event":"close"}`, `{"body":"x","position":{"new_path":"a","new_line":3}}`,
	} {
		if err := GitLab([]byte(body)); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	for body, say := range map[string]string{
		`{"body":"/move own/other"}`:                             "quick action",
		`{"body":"text\n/clone other"}`:                          "quick action",
		`{"body":"text\n  \t/merge"}`:                            "quick action",
		`{"body":"text\r\n/merge\r\n"}`:                          "quick action",
		`{"body":"/mo\rve own/other"}`:                           "quick action",
		`{"body":"a\n\r/merge"}`:                                 "quick action",
		"{\"body\":\"a\\u2028/merge\"}":                          "quick action",
		`{"body":"\u200b/merge"}`:                                "quick action",
		`{"body":"\u0000/merge"}`:                                "quick action",
		`{"body":"/MERGE "}`:                                     "quick action",
		`{"body":"/loc\u212a"}`:                                  "quick action",
		`{"description":"` + "```" + `\n/merge\n` + "```" + `"}`: "quick action",
		`{"title":"/move x"}`:                                    "quick action",
		`{"labels":["a","/merge"]}`:                              "quick action",
		`{"position":{"a":{"b":"/merge"}}}`:                      "quick action",
		`{"title":"a","target_project_id":7}`:                    "target_project_id",
		`{"title":"a","id":"7"}`:                                 `"id"`,
		`{"body":"a","private_token":"x"}`:                       "private_token",
		`{"body":"a","_method":"DELETE"}`:                        "_method",
		`{"body":"a","Body":"/merge"}`:                           `"Body"`,
		`{"body":"a","body":"/merge"}`:                           "twice",
		`[{"body":"a"}]`:                                         "one JSON object",
		`body=%2Fmerge`:                                          "one JSON object",
	} {
		if err := GitLab([]byte(body)); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, not %q", body, err, say)
		}
	}
}

func FuzzGitLab(f *testing.F) {
	for _, s := range []string{"a\n/move x", "/a/b", "\r/\rmerge", "\u200b/x", "x /merge"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := json.Marshal(map[string]string{"body": text})
		if err != nil {
			t.Fatal(err)
		}
		if GitLab(b) != nil {
			return
		}
		// As GitLab finds commands: without carriage returns, at the beginning of a line.
		for _, line := range strings.Split(strings.ReplaceAll(text, "\r", ""), "\n") {
			for _, word := range []string{"move", "clone", "merge", "close"} {
				rest, ok := strings.CutPrefix(strings.ToLower(line), "/"+word)
				if ok && (strings.TrimSpace(rest) == "" || rest[0] == ' ') {
					t.Fatalf("%q passes", text)
				}
			}
		}
	})
}
