package egress

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ghAnswers are what GitHub answers gh, by the name of the operation; {} if there is none.
var ghAnswers = map[string]string{
	"RepositoryInfo":       `{"repository":{"id":"R_app","name":"app","owner":{"login":"own"},"hasIssuesEnabled":true,"viewerPermission":"WRITE","defaultBranchRef":{"name":"main"}}}`,
	"RepositoryNetwork":    `{"viewer":{"login":"me"},"repo_000":{"id":"R_app","name":"app","owner":{"login":"own"},"hasIssuesEnabled":true,"viewerPermission":"WRITE","defaultBranchRef":{"name":"main"}}}`,
	"PullRequestForBranch": `{"repository":{"pullRequests":{"nodes":[]},"defaultBranchRef":{"name":"main"}}}`,
	"IssueByNumber":        `{"repository":{"hasIssuesEnabled":true,"issue":{"__typename":"Issue","id":"I_app","number":7,"title":"t","state":"OPEN","url":"https://github.com/own/app/issues/7"}}}`,
	"PullRequestByNumber":  `{"repository":{"pullRequest":{"id":"PR_app","number":7,"title":"t","state":"OPEN","headRefName":"feature","baseRefName":"main","url":"https://github.com/own/app/pull/7"}}}`,
	"IssueCreate":          `{"createIssue":{"issue":{"id":"I_app","url":"https://github.com/own/app/issues/8"}}}`,
	"PullRequestCreate":    `{"createPullRequest":{"pullRequest":{"id":"PR_app","url":"https://github.com/own/app/pull/9"}}}`,
	"CommentCreate":        `{"addComment":{"commentEdge":{"node":{"url":"https://github.com/own/app/pull/7#c"}}}}`,
	"IssueClose":           `{"closeIssue":{"issue":{"id":"I_app"}}}`,
}

// operation is the name of a query or mutation.
var operation = regexp.MustCompile(`(?:query|mutation)\s+(\w+)`)

// TestGH runs the real gh, whose program BAWN_TEST_GH names, through a gateway with the rule github:own/app: what it changes in
// the repository passes, and it shows why the rest does not.
func TestGH(t *testing.T) {
	gh := os.Getenv("BAWN_TEST_GH")
	if gh == "" {
		t.Skip("BAWN_TEST_GH does not name the program gh")
	}
	l, server, client := newNodesLab(t, nil, "allow github:own/app")
	server.set(func() {
		server.answers = func(body string) string {
			var q struct{ Query string }
			if err := json.Unmarshal([]byte(body), &q); err != nil {
				return "{}"
			}
			if m := operation.FindStringSubmatch(q.Query); m != nil && ghAnswers[m[1]] != "" {
				return `{"data":` + ghAnswers[m[1]] + "}"
			}
			return `{"data":{}}`
		}
	})
	dir := t.TempDir()
	run := func(name string, args ...string) (string, error) {
		c := exec.CommandContext(t.Context(), name, args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "HTTPS_PROXY=http://"+ghProxy(t, client), "SSL_CERT_FILE="+l.ca, "GH_TOKEN=x", "HOME="+dir, "GH_CONFIG_DIR="+filepath.Join(dir, "gh"), "GH_PROMPT_DISABLED=1", "GH_NO_UPDATE_NOTIFIER=1", "GIT_CONFIG_GLOBAL=/dev/null")
		out, err := c.CombinedOutput()
		return string(out), err
	}
	for _, args := range []string{
		"init -q -b feature", "-c user.name=a -c user.email=a@b.test commit -q --allow-empty -m x", "remote add origin https://github.com/own/app.git",
		"update-ref refs/remotes/origin/feature HEAD", "update-ref refs/remotes/origin/main HEAD", "config branch.feature.remote origin", "config branch.feature.merge refs/heads/feature",
	} {
		if out, err := run("git", strings.Fields(args)...); err != nil {
			t.Fatalf("git %s: %s", args, out)
		}
	}
	for args, say := range map[string]string{
		"issue create -t a -b b":               "https://github.com/own/app/issues/8",
		"pr create -t a -b b -B main":          "https://github.com/own/app/pull/9",
		"pr comment 7 -b x":                    "https://github.com/own/app/pull/7#c",
		"issue comment 7 -b x":                 "https://github.com/own/app/pull/7#c",
		"issue close 7":                        "Closed issue #7",
		"pr review 7 --approve":                "a review speaks for the person: write a comment instead",
		"-R evil/app issue comment 7 -b x":     `the query is about the repository "evil/app"`,
		"api repos/evil/app":                   "no rule allows this request",
		"api graphql -f query={viewer{email}}": "is not among the fields",
	} {
		out, err := run(gh, strings.Fields(args)...)
		out = strings.ReplaceAll(out, `\`, "") // gh quotes some errors, even twice
		if passes := !strings.Contains(out, "bawn: forbidden"); (err == nil) != passes || !strings.Contains(out, say) {
			t.Errorf("gh %s: %v, %s", args, err, out)
		}
	}
	got, questions := server.changed()
	for _, name := range []string{"createIssue", "createPullRequest", "addComment", "closeIssue"} {
		if !slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "mutation") && strings.Contains(r, name) }) {
			t.Errorf("the server got no %s", name)
		}
	}
	if questions != 5 || slices.ContainsFunc(got, func(r string) bool { return strings.Contains(r, "evil") || strings.Contains(r, "addPullRequestReview") }) {
		t.Errorf("%d questions; the server got %q", questions, got)
	}
}

// ghProxy is a proxy on loopback whose connections are the guest's, for programs of the host. It returns its address.
func ghProxy(t *testing.T, guest *http.Client) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	serve := func(c net.Conn) {
		defer c.Close()
		b := bufio.NewReader(c)
		r, err := http.ReadRequest(b)
		if err != nil || r.Method != http.MethodConnect {
			return
		}
		up, err := guest.Transport.(*http.Transport).DialContext(t.Context(), "tcp", r.Host)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(up, b)
			up.Close()
		}()
		_, _ = io.Copy(c, up)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}
