package apibody

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"
)

var projects = []string{"own/team/app", "own/lib"}

// aboutProject is a query with these fields of own/team/app.
func aboutProject(fields string) string {
	return `query($path: ID!, $iid: String!, $first: Int = 20, $endCursor: String) { project(fullPath: $path) { ` + fields + ` } }`
}

var ofProject = map[string]any{"path": "own/team/app", "iid": "7", "endCursor": nil, "evil": "evil/app"}

// gitLabQueries are such as agents and glab api make.
var gitLabQueries = map[string]string{
	"who":          `query { currentUser { id username name webUrl ... on CurrentUser { name } ... on User { id } } }`,
	"project":      `{ project(fullPath: "own/team/app") { id name fullPath webUrl description languages { name share } topics repository { rootRef empty } } __typename }`,
	"two projects": `{ a: project(fullPath: "own/team/app") { id } b: project(fullPath: "own/lib") { id } }`,
	"issues": aboutProject(`issues(first: $first, after: $endCursor, state: opened, labelName: ["bug"], sort: UPDATED_DESC) { count pageInfo { hasNextPage endCursor }
		nodes { iid title description state webUrl author { ...who } assignees { nodes { ...who } } labels { nodes { title color } } milestone { title dueDate } } edges { cursor node { id } } }`) + ` fragment who on UserCore { id username name webUrl }`,
	"issue":         aboutProject(`issue(iid: $iid) { ...i notes(first: 50) { nodes { id body system author { username } createdAt } } discussions { nodes { resolved notes { nodes { body position { newPath newLine } } } } } }`) + ` fragment i on Issue { title reference(full: true) taskCompletionStatus { count } }`,
	"merge request": aboutProject(`mergeRequest(iid: $iid) { title draft diffRefs { baseSha headSha } diffStats { path additions } commits { nodes { sha title } } approvedBy { nodes { username } } author { ... on MergeRequestAuthor { name } } headPipeline { status detailedStatus { text } ... on Pipeline { id } } pipelines(first: 1) { nodes { iid } } sourceProject { fullPath ... on Project { fullPath } } }`),
	"merges":        aboutProject(`mergeRequests(state: opened, first: 9, targetBranches: ["main"]) { nodes { iid sourceBranch } } labels(searchTerm: "b") { nodes { title } } milestones(state: active) { nodes { title } }`),
	"files":         aboutProject(`repository { tree(path: "src", ref: "main", recursive: false) { trees { nodes { path } } blobs { nodes { name path } } lastCommit { sha } } blobs(paths: ["README.md"], ref: "main") { nodes { rawTextBlob size } } }`),
	"pipelines":     aboutProject(`pipelines(ref: "main", first: 3) { nodes { iid status stages { nodes { name jobs { nodes { name status } } } } } } pipeline(iid: 7) { jobs(statuses: [FAILED]) { nodes { name failureMessage webPath artifacts { nodes { name } } needs { nodes { name } } } } testReportSummary { total { failed } } }`),
	"releases":      aboutProject(`releases(first: 5) { nodes { tagName assets { links { nodes { name url } } } } } release(tagName: "v1") { name author { username } milestones { nodes { title } } }`),
	"introspection": `query IntrospectionQuery { __schema { queryType { name } types { name } } __type(name: "Project") { fields { name } } }`,
	"directives":    aboutProject(`name @include(if: true) ... on Project @skip(if: false) { id }`),
	"by default":    `query($other: ID! = "own/lib") { project(fullPath: $other) { id } }`,
	"in comments":   "# all of it's names: group { x }\n" + aboutProject("# one\n id # the ID\r\n name"),
}

func TestGitLabQueries(t *testing.T) {
	for name, text := range gitLabQueries {
		asked, err := GitLabGraphQL([]byte(bodyOf(t, text, ofProject)), projects)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if asked.Changes || asked.Question() != nil || !strings.Contains(text, "project(") && len(asked.About) > 0 || strings.Contains(text, "project(") && len(asked.About) == 0 {
			t.Errorf("%s: %+v", name, asked)
		}
	}
	asked, err := GitLabGraphQL([]byte(bodyOf(t, gitLabQueries["two projects"], nil)), projects)
	if err != nil || !slices.Equal(asked.About, projects) {
		t.Errorf("%+v, %v", asked, err)
	}
	if _, err := GitLabGraphQL([]byte(bodyOf(t, gitLabQueries["two projects"], nil)), projects[:1]); err == nil {
		t.Error("a project beside the one of the rule")
	}
}

// TestAttackGitLabQueries: what would read elsewhere, or write.
func TestAttackGitLabQueries(t *testing.T) {
	for text, say := range map[string]string{
		// other projects
		`{ project(fullPath: "evil/app") { id } }`:                                                                   `"evil/app", and the rules are about own/team/app, own/lib`,
		`{ project(fullPath: "Own/Team/app") { id } }`:                                                               "written just so",
		`{ project(fullPath: "own/team/app/") { id } }`:                                                              "written just so",
		`{ project(fullPath: "/own/team/app") { id } }`:                                                              "written just so",
		`{ project(fullPath: " own/team/app") { id } }`:                                                              "written just so",
		`{ project(fullPath: "own%2Fteam%2Fapp") { id } }`:                                                           "written just so",
		`{ project(fullPath: "own/team/../lib") { id } }`:                                                            "written just so",
		`{ project(fullPath: "own/team/app.git") { id } }`:                                                           "written just so",
		`{ project(fullPath: "own/team") { id } }`:                                                                   "written just so",
		`{ project(fullPath: "") { id } }`:                                                                           "written just so",
		`{ project(fullPath: "own\u002fteam/app") { id } }`:                                                          "backslash",
		`{ project(fullPath: """own/team/app""") { id } }`:                                                           "block string",
		`{ project { id } }`:                                                                                         "project has no fullPath",
		`{ project(fullPath: own) { id } }`:                                                                          "neither a string",
		`{ project(fullPath: 7) { id } }`:                                                                            "neither a string",
		`{ project(fullPath: ["own/lib"]) { id } }`:                                                                  "neither a string",
		`{ project(fullPath: null) { id } }`:                                                                         "neither a string",
		`{ project(fullPath: "own/lib", fullPath: "evil/app") { id } }`:                                              "twice",
		`{ project(fullPath: "own/lib", id: "gid://gitlab/Project/1") { id } }`:                                      "argument",
		`{ project(full_path: "own/lib") { id } }`:                                                                   "argument",
		`{ a: project(fullPath: "own/lib") { id } b: project(fullPath: "evil/app") { id } }`:                         `"evil/app"`,
		`{ project(fullPath: "own/lib") { id } ...f } fragment f on Query { project(fullPath: "evil/app") { id } }`:  `"evil/app"`,
		`{ project(fullPath: "own/lib") { id } ... @include(if: true) { project(fullPath: "evil/app") { id } } }`:    `"evil/app"`,
		`query A { currentUser { id } } query B { project(fullPath: "evil/app") { id } }`:                            `"evil/app"`,
		`query($evil: ID!) { project(fullPath: $evil) { id } }`:                                                      `"evil/app"`,
		`query($evil: ID! = "own/lib") { project(fullPath: $evil) { id } }`:                                          `"evil/app"`,
		`query($x: ID! = "evil/app") { project(fullPath: $x) { id } }`:                                               `"evil/app"`,
		`query($x: ID! = "own/lib", $x: ID! = "evil/app") { project(fullPath: $x) { id } }`:                          "twice",
		`query($endCursor: ID = "own/lib") { project(fullPath: $endCursor) { id } }`:                                 "neither a string",
		`query($path: ID!) { project(fullPath: $undeclared) { id } }`:                                                "not declared",
		`query A($x: ID = "own/lib") { currentUser { id } } query B { project(fullPath: $x) { id } }`:                "not declared",
		`{ project(fullPath: {a: "own/lib"}) { id } }`:                                                               "neither a string",
		`{ __schema { types { name } ... on Query { project(fullPath: "evil/app") { id } } } }`:                      "fragment",
		aboutProject(`group { id }`):                                                                                 `"project.group" is not among`,
		aboutProject(`namespace { id }`):                                                                             "project.namespace",
		aboutProject(`id`) + ` fragment f on Group { id }`:                                                           "not used",
		aboutProject(`... on Group { id }`):                                                                          "fragment",
		aboutProject(`... on User { groups { nodes { id } } }`):                                                      "fragment",
		aboutProject(`forkedFrom { fullPath }`):                                                                      "forkedFrom",
		aboutProject(`ciVariables { nodes { key value } }`):                                                          `glab api projects/own%2Fteam%2Fapp/...`,
		aboutProject(`inheritedCiVariables { nodes { key } }`):                                                       "inheritedCiVariables",
		aboutProject(`projectMembers { nodes { user { username } } }`):                                               "projectMembers",
		aboutProject(`snippets { nodes { title } }`):                                                                 "snippets",
		aboutProject(`vulnerabilities { nodes { title } }`):                                                          "vulnerabilities",
		aboutProject(`securityScanners { available }`):                                                               "securityScanners",
		aboutProject(`serviceDeskAddress`):                                                                           "serviceDeskAddress",
		aboutProject(`workItems { nodes { id } }`):                                                                   "workItems",
		aboutProject(`boards { nodes { id } }`):                                                                      "boards",
		aboutProject(`runners { nodes { id } }`):                                                                     "runners",
		aboutProject(`labels(includeAncestorGroups: true) { nodes { title } }`):                                      "includeAncestorGroups",
		aboutProject(`milestones(includeAncestors: true) { nodes { title } }`):                                       "includeAncestors",
		aboutProject(`milestones { nodes { group { id } } }`):                                                        "nodes.group",
		aboutProject(`milestones { nodes { project { id } } }`):                                                      "nodes.project",
		aboutProject(`issues(epicId: "1") { nodes { id } }`):                                                         "epicId",
		aboutProject(`issues(includeSubepics: true) { nodes { id } }`):                                               "includeSubepics",
		aboutProject(`issue(iid: $iid) { epic { title } }`):                                                          "issue.epic",
		aboutProject(`issue(iid: $iid) { movedTo { description } }`):                                                 "issue.movedTo",
		aboutProject(`issue(iid: $iid) { closedAsDuplicateOf { description } }`):                                     "closedAsDuplicateOf",
		aboutProject(`issue(iid: $iid) { relatedMergeRequests { nodes { id } } }`):                                   "relatedMergeRequests",
		aboutProject(`issue(iid: $iid) { blockedByIssues { nodes { title } } }`):                                     "blockedByIssues",
		aboutProject(`issue(iid: $iid) { createNoteEmail }`):                                                         "createNoteEmail",
		aboutProject(`issue(iid: $iid) { descriptionHtml }`):                                                         `ask for the text itself ("description")`,
		aboutProject(`issue(iid: $iid) { titleHtml }`):                                                               "other projects",
		aboutProject(`issue(iid: $iid) { notes { nodes { bodyHtml } } }`):                                            "other projects",
		aboutProject(`issue(iid: $iid) { notes { nodes { project { id } } } }`):                                      "nodes.project",
		aboutProject(`issue(iid: $iid) { discussions { nodes { noteable { ... on Epic { id } } } } }`):               "noteable",
		aboutProject(`issue(iid: $iid) { author { assignedMergeRequests { nodes { title } } } }`):                    "author.assignedMergeRequests",
		aboutProject(`issue(iid: $iid) { author { publicEmail } }`):                                                  "publicEmail",
		aboutProject(`issue(iid: $iid) { author { ... on UserCore { groups { nodes { id } } } } }`):                  "author.groups",
		aboutProject(`issue(iid: $iid) { assignees { nodes { ...f } } }`) + ` fragment f on UserCore { groupCount }`: "groupCount",
		aboutProject(`mergeRequest(iid: $iid) { sourceProject { name } }`):                                           "sourceProject.name",
		aboutProject(`mergeRequest(iid: $iid) { sourceProject { repository { rootRef } } }`):                         "sourceProject.repository",
		aboutProject(`mergeRequest(iid: $iid) { sourceProject { ... on Project { issues { nodes { id } } } } }`):     "sourceProject.issues",
		aboutProject(`mergeRequest(iid: $iid) { sourceProject { ...f } }`) + ` fragment f on Project { id }`:         "sourceProject.id",
		aboutProject(`mergeRequest(iid: $iid) { project { id } }`):                                                   "mergeRequest.project",
		aboutProject(`mergeRequest(iid: $iid) { headPipeline { jobs { nodes { name } } } }`):                         "headPipeline.jobs",
		aboutProject(`mergeRequest(iid: $iid) { headPipeline { ... on Pipeline { jobs { nodes { name } } } } }`):     "headPipeline.jobs",
		aboutProject(`mergeRequest(iid: $iid) { commits { nodes { pipelines { nodes { id } } } } }`):                 "nodes.pipelines",
		aboutProject(`mergeRequest(iid: $iid) { reviewers { nodes { mergeRequestInteraction { approved } } } }`):     "mergeRequestInteraction",
		aboutProject(`pipeline(id: "gid://gitlab/Ci::Pipeline/1") { id }`):                                           "argument",
		aboutProject(`pipeline(iid: 7) { upstream { id } }`):                                                         "pipeline.upstream",
		aboutProject(`pipeline(iid: 7) { downstream { nodes { id } } }`):                                             "pipeline.downstream",
		aboutProject(`pipeline(iid: 7) { project { id } }`):                                                          "pipeline.project",
		aboutProject(`pipeline(iid: 7) { manualVariables { nodes { value } } }`):                                     "manualVariables",
		aboutProject(`pipeline(iid: 7) { jobs { nodes { downstreamPipeline { id } } } }`):                            "downstreamPipeline",
		aboutProject(`pipeline(iid: 7) { jobs { nodes { trace { htmlSummary } } } }`):                                "nodes.trace",
		aboutProject(`pipeline(iid: 7) { jobs { nodes { manualVariables { nodes { value } } } } }`):                  "manualVariables",
		aboutProject(`pipeline(iid: 7) { jobs { nodes { detailedStatus { detailsPath } } } }`):                       "detailsPath",
		aboutProject(`pipeline(iid: 7) { job(id: "gid://gitlab/Ci::Build/1") { name } }`):                            "argument",
		aboutProject(`repository { blobs(paths: ["a"]) { nodes { richViewer { renderedHtml: collapsed } } } }`):      "richViewer",
		aboutProject(`release(tagName: "v1") { descriptionHtml }`):                                                   "other projects",
		aboutProject(`release(tagName: "v1") { evidences { nodes { filepath } } }`):                                  "evidences",
		aboutProject(`name @gl_introduced(version: "1")`):                                                            "directive",
		aboutProject(`...f`) + ` fragment f on Project { id ...f }`:                                                  "deeper",
		aboutProject(`name { x }`):                                                                                   "no fields",
		// aliases do not make a field another one
		`{ project: group(fullPath: "own") { id } }`:                                               `"group" is refused`,
		aboutProject(`issues: group { id }`):                                                       "project.group",
		`{ currentUser: users { nodes { id } } }`:                                                  `"users"`,
		`{ group(fullPath: "own") { projects { nodes { id } } } }`:                                 `ask for project(fullPath: "own/team/app")`,
		`{ projects(search: "x") { nodes { id } } }`:                                               "glab api projects/own%2Fteam%2Fapp/",
		`{ namespace(fullPath: "own") { id } }`:                                                    `"namespace"`,
		`{ user(username: "x") { id } }`:                                                           `"user"`,
		`{ issue(id: "gid://gitlab/Issue/1") { title } }`:                                          `"issue"`,
		`{ issues(search: "x") { nodes { title } } }`:                                              `"issues"`,
		`{ mergeRequest(id: "gid://gitlab/MergeRequest/1") { title } }`:                            `"mergeRequest"`,
		`{ note(id: "gid://gitlab/Note/1") { body } }`:                                             `"note"`,
		`{ workItem(id: "gid://gitlab/WorkItem/1") { title } }`:                                    `"workItem"`,
		`{ milestone(id: "gid://gitlab/Milestone/1") { title } }`:                                  `"milestone"`,
		`{ node(id: "gid://gitlab/Project/1") { id } }`:                                            `"node"`,
		`{ nodes(ids: ["gid://gitlab/Project/1"]) { id } }`:                                        `"nodes"`,
		`{ snippets { nodes { title } } }`:                                                         `"snippets"`,
		`{ ciVariables { nodes { value } } }`:                                                      `"ciVariables"`,
		`{ vulnerabilities { nodes { title } } }`:                                                  `"vulnerabilities"`,
		`{ currentUser { todos { nodes { body } } } }`:                                             "currentUser.todos",
		`{ currentUser { ... on CurrentUser { groups { nodes { id } } } } }`:                       "currentUser.groups",
		`{ currentUser { email } }`:                                                                "currentUser.email",
		`{ repository(owner: "own", name: "lib") { id } }`:                                         `"repository"`,
		`{ viewer { login } }`:                                                                     `"viewer"`,
		`{ metadata { version } }`:                                                                 `"metadata"`,
		`mutation { createIssue(input: {projectPath: "own/lib", title: "x"}) { issue { id } } }`:   "use glab api -X POST projects/own%2Fteam%2Fapp/issues",
		`mutation { x: mergeRequestAccept(input: {projectPath: "own/lib", iid: "7"}) { errors } }`: "leave it to the person",
		`mutation M { issueSetAssignees(input: {projectPath: "own/lib", iid: "7"}) { errors } }`:   "-X PUT projects/own%2Fteam%2Fapp/issues/IID",
		`mutation { somethingNew(input: {}) { errors } }`:                                          "mutations of GitLab are refused",
		`mutation { ...f } fragment f on Mutation { createNote(input: {}) { errors } }`:            "mutations of GitLab are refused",
		`mutation { currentUser { id } }`:                                                          "mutations of GitLab are refused",
		`query A { currentUser { id } } mutation B { destroyNote(input: {id: "x"}) { errors } }`:   "-X DELETE projects/own%2Fteam%2Fapp/issues/IID/notes/ID",
		`subscription { issuableTitleUpdated(issuableId: "x") { __typename } }`:                    "only queries",
		``: "no query",
		// A quote in a comment, by which GitLab reads it on to a later line: projects { nodes { name } }.
		"{ projects # \"\n : project(fullPath: \"own/lib\") # \"\n # \"\n { nodes # \"\n : issues # \"\n { id } } }": "a comment in the query has a quote",
		"{ currentUser { id } } # \"":   "a comment in the query has a quote",
		"{ currentUser { id } } # \r x": "printable",
	} {
		if asked, err := GitLabGraphQL([]byte(bodyOf(t, text, ofProject)), projects); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%.180s: %+v, %v, not %q", text, asked, err, say)
		}
	}
}

// TestAttackGitLabBodies: bodies in which GitLab would find another query.
func TestAttackGitLabBodies(t *testing.T) {
	const q = `"query":"{currentUser{id}}"`
	for body, say := range map[string]string{
		`[{` + q + `}]`: "one by one",
		`{"_json":[{"query":"{projects{nodes{id}}}"}],` + q + `}`:        "_json",
		`{` + q + `,"extensions":{"persistedQuery":{"sha256Hash":"x"}}}`: "extensions",
		`{"extensions":{"persistedQuery":{"sha256Hash":"x"}}}`:           "extensions",
		`{"id":"x"}`:                                  `"id"`,
		`{"documentId":"x",` + q + `}`:                "documentId",
		`{"operations":"{}","map":"{}"}`:              "only query, variables and operationName",
		`{` + q + `,"query":"{projects{nodes{id}}}"}`: "twice",
		`{` + q + `,"Query":"{projects{nodes{id}}}"}`: `"Query"`,
		`{` + q + `,"variables":"{}"}`:                "variables in the body",
		`{` + q + `,"variables":{"a":1,"a":2}}`:       "twice",
		`{` + q + `,"private_token":"x"}`:             "private_token",
		`{` + q + `,"_method":"GET"}`:                 "_method",
		`{` + q + `,"remove_deprecated":true}`:        "remove_deprecated",
		`{}`:                                          "no query",
		``:                                            "one JSON object",
		`query=%7Bprojects%7Bnodes%7Bid%7D%7D%7D`:     "one JSON object",
		"--x\r\nContent-Disposition: form-data; name=\"operations\"\r\n\r\n{}\r\n--x--": "one JSON object",
		`{` + q + strings.Repeat(" ", MaxBody) + `}`:                                    "longer",
	} {
		if _, err := GitLabGraphQL([]byte(body), projects); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%.120q: %v, not %q", body, err, say)
		}
	}
}

// TestAttackQuoteInComment: GitHub's queries are read with the same care.
func TestAttackQuoteInComment(t *testing.T) {
	if _, err := GraphQL([]byte(bodyOf(t, "{ viewer # \"\n : rateLimit # \"\n { cost } }", nil)), reads); err == nil || !strings.Contains(err.Error(), "a comment in the query has a quote") {
		t.Error(err)
	}
	for _, text := range []string{"{ viewer { login } } # no quote", `{ repository(owner: "own", name: "app") { issue(number: 7) { id } label(name: "#1 \t, # b") { id } } } # x`} {
		if _, err := GraphQL([]byte(bodyOf(t, strings.ReplaceAll(text, `\t`, " "), nil)), reads); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestGitLabFields: from the types in the list, no way leads to another project, to a group, to what a person owns, to a text as HTML
// or to a credential. Only project, whose argument is judged, leads to a Project.
func TestGitLabFields(t *testing.T) {
	s, err := gitLab()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := parser.ParseSchema(&ast.Source{Input: sharedSchema + gitLabSchema})
	if err != nil || len(doc.Definitions) != len(s.types) {
		t.Fatalf("a type is there twice: %v", err)
	}
	refused := []string{
		"project", "group", "namespace", "projects", "groups", "movedTo", "closedAsDuplicateOf", "epic", "iteration", "upstream", "downstream", "sourceJob", "downstreamPipeline", "runner", "trace",
		"manualVariables", "ciVariables", "createNoteEmail", "serviceDeskAddress", "noteable", "email", "publicEmail", "detailsPath", "members", "projectMembers", "snippets", "richViewer",
	}
	reached := map[string]bool{"Query": true}
	for _, d := range doc.Definitions {
		if d.Kind != ast.Object && d.Kind != ast.Interface {
			t.Errorf("%s is a %s", d.Name, d.Kind)
		}
		for _, f := range d.Fields {
			to := f.Type.Name()
			reached[to] = true
			if to == "Project" && (d.Name != "Query" || f.Name != "project") || to == "Query" || strings.HasPrefix(f.Name, "_") && d.Name != "Query" {
				t.Errorf("%s.%s leads to %s", d.Name, f.Name, to)
			}
			if d.Name != "Query" && d.Name+"."+f.Name != "DetailedStatus.group" && slices.Contains(refused, f.Name) || strings.Contains(strings.ToLower(f.Name), "html") || strings.Contains(strings.ToLower(f.Name), "token") {
				t.Errorf("%s.%s", d.Name, f.Name)
			}
			for _, a := range f.Arguments {
				if s.types[a.Type.Name()] != nil || a.Type.Name() == "ID" && a.Name != "fullPath" && a.Name != "iid" || strings.Contains(a.Name, "clude") && !strings.HasPrefix(d.Name, "__") {
					t.Errorf("%s.%s has the argument %s", d.Name, f.Name, a.Name)
				}
			}
			if of := s.types[to]; of != nil && strings.HasPrefix(d.Name, "__") && !strings.HasPrefix(to, "__") {
				t.Errorf("%s.%s leads to data", d.Name, f.Name)
			}
			if strings.HasPrefix(d.Name, "_P") && slices.Contains([]string{"Pipeline", "CiJobConnection", "Repository", "Commit"}, to) {
				t.Errorf("%s.%s is more than a name", d.Name, f.Name)
			}
		}
	}
	if len(s.types["_ProjectName"].Fields) != 1 || len(s.types["User"].Fields) != 4 {
		t.Error("more than names")
	}
	for _, user := range s.possible["User"] {
		if len(s.types[user].Fields) != 4 {
			t.Errorf("%s is more than a name", user)
		}
		reached[user] = true
	}
	for name := range s.types {
		if !reached[name] {
			t.Errorf("nothing leads to %s", name)
		}
	}
	// The pipelines of a merge request, and those of its commits, may be a fork's.
	for _, of := range []string{"MergeRequest", "Commit", "_PipelineName"} {
		for _, f := range s.types[of].Fields {
			if to := f.Type.Name(); strings.Contains(to, "Pipeline") && !strings.HasPrefix(to, "_") && s.types[to] != nil {
				t.Errorf("%s.%s leads to %s", of, f.Name, to)
			}
		}
	}
}

func FuzzGitLabGraphQL(f *testing.F) {
	schema, err := gitLab()
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range gitLabQueries {
		f.Add([]byte(bodyOf(f, text, ofProject)))
	}
	for _, text := range []string{`mutation { x }`, `{ group(fullPath: "own") { id } }`, aboutProject("group { id }"), "{ a # \"\n: currentUser # \"\n { id } }", `{ project(fullPath: "Own/lib") { id } }`} {
		f.Add([]byte(bodyOf(f, text, ofProject)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		asked, err := GitLabGraphQL(body, projects)
		if err != nil {
			if asked != nil {
				t.Fatalf("refused, and about %+v", asked)
			}
			return
		}
		var plain struct{ Query string }
		if err := json.Unmarshal(body, &plain); err != nil {
			t.Fatal(err)
		}
		// As GitLab reads it: with the ends of lines escaped that are between quotes, comments or not.
		read := asGitLab(plain.Query)
		doc, err := parser.ParseQuery(&ast.Source{Input: read})
		if err != nil || read != plain.Query {
			t.Fatalf("%q: %v", plain.Query, err)
		}
		for _, op := range doc.Operations {
			if op.Operation != ast.Query {
				t.Fatalf("%q passes", plain.Query)
			}
			for _, sel := range op.SelectionSet {
				if field, ok := sel.(*ast.Field); ok && field.Name != "__typename" && schema.types["Query"].Fields.ForName(field.Name) == nil {
					t.Fatalf("%q passes", plain.Query)
				}
			}
		}
		for _, p := range asked.About {
			if !slices.Contains(projects, p) {
				t.Fatalf("%q is about %q", plain.Query, p)
			}
		}
	})
}

// asGitLab escapes the ends of lines between quotes.
func asGitLab(text string) string {
	var b strings.Builder
	between := false
	for _, c := range text {
		if c == '"' {
			between = !between
		}
		if between && (c == '\n' || c == '\r') {
			b.WriteString(`\n`)
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}
