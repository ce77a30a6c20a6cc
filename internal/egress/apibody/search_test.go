package apibody

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// searchFor is a search as gh makes it.
func searchFor(t testing.TB, text, kind string) string {
	return bodyOf(t, `query IssueSearch($type: SearchType!, $limit: Int, $after: String, $query: String!) { search(type: $type, last: $limit, after: $after, query: $query) { issueCount nodes { ... on Issue { number title } ... on PullRequest { number } } pageInfo { hasNextPage endCursor } } }`,
		map[string]any{"query": text, "type": kind, "limit": 30})
}

func TestSearches(t *testing.T) {
	for _, text := range []string{
		"label:bug repo:own/app state:open type:issue", "repo:own/app state:open is:pr author:@me", "repo:own/app state:open review-requested:@me", ` memory leak  repo:own/lib label:"good first issue" -label:wontfix created:>=2024-01-01 `,
		"repo:own/app comments:>5 base:feature/x no:assignee sort:updated-desc", "repo:own/app überlauf",
	} {
		for _, kind := range []string{"ISSUE", "ISSUE_ADVANCED"} {
			asked, err := GraphQL([]byte(searchFor(t, text, kind)), reads)
			if err != nil || len(asked.About) != 1 || asked.Question() != nil || asked.Changes {
				t.Errorf("%s: %+v, %v", text, asked, err)
			}
		}
	}
}

// TestAttackSearches: what finds something elsewhere, by any reading of the text.
func TestAttackSearches(t *testing.T) {
	for _, text := range []string{
		"", "x", "is:open", "repo:evil/app", "repo:own/app repo:evil/app", "repo:own/app repo:own/lib", "repo:own/app repo:own/app", "-repo:own/app", "Repo:evil/app repo:own/app", "repo:own/app org:evil", "repo:own/app user:evil", "repo:own/app user:@me",
		"repo:own/app owner:evil", "repo:own/app OR secret", "repo:own/app or secret", "repo:own/app AND x", "NOT repo:own/app", "(repo:own/app) x", "repo:own/app OR (org:evil)", "repo:own/app) OR (x", "repo:own/app|x", "repo:own/app,evil/app", `repo:"own/app"`, `"repo:own/app" x`,
		`"repo:own/app`, `label:"x repo:own/app`, `label:"x" "repo:own/app"`, `label:x" repo:own/app "y`, `label:"x"y repo:own/app`, "label:repo:own/app", "repo:Own/app", "repo:own/app2", "repo:own/ap*", "repo:own/*", "repo:own/app\\", "x\\ repo:own/app", "label:\\\"a repo:own/app b\\\"", "repo:own/app\tx",
		"repo:own/app\norg:evil", "repo:own/app\u00a0org:evil", "repo:own/app\u2028x", "repo:own/app\u200bx", "repo\uff1aown/app", "repo:own/app linked:pr", "repo:own/app project:evil/1", "repo:own/app in:title,body:x", "repo:own/app team:evil/x", "repo:own/app parent-issue:evil/app#1", "repo:own/app -", `repo:own/app label:"a OR b"`, "repo:own/app label:or", strings.Repeat("x ", 125) + "repo:own/app", "repo:own/app -secret", "repo: own/app",
	} {
		for _, kind := range []string{"ISSUE", "ISSUE_ADVANCED"} {
			if asked, err := GraphQL([]byte(searchFor(t, text, kind)), reads); err == nil || !strings.Contains(err.Error(), "text of a search") {
				t.Errorf("%q: %+v, %v", text, asked, err)
			}
		}
	}
	for _, kind := range []string{"REPOSITORY", "USER", "DISCUSSION", "issue", ""} {
		if _, err := GraphQL([]byte(searchFor(t, "repo:own/app", kind)), reads); err == nil || !strings.Contains(err.Error(), "issues and pull requests only") {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := GraphQL([]byte(bodyOf(t, `{ search(query: "repo:own/app") { issueCount } }`, nil)), reads); err == nil {
		t.Error("a search of no type")
	}
}

func FuzzSearch(f *testing.F) {
	for _, s := range []string{"label:bug repo:own/app", `repo:own/app label:"a b"`, "repo:own/app OR x", "a repo:evil/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		repo, err := searched(text, reads.Read)
		if err != nil {
			return
		}
		// As a simple reader takes it apart: by blanks, quotes or not.
		words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return c == ' ' || c == '"' || c == '(' || c == ')' })
		if n := strings.Count(strings.ToLower(text), "repo:"); n != 1 || !slices.Contains(words, fmt.Sprint("repo:", repo)) || slices.Contains(words, "or") {
			t.Fatalf("%q keeps to %q", text, repo)
		}
	})
}
