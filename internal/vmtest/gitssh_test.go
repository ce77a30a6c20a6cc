//go:build vm

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh/knownhosts"

	"bawn.dev/bawn/internal/egress/gitssh/gitsshtest"
)

// gitServer serves own/app.git and own/other.git over SSH, each with a commit on main, to whom has the key of an
// ssh-agent at the socket that is returned.
func gitServer(t *testing.T) (s *gitsshtest.Server, port int, socket string) {
	t.Helper()
	signer, key := gitsshtest.NewKey(t)
	host, _ := gitsshtest.NewKey(t)
	s = &gitsshtest.Server{Root: t.TempDir(), Key: signer.PublicKey(), Host: host, Env: []string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_GLOBAL=/dev/null"}}
	s.Listen, port = listen(t, serverAddr+":0")
	go s.Serve(t)
	hostGit(t, s.Root, `for r in app other; do git init -q --bare -b main own/$r.git; done
git init -q -b main first; cd first; git commit -q --allow-empty -m first
for r in app other; do git push -q ../own/$r.git main; done`)
	return s, port, gitsshtest.Agent(t, key)
}

// hostGit runs a script of git commands on the host, and returns what it prints.
func hostGit(t *testing.T, dir, script string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-euc", script)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.test"}
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestGitOverSSH: in the guest, a project with an SSH remote is cloned, fetched and pushed to the branches of
// git:origin, with the key of the host's ssh-agent, and without any settings; git prints why another branch or another
// repository is refused. The guest gets no agent and no key. All that goes on after a suspension.
func TestGitOverSSH(t *testing.T) {
	s, port, socket := gitServer(t)
	dir := project(t, "gitssh")
	at := "git.test:" + strconv.Itoa(port)
	known := filepath.Join(base, "home/.ssh/known_hosts")
	if err := os.MkdirAll(filepath.Dir(known), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, known, knownhosts.Line([]string{at}, s.Host.PublicKey())+"\n")
	t.Cleanup(func() { os.RemoveAll(filepath.Dir(known)); os.Remove(filepath.Join(base, "state/bawn/ssh-ca.key")) })
	url := "ssh://git@" + at + "/own/app.git"
	hostGit(t, dir, "git init -q -b main .; git pull -q "+filepath.Join(s.Root, "own/app.git")+" main; git remote add origin "+url)
	r := bawnAt(t.Context(), dir, nil, []string{"SSH_AUTH_SOCK=" + socket}, "run", "--add-host", "git.test:"+serverAddr,
		"--allow", "git:origin:push=feature/*", "--allow", serverAddr+":"+strconv.Itoa(port), "--", "sh", "-euc", `
git config --global user.name a; git config --global user.email a@b.test
test -z "${SSH_AUTH_SOCK:-}"; test ! -e ~/.ssh/id_ed25519
git clone -q `+url+` /tmp/clone
git fetch -q origin
git commit -q --allow-empty -m second
git push -q origin HEAD:refs/heads/feature/one
! git push origin HEAD:main 2>&1
! git fetch ssh://git@`+at+`/own/other.git 2>&1
! ssh -p `+strconv.Itoa(port)+` git@git.test id 2>&1`)
	if r.code != 0 {
		t.Fatalf("%d\n%s%s%s", r.code, r.out, r.err, logs(dir))
	}
	for _, want := range []string{
		"remote: bawn: forbidden: push to refs/heads/main is not allowed by the policy", "[remote rejected] HEAD -> main",
		"bawn: forbidden: no rule allows to fetch from " + at + "/own/other", "bawn: forbidden: this server takes only git fetch and git push",
	} {
		if !strings.Contains(r.out, want) {
			t.Errorf("git does not say %q:\n%s", want, r.out)
		}
	}
	must(t, dir, "suspend")
	if r := bawnAt(t.Context(), dir, nil, []string{"SSH_AUTH_SOCK=" + socket}, "run", "--", "sh", "-euc", "git push -q origin HEAD:refs/heads/feature/two"); r.code != 0 {
		t.Errorf("%d\n%s%s", r.code, r.out, r.err)
	}
	if got := hostGit(t, filepath.Join(s.Root, "own/app.git"), "git for-each-ref --format='%(refname)'"); got != "refs/heads/feature/one\nrefs/heads/feature/two\nrefs/heads/main" {
		t.Errorf("the server has %s", got)
	}
	if commands, _, _ := s.Seen(); strings.Contains(commands, "other") || strings.Contains(commands, "id") {
		t.Errorf("the server was asked to run %s", commands)
	}
	log := must(t, dir, "net", "log", "--json")
	for _, want := range []string{`"method":"push","path":"/own/app.git"`, `"method":"fetch","path":"/own/other.git"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has no %s: %s", want, log)
		}
	}
}
