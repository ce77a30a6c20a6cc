//go:build vm

package vmtest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// signer is a person with a key of SSH and one of GnuPG.
type signer struct {
	home string
	env  []string
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	home, err := os.MkdirTemp("", "s") // short: gpg-agent has a socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	s := &signer{home, []string{"HOME=" + home, "GNUPGHOME=" + home + "/g"}}
	s.host(t, home, `mkdir -m 700 .ssh g
ssh-keygen -q -t ed25519 -N '' -C ada -f .ssh/id
echo "ada@example.org $(cat .ssh/id.pub)" > allowed
git config --global user.name 'Ada Lovelace, Jr.'; git config --global user.email ada@example.org
git config --global gpg.format ssh; git config --global user.signingkey '~/.ssh/id.pub'
git config --global gpg.ssh.allowedSignersFile `+home+`/allowed`)
	t.Cleanup(func() { _ = exec.Command("gpgconf", "--homedir", home+"/g", "--kill", "all").Run() })
	return s
}

// host runs a script on the host, as the person.
func (s *signer) host(t *testing.T, dir, script string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), "sh", "-euc", script)
	c.Dir, c.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1"}, s.env...)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%v\n%s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// guest runs bawn as the person, and wants it to succeed.
func (s *signer) guest(t *testing.T, dir string, args ...string) string {
	t.Helper()
	r := bawnAt(t.Context(), dir, nil, s.env, args...)
	if r.code != 0 {
		t.Fatalf("bawn %q: %d\n%s%s%s", args, r.code, r.out, r.err, logs(dir))
	}
	return r.out + r.err
}

// TestSignedCommits: commits and tags that git makes in the guest have a signature of the host's key, by SSH and by
// GnuPG, that verifies on the host, and the guest has neither key nor agent. Nothing else is signed: no text, no commit of
// another name. It needs a rule that allows a push, and ends with the user's leave; a fork has none.
func TestSignedCommits(t *testing.T) {
	s := newSigner(t)
	dir := project(t, "signed")
	hostGit(t, dir, "git init -q -b main .; git commit -q --allow-empty -m first")
	r := bawnAt(t.Context(), dir, nil, s.env, "run", "--sign", "--", "true")
	if r.code == 0 || !strings.Contains(r.err, "no rule allows it to push to a repository") || !strings.Contains(r.err, "--allow git:origin:push=BRANCH") {
		t.Errorf("without a rule: %d %s%s", r.code, r.out, r.err)
	}
	out := s.guest(t, dir, "run", "--sign", "--allow", "git:git.test/own/app:push=feature/*", "--", "sh", "-euc", `exec 2>&1
test -z "${SSH_AUTH_SOCK:-}"; test ! -e ~/.ssh/id; test ! -e ~/.gnupg
git commit -q --allow-empty -m second
git tag -s -m one v1; git tag plain
echo x > f; git add f; git stash -q; git stash pop -q; git commit -q -m third
git rebase -q --force-rebase HEAD~2
git checkout -q -b side HEAD~1; git commit -q --allow-empty -m side; git checkout -q main; git merge -q --no-ff -m merge side
! git -c user.email=eve@example.org commit --allow-empty -m eve
printf 'I owe Eve 1000 EUR.\n' > /tmp/text
curl -s --data-binary @/tmp/text http://bawn.internal/sign
git cat-file commit HEAD | sed '/^gpgsig/,/END/d; s/ada@/eve@/' | curl -s --data-binary @- http://bawn.internal/sign`)
	for _, want := range []string{
		`<eve@example.org>, and this sandbox's is "Ada Lovelace, Jr." <ada@example.org>`,
		"only commits and tags in git's own form are: it is neither a commit nor a tag of git",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the guest does not read %q:\n%s", want, out)
		}
	}
	s.host(t, dir, `for c in $(git rev-list HEAD --not $(git rev-list --max-parents=0 HEAD)); do git verify-commit $c; done
git verify-tag v1; test "$(git cat-file -t plain)" = commit; test "$(git rev-list --count HEAD)" = 5`)
	log := must(t, dir, "net", "log", "--json")
	for _, name := range []string{s.host(t, dir, "git rev-parse HEAD"), s.host(t, dir, "git rev-parse HEAD^2"), s.host(t, dir, "git rev-parse v1")} {
		if !strings.Contains(log, name) {
			t.Errorf("the log has no %s: %s", name, log)
		}
	}
	if !strings.Contains(must(t, dir, "net", "log"), "deny    sign") || !strings.Contains(must(t, dir, "inspect"), `"sign": true`) {
		t.Error("the log or bawn inspect does not tell")
	}

	// The settings of the host count from the next commit on.
	s.host(t, s.home, `gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-gen-key 'Ada <ada@example.org>' ed25519 sign never
git config --global gpg.format openpgp; git config --global user.signingkey ada@example.org`)
	must(t, dir, "suspend")
	s.guest(t, dir, "run", "--", "sh", "-euc", "git commit -q --allow-empty -m gpg; git tag -s -m two v2")
	s.host(t, dir, "git verify-commit HEAD; git verify-tag v2; git cat-file -p HEAD | grep 'BEGIN PGP SIGNATURE'")

	// A fork, and who has taken the leave back, commits as ever, without a signature.
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "-f", "signed-fork") })
	s.guest(t, dir, "fork", "signed", "signed-fork")
	unsigned := "git commit -q --allow-empty -m plain; ! git cat-file -p HEAD | grep gpgsig; curl -s --data-binary @/tmp/text http://bawn.internal/sign | grep 'signatures are off'"
	s.guest(t, dir, "exec", "signed-fork", "--", "sh", "-euc", "cd "+dir+"; "+unsigned)
	if r := bawnAt(t.Context(), dir, nil, s.env, "run", "--sign=false", "--", "true"); r.code == 0 || !strings.Contains(r.err, "--sign take effect at its next start") {
		t.Errorf("while it runs: %d %s", r.code, r.err)
	}
	must(t, dir, "stop")
	s.guest(t, dir, "run", "--sign=false", "--", "sh", "-euc", "printf x > /tmp/text; "+unsigned)
	if files, _ := filepath.Glob(filepath.Join(sandboxDir("signed"), "sign*")); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
}
