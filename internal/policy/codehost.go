package policy

import (
	"fmt"
	"strings"
)

// Rules about one repository at the API of a service: [private:]NAME:[HOST[:PORT]/]OWNER/REPO[:read|:MODE].
//
// Theory of operation. Such a rule stands for a list of rules, which is data (codeHosts). Most are
// rules about requests, as a person could write them. For some requests, method and path do not say
// what they do: a query of GraphQL names the repository in its body, and a comment on GitLab can be a
// command (/move) that acts on another project. Those of a service that are alike are one rule, with a
// MODE of its own, and Decision.Body says what their bodies have to be: package egress reads and judges
// them before anything is sent on. They have no query, in which servers read the same fields. Reading from
// GitLab is judged so, too: it renders texts on demand, with the titles of what they refer to, in any
// project that the token may read, and the agent writes the texts. So texts are given out as they are only: such a
// request has no body, in which GitLab reads the fields of a query, and its query asks for no HTML.

// codeHost is the set of rules about one repository at the API of a service.
type codeHost struct {
	name    string
	summary string
	written string // what a rule without :read writes
	form    string // how a repository is named
	host    string // of a rule that names none
	// at returns the URLs of the REST API and of GraphQL of a server (HOST[:PORT]).
	at     func(server string) (api, graphQL string)
	below  string // the URL before a repository
	repo   func(path string) (inURL string, err error)
	read   []string // rules about requests, with {repo} for what repo returns, {api} and {graphql} for what at does
	write  []string // those that :read leaves out
	judged []judgedMode
}

// judgedMode is the part of the rules whose requests are judged by their bodies.
type judgedMode struct {
	mode     string
	body     BodyKind
	writes   bool // :read leaves it out
	words    string
	requests []string // as codeHost.read, all of one host
}

// BodyKind is what the body of a request has to be.
type BodyKind int

// The kinds of bodies.
const (
	// GraphQLQuery is a query of GraphQL about some repositories of GitHub, or a mutation of what is in some.
	GraphQLQuery BodyKind = iota + 1
	// GraphQLMutation is the kind of a rule that allows the latter. BodyRules have GraphQLQuery for both.
	GraphQLMutation
	// GitLabText is what is written about an issue or merge request of GitLab, without commands.
	GitLabText
	// GitLabQuery is a query of GraphQL about some projects of GitLab.
	GitLabQuery
	// NoBody is none.
	NoBody
	// ConflictingBodies are those of which the rules say that they are of two services, at one server: none may pass.
	ConflictingBodies
)

// codeHosts name the requests that are needed to work on a repository with its issues and pull
// requests. Whatever opens another way to its commits (contents, git/refs, merges), to others
// (forks, invitations, keys, hooks) or speaks for the user (reviews) is not among them. What may be read
// is listed, too: below a repository's path are issues of others that refer to one of its issues (timeline,
// events, sub_issues, dependencies), with their whole text, and variables and tokens.
var codeHosts = []codeHost{{
	name:    "github",
	summary: "GitHub's API (REST and GraphQL) for one repository",
	written: "its issues and pull requests",
	form:    "OWNER/REPO",
	host:    "github.com",
	at:      gitHubAPI,
	below:   "{api}/repos/",
	repo:    gitHubRepository,
	read: []string{
		"GET,HEAD {api}/user",
		"GET,HEAD {api}/repos/{repo}",
		"GET,HEAD {api}/repos/{repo}/actions/artifacts/**",
		"GET,HEAD {api}/repos/{repo}/actions/cache/**",
		"GET,HEAD {api}/repos/{repo}/actions/caches",
		"GET,HEAD {api}/repos/{repo}/actions/jobs/**",
		"GET,HEAD {api}/repos/{repo}/actions/runs/**",
		"GET,HEAD {api}/repos/{repo}/actions/workflows/**",
		"GET,HEAD {api}/repos/{repo}/assignees/**",
		"GET,HEAD {api}/repos/{repo}/branches/**",
		"GET,HEAD {api}/repos/{repo}/check-runs/**",
		"GET,HEAD {api}/repos/{repo}/check-suites/**",
		"GET,HEAD {api}/repos/{repo}/code-scanning/**",
		"GET,HEAD {api}/repos/{repo}/codeowners/**",
		"GET,HEAD {api}/repos/{repo}/collaborators/**",
		"GET,HEAD {api}/repos/{repo}/comments/**",
		"GET,HEAD {api}/repos/{repo}/commits/**",
		"GET,HEAD {api}/repos/{repo}/community/**",
		"GET,HEAD {api}/repos/{repo}/compare/**",
		"GET,HEAD {api}/repos/{repo}/contents/**",
		"GET,HEAD {api}/repos/{repo}/contributors",
		"GET,HEAD {api}/repos/{repo}/dependabot/alerts/**",
		"GET,HEAD {api}/repos/{repo}/dependency-graph/**",
		"GET,HEAD {api}/repos/{repo}/deployments/**",
		"GET,HEAD {api}/repos/{repo}/environments",
		"GET,HEAD {api}/repos/{repo}/environments/*",
		"GET,HEAD {api}/repos/{repo}/git/**",
		"GET,HEAD {api}/repos/{repo}/issues",
		"GET,HEAD {api}/repos/{repo}/issues/*",
		"GET,HEAD {api}/repos/{repo}/issues/*/comments",
		"GET,HEAD {api}/repos/{repo}/issues/*/labels",
		"GET,HEAD {api}/repos/{repo}/issues/*/reactions",
		"GET,HEAD {api}/repos/{repo}/issues/comments/**",
		"GET,HEAD {api}/repos/{repo}/labels/**",
		"GET,HEAD {api}/repos/{repo}/languages",
		"GET,HEAD {api}/repos/{repo}/license",
		"GET,HEAD {api}/repos/{repo}/milestones/**",
		"GET,HEAD {api}/repos/{repo}/pages/**",
		"GET,HEAD {api}/repos/{repo}/pulls/**",
		"GET,HEAD {api}/repos/{repo}/readme/**",
		"GET,HEAD {api}/repos/{repo}/releases/**",
		"GET,HEAD {api}/repos/{repo}/rules/**",
		"GET,HEAD {api}/repos/{repo}/rulesets/**",
		"GET,HEAD {api}/repos/{repo}/secret-scanning/**",
		"GET,HEAD {api}/repos/{repo}/security-advisories/**",
		"GET,HEAD {api}/repos/{repo}/stargazers",
		"GET,HEAD {api}/repos/{repo}/stats/**",
		"GET,HEAD {api}/repos/{repo}/statuses/**",
		"GET,HEAD {api}/repos/{repo}/subscribers",
		"GET,HEAD {api}/repos/{repo}/subscription",
		"GET,HEAD {api}/repos/{repo}/tags/**",
		"GET,HEAD {api}/repos/{repo}/tarball/**",
		"GET,HEAD {api}/repos/{repo}/teams",
		"GET,HEAD {api}/repos/{repo}/topics",
		"GET,HEAD {api}/repos/{repo}/traffic/**",
		"GET,HEAD {api}/repos/{repo}/vulnerability-alerts",
		"GET,HEAD {api}/repos/{repo}/zipball/**",
	},
	write: []string{
		"POST {api}/repos/{repo}/issues",
		"PATCH {api}/repos/{repo}/issues/*",
		"POST {api}/repos/{repo}/issues/*/comments",
		"PATCH,DELETE {api}/repos/{repo}/issues/comments/*",
		"POST,PUT,DELETE {api}/repos/{repo}/issues/*/labels",
		"DELETE {api}/repos/{repo}/issues/*/labels/*",
		"POST,DELETE {api}/repos/{repo}/issues/*/assignees",
		"POST {api}/repos/{repo}/pulls",
		"PATCH {api}/repos/{repo}/pulls/*",
		"POST {api}/repos/{repo}/pulls/*/comments",
		"POST {api}/repos/{repo}/pulls/*/comments/*/replies",
		"PATCH,DELETE {api}/repos/{repo}/pulls/comments/*",
		"POST,DELETE {api}/repos/{repo}/pulls/*/requested_reviewers",
	},
	judged: []judgedMode{{
		mode: "graphql", body: GraphQLQuery,
		words:    "queries of GraphQL about it",
		requests: []string{"POST {graphql}"},
	}, {
		mode: "mutations", body: GraphQLMutation, writes: true,
		words:    "mutations of GraphQL of its issues and pull requests",
		requests: []string{"POST {graphql}"},
	}},
}, {
	name:    "gitlab",
	summary: "GitLab's API (REST and GraphQL) for one project",
	written: "its issues and merge requests",
	form:    "GROUP[/SUBGROUP...]/PROJECT",
	host:    "gitlab.com",
	at:      gitLabAPI,
	below:   "{api}/projects/",
	repo:    gitLabProject,
	judged: []judgedMode{{
		mode: "rest", body: NoBody,
		words: "to read it by the REST API",
		requests: []string{
			"GET,HEAD {api}/user",
			"GET,HEAD {api}/projects/{repo}",
			"GET,HEAD {api}/projects/{repo}/issues",
			"GET,HEAD {api}/projects/{repo}/issues/*",
			"GET,HEAD {api}/projects/{repo}/issues/*/notes/**",
			"GET,HEAD {api}/projects/{repo}/issues/*/discussions/**",
			"GET,HEAD {api}/projects/{repo}/issues_statistics",
			"GET,HEAD {api}/projects/{repo}/merge_requests",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/notes/**",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/discussions/**",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/commits",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/changes",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/diffs",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/raw_diffs",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/versions/**",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/pipelines",
			"GET,HEAD {api}/projects/{repo}/merge_requests/*/approvals",
			"GET,HEAD {api}/projects/{repo}/labels/**",
			"GET,HEAD {api}/projects/{repo}/milestones/**",
			"GET,HEAD {api}/projects/{repo}/members/**",
			"GET,HEAD {api}/projects/{repo}/releases/**",
			"GET,HEAD {api}/projects/{repo}/languages",
			"GET,HEAD {api}/projects/{repo}/pipelines",
			"GET,HEAD {api}/projects/{repo}/pipelines/*",
			"GET,HEAD {api}/projects/{repo}/pipelines/*/jobs",
			"GET,HEAD {api}/projects/{repo}/pipelines/*/test_report",
			"GET,HEAD {api}/projects/{repo}/jobs",
			"GET,HEAD {api}/projects/{repo}/jobs/*",
			"GET,HEAD {api}/projects/{repo}/jobs/*/trace",
			"GET,HEAD {api}/projects/{repo}/repository/tree",
			"GET,HEAD {api}/projects/{repo}/repository/blobs/**",
			"GET,HEAD {api}/projects/{repo}/repository/branches/**",
			"GET,HEAD {api}/projects/{repo}/repository/commits/**",
			"GET,HEAD {api}/projects/{repo}/repository/contributors",
			"GET,HEAD {api}/projects/{repo}/repository/files/**",
			"GET,HEAD {api}/projects/{repo}/repository/tags/**",
		},
	}, {
		mode: "graphql", body: GitLabQuery,
		words:    "queries of GraphQL about it",
		requests: []string{"POST {graphql}"},
	}, {
		mode: "write", body: GitLabText, writes: true,
		words: "to write its issues and merge requests",
		requests: []string{
			"POST {api}/projects/{repo}/issues",
			"PUT {api}/projects/{repo}/issues/*",
			"POST {api}/projects/{repo}/issues/*/notes",
			"PUT,DELETE {api}/projects/{repo}/issues/*/notes/*",
			"POST {api}/projects/{repo}/issues/*/discussions",
			"POST {api}/projects/{repo}/issues/*/discussions/*/notes",
			"PUT,DELETE {api}/projects/{repo}/issues/*/discussions/*/notes/*",
			"POST {api}/projects/{repo}/merge_requests",
			"PUT {api}/projects/{repo}/merge_requests/*",
			"POST {api}/projects/{repo}/merge_requests/*/notes",
			"PUT,DELETE {api}/projects/{repo}/merge_requests/*/notes/*",
			"POST {api}/projects/{repo}/merge_requests/*/discussions",
			"PUT {api}/projects/{repo}/merge_requests/*/discussions/*",
			"POST {api}/projects/{repo}/merge_requests/*/discussions/*/notes",
			"PUT,DELETE {api}/projects/{repo}/merge_requests/*/discussions/*/notes/*",
		},
	}},
}}

// Limits of GitHub for the names of owners and repositories, and of GitLab for each part of a path,
// in bytes.
const (
	maxOwner = 39
	maxRepo  = 100
	maxGroup = 255
)

// gitHubRepository checks OWNER/REPO and returns it as it is in a URL.
func gitHubRepository(path string) (string, error) {
	owner, name, _ := strings.Cut(path, "/")
	if !isRepoName(owner, maxOwner, "-_") || !isRepoName(name, maxRepo, "-_.") {
		return "", fmt.Errorf("%q is no OWNER/REPO", path)
	}
	return path, nil
}

// gitLabProject checks GROUP[/SUBGROUP...]/PROJECT and returns it as it is in a URL: one segment.
func gitLabProject(path string) (string, error) {
	parts := strings.Split(path, "/")
	for _, p := range parts {
		if len(parts) < 2 || !isRepoName(p, maxGroup, "-_.") || p[0] == '-' {
			return "", fmt.Errorf("%q is no GROUP[/SUBGROUP...]/PROJECT", path)
		}
	}
	return strings.Join(parts, "%2F"), nil
}

// isRepoName reports whether a text has letters, digits and these characters only, and is the name
// of something.
func isRepoName(s string, limit int, others string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= limit &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"+others) == ""
}

// gitHubAPI returns where a GitHub has its APIs: github.com and GitHub Enterprise Cloud with data residency
// (SUBDOMAIN.ghe.com) at a name of their own, GitHub Enterprise Server below /api.
func gitHubAPI(server string) (api, graphQL string) {
	if server == "github.com" || strings.HasSuffix(server, ".ghe.com") {
		return "https://api." + server, "https://api." + server + "/graphql"
	}
	return "https://" + server + "/api/v3", "https://" + server + "/api/graphql"
}

// gitLabAPI returns where a GitLab has its APIs.
func gitLabAPI(server string) (api, graphQL string) {
	return "https://" + server + "/api/v4", "https://" + server + "/api/graphql"
}
