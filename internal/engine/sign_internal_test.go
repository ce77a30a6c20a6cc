package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/policy"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// setGit sets values of the user's git.
func setGit(t *testing.T, values ...string) {
	t.Helper()
	for i := 0; i < len(values); i += 2 {
		if out, err := exec.CommandContext(t.Context(), "git", "config", "--global", values[i], values[i+1]).CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
	}
}

// TestSigningIsCheckedAtAStart: what is missing on the host is an error that says what to set, as is the lack of a rule
// that allows a push.
func TestSigningIsCheckedAtAStart(t *testing.T) {
	for _, program := range []string{"git", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	e, dir := newProject(t)
	d, err := e.sandboxes.Create(&sandbox.Spec{ID: "1", Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	spec := &sandbox.Spec{Name: "shop", Dir: dir}
	check := func(reason Reason, want string) {
		t.Helper()
		err := e.checkSigning(t.Context(), spec)
		if ReasonOf(err) != reason || reason != "" && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %q; want %q, %q", err, ReasonOf(err), reason, want)
		}
	}
	check("", "") // nobody asked for it
	spec.Sign = true
	check(SigningNotSetUp, "git config --global user.name NAME")
	setGit(t, "user.name", "Ada")
	check(SigningNotSetUp, "git config --global user.email ADDRESS")
	setGit(t, "user.email", "ada@example.org", "gpg.format", "ssh")
	check(SigningNotSetUp, "git config --global user.signingkey")
	home := filepath.Dir(dir)
	if out, err := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(home, ".ssh/id")).CombinedOutput(); err != nil {
		t.Fatalf("%s, %v", out, err)
	}
	setGit(t, "user.signingkey", "~/.ssh/id.pub")
	check(SigningNoRepository, "no rule allows it to push to a repository")
	for text, reason := range map[string]Reason{
		"allow git:github.com/own/app:push=main\n":                                          "",
		"allow git:github.com/own/app:push=**\ndeny git:github.com/own/app:push=main\n":     "",
		"allow github.com\nallow git:github.com/own/app\nallow github:own/app\n":            SigningNoRepository,
		"allow git:github.com/own/app:push=main\ndeny git:github.com/own/app:push=**\n":     SigningNoRepository,
		"allow git:github.com/own/app:push=main\ndeny github.com\n":                         SigningNoRepository,
		"allow git:github.com/own/app:push=main\nallow git:github.com/own/app:push=*x[\n\n": RulesSyntax,
	} {
		if err := store.WriteRules(d.File(store.PolicyFile), []byte(text)); err != nil {
			t.Fatal(err)
		}
		check(reason, "")
	}
	_ = os.Remove(d.File(store.PolicyFile))
	if _, err := e.ChangeRules(t.Context(), Scope{All: true}, RuleChange{Action: policy.Allow, Rules: []string{"git:github.com/own/app:push=main"}}); err != nil {
		t.Fatal(err)
	}
	check("", "") // a rule for all sandboxes
	setGit(t, "gpg.ssh.program", "/opt/1Password/op-ssh-sign")
	check(SigningNotSetUp, "git config --global --unset gpg.ssh.program")
	setGit(t, "gpg.ssh.program", "ssh-keygen")
	check("", "")
	spec.NoGitIdentity = true
	check(SigningNotSetUp, "--no-git-identity=false")
	spec.Builder = true
	check("", "") // nothing is committed there
}

// TestSignIsForOneSandbox: the setting stays until it is taken back, and takes effect at a start. A fork has it not, a
// snapshot does not bring it back, and no project can ask for it.
func TestSignIsForOneSandbox(t *testing.T) {
	e, dir := newProject(t)
	spec, err := e.newSpec("box", dir, &SpecChange{Sign: p(true)})
	if err != nil || !spec.Sign {
		t.Fatal(spec, err)
	}
	if _, err := e.changeSpec(spec, &SpecChange{}, sandbox.Stopped); err != nil || !spec.Sign {
		t.Errorf("after a command that does not say: %v, %v", spec.Sign, err)
	}
	if fork := (&ForkRequest{}).specOf(spec, "fork"); fork.Sign || !spec.Sign {
		t.Errorf("a fork has %v, the original %v", fork.Sign, spec.Sign)
	}
	d, err := e.sandboxes.Create(spec)
	if err != nil {
		t.Fatal(err)
	}
	s := enginetest.Keep(t, d, "one", "disk")
	for _, now := range []bool{true, false} {
		is := *spec
		is.Sign = now
		if err := d.WriteSpec(&is); err != nil {
			t.Fatal(err)
		}
		if got := restoredSpec(d, s); got.Sign != now || !s.Meta.Spec.Sign {
			t.Errorf("the sandbox has %v, restored %v", now, got.Sign)
		}
	}
	c := SpecChange{Sign: p(false)}
	if c.empty() {
		t.Error("it counts as no change")
	}
	if changed, err := e.changeSpec(spec, &c, sandbox.Running); err != nil || spec.Sign || !slices.Equal(changed, []string{"sign"}) {
		t.Errorf("taken back: %v, %q, %v", spec.Sign, changed, err)
	}
	if _, err := project.Parse("f", []byte("sign: true\n")); err == nil || !strings.Contains(err.Error(), `unknown key "sign"`) {
		t.Errorf("bawn.yaml: %v", err)
	}
}
