package egress

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/secret"
)

// gitLab is a lab with a server of git's own (git http-backend) at example.com, and a guest's
// working copy of the repository own/app there.
type gitLab struct {
	*lab
	server *requestServer
	root   string // of the server's repositories
	work   string // the working copy
	proxy  string // by which the guest's git reaches the gateway
}

// newGitLab serves own/app.git and own/other.git, each with a commit on main.
func newGitLab(t *testing.T, s *secrets, rules ...string) *gitLab {
	t.Helper()
	g := newRepositories(t)
	g.server = &requestServer{}
	g.server.counter = newCounter(t, true, func(w http.ResponseWriter, r *http.Request) { g.backend(t, w, r) })
	if s == nil {
		s = &secrets{list: []secret.Bound{}}
	}
	g.lab, _ = newInspectedLab(t, s, g.server.counter, nil)
	g.SetPolicy(rulesFrom(t, rules...))
	g.serve("example.com", "203.0.113.7:443", g.server.addr())
	g.listen(t)
	g.local(t, g.work, "remote", "set-url", "origin", "https://example.com/own/app.git")
	return g
}

// newRepositories returns a lab of which there are only the repositories and the working copy.
func newRepositories(t *testing.T) *gitLab {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	g := &gitLab{root: t.TempDir(), work: filepath.Join(t.TempDir(), "work")}
	for _, name := range []string{"own/app.git", "own/other.git"} {
		g.local(t, g.root, "init", "-q", "--bare", "-b", "main", name)
	}
	g.local(t, g.root, "clone", "-q", "own/app.git", g.work)
	g.commit(t, "first")
	for _, name := range []string{"app", "other"} {
		g.local(t, g.work, "push", "-q", filepath.Join(g.root, "own", name+".git"), "HEAD:main", "HEAD:old")
	}
	return g
}

// backend is git's server. With testSecret as the password, pushes are taken; without rules about
// passwords (no Authorization), too.
func (g *gitLab) backend(t *testing.T, w http.ResponseWriter, r *http.Request) {
	g.server.mu.Lock()
	g.server.got = append(g.server.got, r.Method+" "+r.RequestURI)
	g.server.mu.Unlock()
	body, err := io.ReadAll(r.Body) // CGI needs its length
	if err != nil {
		return
	}
	if user, password, ok := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/own/other") && (!ok || user != "x-access-token" || password != testSecret) {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	path, err := exec.CommandContext(t.Context(), "git", "--exec-path").Output()
	if err != nil {
		t.Error(err)
		return
	}
	h := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"), Stderr: io.Discard,
		Env: []string{"GIT_PROJECT_ROOT=" + g.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=guest", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1"},
	}
	h.ServeHTTP(w, r)
}

// listen takes the connections of git, which asks for them by CONNECT, to the gateway.
func (g *gitLab) listen(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g.proxy = "http://" + l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go g.tunnel(t.Context(), c)
		}
	}()
}

func (g *gitLab) tunnel(ctx context.Context, c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	q, err := http.ReadRequest(r)
	if err != nil || q.Method != http.MethodConnect {
		return
	}
	up, err := g.dialName("example.com", 443)
	if err != nil {
		return
	}
	defer up.Close()
	defer context.AfterFunc(ctx, func() { c.Close(); up.Close() })()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(up, r)
		_ = up.(interface{ CloseWrite() error }).CloseWrite()
	}()
	_, _ = io.Copy(c, up)
}

// git runs git as the guest does, and returns all that it prints.
func (g *gitLab) git(t *testing.T, args ...string) (string, error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "git", append([]string{
		"-c", "http.proxy=" + g.proxy, "-c", "http.sslCAInfo=" + g.ca,
		"-c", "user.name=guest", "-c", "user.email=guest@example.com", "-c", "credential.helper=",
	}, args...)...)
	c.Dir = g.work
	c.Env = gitEnv()
	out, err := c.CombinedOutput()
	return string(out), err
}

// gitEnv is an environment without the settings of whoever runs the tests.
func gitEnv() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C"}
}

// local runs git beside the gateway, to prepare and to check.
func (g *gitLab) local(t *testing.T, dir string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=guest", "-c", "user.email=guest@example.com"}, args...)...)
	c.Dir = dir
	c.Env = gitEnv()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (g *gitLab) commit(t *testing.T, message string) {
	t.Helper()
	g.local(t, g.work, "commit", "-q", "--allow-empty", "-m", message)
}

// refs returns the refs of the server's repository own/app.
func (g *gitLab) refs(t *testing.T) []string {
	t.Helper()
	return strings.Fields(g.local(t, filepath.Join(g.root, "own/app.git"), "for-each-ref", "--format=%(refname)"))
}

// TestGitFetchOnly: a rule without push= lets git clone, fetch and list the refs, in each version of
// its protocol, with and without .git; a push is refused with a reason that git prints, and so is
// another repository.
func TestGitFetchOnly(t *testing.T) {
	g := newGitLab(t, nil, "allow git:example.com/own/app:read")
	for _, version := range []string{"0", "1", "2"} {
		for _, url := range []string{"https://example.com/own/app", "https://example.com/own/app.git"} {
			if out, err := g.git(t, "-c", "protocol.version="+version, "clone", "-q", url, t.TempDir()); err != nil {
				t.Errorf("%s, version %s: %v\n%s", url, version, err, out)
			}
		}
	}
	before := g.server.seen()
	g.commit(t, "second")
	for _, c := range []struct{ want, args string }{
		{"no rule allows pushes to example.com/own/app", "push origin HEAD:main"},
		{"no rule allows to fetch from example.com/own/other", "fetch https://example.com/own/other.git"},
		{"no rule allows to fetch from example.com/own/app.wiki", "fetch https://example.com/own/app.wiki.git"},
	} {
		out, err := g.git(t, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("git %s: %v\n%s", c.args, err, out)
		}
	}
	if after := g.server.seen(); after != before {
		t.Errorf("the server got %s", strings.TrimPrefix(after, before))
	}
}

// TestGitPushesToTheRefsOfTheRule and to no others: what is refused changes nothing on the server,
// and git prints why.
func TestGitPushesToTheRefsOfTheRule(t *testing.T) {
	g := newGitLab(t, nil, "allow git:example.com/own/app:push=feature/*,refs/tags/*", "allow git:example.com/own/app:push=scratch/**:delete")
	g.commit(t, "second")
	if err := os.WriteFile(filepath.Join(g.work, "large"), bytes.Repeat([]byte("0123456789abcdef"), 1<<14), 0o600); err != nil {
		t.Fatal(err)
	}
	g.local(t, g.work, "add", "large")
	g.commit(t, "large")
	for _, c := range []struct {
		args string
		want string // empty: it succeeds
	}{
		{"push origin HEAD:refs/heads/feature/a", ""},
		{"-c http.postBuffer=1000 push origin HEAD:refs/heads/feature/chunked", ""},
		{"-c http.version=HTTP/1.1 -c http.postBuffer=1000 push origin HEAD:refs/heads/feature/b HEAD:refs/tags/v1", ""},
		{"push --atomic origin HEAD:refs/heads/scratch/x/y HEAD:refs/heads/scratch/z", ""},
		{"push origin --delete scratch/x/y", ""},
		{"push --force origin HEAD~1:refs/heads/feature/a", ""}, // only the server knows what is lost
		{"push origin HEAD:main", "push to refs/heads/main is not allowed by the policy: no rule allows it"},
		{"-c http.postBuffer=1000 push origin HEAD:main", "push to refs/heads/main is not allowed"},
		{"-c http.version=HTTP/1.1 -c http.postBuffer=1000 push origin HEAD:main", "push to refs/heads/main is not allowed"},
		{"push origin HEAD:refs/heads/feature/x/y", "creation of refs/heads/feature/x/y is not allowed"},
		{"push origin HEAD:refs/heads/Feature/x", "creation of refs/heads/Feature/x is not allowed"},
		{"push origin HEAD:refs/for/main", "creation of refs/for/main is not allowed"},
		{"push origin HEAD:refs/heads/feature/ok HEAD:main", "another ref of this push is not allowed"},
		{"push origin --delete feature/b", "deletion of refs/heads/feature/b is not allowed by the policy: no rule allows to delete it"},
		{"push origin --delete old", "deletion of refs/heads/old is not allowed"},
		{"push --mirror origin", "refs/heads/old is not allowed"},
	} {
		before := g.server.seen()
		out, err := g.git(t, strings.Fields(c.args)...)
		if (err == nil) != (c.want == "") || !strings.Contains(out, c.want) || c.want != "" && !strings.Contains(out, "remote: bawn:") {
			t.Errorf("git %s: %v\n%s", c.args, err, out)
		}
		if posts := strings.Count(strings.TrimPrefix(g.server.seen(), before), "POST"); c.want != "" && posts > 1 { // one: it asks whether it may push
			t.Errorf("git %s: the server got %s", c.args, strings.TrimPrefix(g.server.seen(), before))
		}
	}
	want := []string{"refs/heads/feature/a", "refs/heads/feature/b", "refs/heads/feature/chunked", "refs/heads/main", "refs/heads/old", "refs/heads/scratch/z", "refs/tags/v1"}
	if got := g.refs(t); !slices.Equal(got, want) {
		t.Errorf("the server has %q", got)
	}
	if got := g.local(t, filepath.Join(g.root, "own/app.git"), "log", "--format=%s", "main"); got != "first" {
		t.Errorf("main has %q", got)
	}
	g.Close()
	found := false
	for _, e := range readAll(t, g.path) {
		found = found || e.Verdict == audit.Denied && e.Path == "/own/app.git/git-receive-pack" && e.Status == 403 &&
			e.Suggest == "git:example.com/own/app:push=main" && strings.HasPrefix(e.Reason, "push to refs/heads/main is not allowed")
	}
	if !found {
		t.Error("the refusal is not in the log")
	}
}

// TestGitDenyRulesWin over a rule that allows every request to the host.
func TestGitDenyRulesWin(t *testing.T) {
	g := newGitLab(t, nil, "allow example.com", "deny git:example.com/OWN/app:push=main,release/**", "deny git:example.com/own/other")
	g.commit(t, "second")
	for args, want := range map[string]string{
		"push origin HEAD:refs/heads/feature/a":       "",
		"push origin HEAD:main":                       `refs/heads/main is not allowed by the policy: the rule "deny git:example.com/OWN/app:push=main,release/**" denies it`,
		"push origin HEAD:refs/heads/release/1/2":     "creation of refs/heads/release/1/2 is not allowed",
		"push origin --delete main":                   "deletion of refs/heads/main is not allowed",
		"fetch https://example.com/own/other.git":     `"deny git:example.com/own/other" denies it`,
		"fetch https://example.com/own/OTHER.GIT":     `"deny git:example.com/own/other" denies it`,
		"fetch https://example.com/own/other.git/foo": `"deny git:example.com/own/other" denies it`,
	} {
		if out, err := g.git(t, strings.Fields(args)...); (err == nil) != (want == "") || !strings.Contains(out, want) {
			t.Errorf("git %s: %v\n%s", args, err, out)
		}
	}
}

// TestGitWithASecret: git logs in with the placeholder, the server gets the token, and another
// account is refused.
func TestGitWithASecret(t *testing.T) {
	s := &secrets{list: []secret.Bound{{
		Secret:      secret.Secret{Name: "GH_TOKEN", For: []secret.Host{{Name: "example.com", Port: 443}}, Place: secret.Place{Where: secret.InBasic, Arg: "x-access-token"}},
		Placeholder: testStandIn,
		Value:       func(context.Context) (string, error) { return testSecret, nil },
	}}}
	g := newGitLab(t, s, "allow git:example.com/own/other:push=main")
	g.commit(t, "second")
	as := func(user string) string { return fmt.Sprintf("https://%s@example.com/own/other.git", user) }
	if out, err := g.git(t, "push", as("x-access-token:"+testStandIn), "HEAD:main"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := g.local(t, filepath.Join(g.root, "own/other.git"), "log", "-1", "--format=%s", "main"); got != "second" {
		t.Errorf("main has %q", got)
	}
	if out, err := g.git(t, "push", as("x-access-token:"+testStandIn), "HEAD:stolen"); err == nil || !strings.Contains(out, "refs/heads/stolen is not allowed") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, user := range []string{"x-access-token:of-the-attacker", "attacker:" + testStandIn} {
		before := strings.Count(g.server.seen(), "POST")
		out, err := g.git(t, "-c", "http.extraHeader=Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte(user)), "push", "https://example.com/own/other.git", "HEAD~1:main")
		if err == nil || strings.Count(g.server.seen(), "POST") != before {
			t.Errorf("%s: %v\n%s", user, err, out)
		}
	}
}
