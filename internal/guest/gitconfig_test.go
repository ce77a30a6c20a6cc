package guest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/wire"
)

// gitTest has the files of one guest and the host's git to read them.
type gitTest struct {
	*testing.T
	git string
	gitSettings
}

func newGitTest(t *testing.T, system string) *gitTest {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	g := &gitTest{T: t, git: git, gitSettings: gitSettings{system: filepath.Join(dir, "etc/gitconfig"), own: filepath.Join(dir, "run/git \"config\"")}}
	if system != "" {
		if err := os.Mkdir(filepath.Dir(g.system), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(g.system, []byte(system), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// config runs git config on the system's configuration.
func (g *gitTest) config(args ...string) string {
	g.Helper()
	c := exec.Command(g.git, append([]string{"config", "--system", "--includes"}, args...)...)
	c.Env = append(os.Environ(), "GIT_CONFIG_SYSTEM="+g.system)
	out, _ := c.Output() // a value that is missing is an error
	return string(out)
}

func (g *gitTest) do(err error) {
	g.Helper()
	if err != nil {
		g.Fatal(err)
	}
}

// TestTrustRepositories: git reads what the agent says beside what the file had.
func TestTrustRepositories(t *testing.T) {
	g := newGitTest(t, "[core]\n\teditor = vi")
	dirs := []string{"/src/shop", "/a \"quoted\" \\ name\nof two lines; # no comment"}
	for range 2 {
		for _, dir := range dirs {
			g.do(g.trust(dir))
		}
	}
	want := ""
	for _, dir := range dirs {
		want += dir + "\x00" + dir + "/*\x00"
	}
	if out := g.config("-z", "--get-all", "safe.directory"); out != want {
		t.Errorf("git reads %q, want %q", out, want)
	}
	if out := g.config("core.editor"); out != "vi\n" {
		t.Errorf("the editor is %q", out)
	}
}

// TestWorktreesOfTheHostSurviveGC: a worktree that the guest does not see is none that was
// removed.
func TestWorktreesOfTheHostSurviveGC(t *testing.T) {
	g := newGitTest(t, "")
	g.do(g.trust("/src"))
	dir := t.TempDir()
	run := func(args ...string) string {
		c := exec.Command(g.git, append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		c.Dir, c.Env = dir, append(os.Environ(), "GIT_CONFIG_SYSTEM="+g.system)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %s, %v", args, out, err)
		}
		return string(out)
	}
	away := filepath.Join(t.TempDir(), "away")
	run("init", "-q")
	run("commit", "-q", "--allow-empty", "-m", "x")
	run("worktree", "add", "-q", away)
	g.do(os.RemoveAll(away))
	long := time.Now().AddDate(-1, 0, 0)
	for _, file := range []string{"gitdir", "index", "."} {
		g.do(os.Chtimes(filepath.Join(dir, ".git/worktrees/away", file), long, long))
	}
	run("gc", "-q")
	if out := run("worktree", "list"); !strings.Contains(out, away) {
		t.Errorf("git forgot it: %s", out)
	}
}

// TestAuthorOfCommits: the host's author is read, the next one replaces it, and none removes it.
func TestAuthorOfCommits(t *testing.T) {
	g := newGitTest(t, "")
	for _, a := range []wire.Author{
		{Name: "Ada Lovelace", Email: "ada@example.org"},
		{Name: `Zoë "Z" \ O'Hara; #1 [core]`},
		{Email: "x@example.org"},
		{},
	} {
		g.do(g.identify(a, false))
		g.do(g.trust("/src"))
		name, email := g.config("-z", "user.name"), g.config("-z", "user.email")
		if a.Name != "" {
			a.Name += "\x00"
		}
		if a.Email != "" {
			a.Email += "\x00"
		}
		if name != a.Name || email != a.Email {
			t.Errorf("git reads %q and %q, want %q", name, email, a)
		}
	}
}

// TestGitConfigOfTheAdministrator: what `git config --system` has set in the guest prevails,
// and stays over the next start, which knows nothing of the last.
func TestGitConfigOfTheAdministrator(t *testing.T) {
	g := newGitTest(t, "")
	ada := wire.Author{Name: "Ada", Email: "ada@example.org"}
	g.do(g.trust("/src"))
	g.do(g.identify(ada, false))
	g.config("user.name", "Agent")
	g.config("--add", "safe.directory", "*")
	next := &gitSettings{system: g.system, own: g.own}
	g.do(os.Remove(g.own)) // /run is empty
	g.do(next.identify(ada, false))
	g.do(next.trust("/src"))
	if name, email := g.config("user.name"), g.config("user.email"); name != "Agent\n" || email != "ada@example.org\n" {
		t.Errorf("the author is %q, %q", name, email)
	}
	if out := g.config("--get-all", "safe.directory"); out != "/src\n/src/*\n*\n" {
		t.Errorf("safe: %q", out)
	}
	if b, err := os.ReadFile(g.system); err != nil || len(b) > 300 {
		t.Errorf("the file grows: %q, %v", b, err)
	}
}

// TestSigningOfCommits: git is told of the agent's programs while the host signs, and no longer after that. A tag that
// is a mere name stays one.
func TestSigningOfCommits(t *testing.T) {
	g := newGitTest(t, "")
	ada := wire.Author{Name: "Ada", Email: "ada@example.org"}
	for _, sign := range []bool{true, false, true} {
		g.do(g.identify(ada, sign))
		for key, want := range map[string]string{
			"commit.gpgsign": "true", "tag.forcesignannotated": "true", "gpg.format": "openpgp",
			"gpg.program": "/run/bawn/sign/bawn-sign-gpg", "gpg.openpgp.program": "/run/bawn/sign/bawn-sign-gpg", "gpg.x509.program": "/run/bawn/sign/bawn-sign-gpgsm",
			"gpg.ssh.program": "/run/bawn/sign/bawn-sign-ssh", "gpg.ssh.defaultkeycommand": "/run/bawn/sign/bawn-sign-ssh --key",
			"tag.gpgsign": "", "user.signingkey": "",
		} {
			if !sign {
				want = ""
			}
			if got := strings.TrimSpace(g.config(key)); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		if g.config("user.name") != "Ada\n" {
			t.Error("no author")
		}
	}
}
