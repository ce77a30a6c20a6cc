package engine

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

func TestAuthorIsCleaned(t *testing.T) {
	for value, want := range map[string]string{
		"":                                "",
		"Ada Lovelace":                    "Ada Lovelace",
		"Zoë \"Z\" O'Hara":                `Zoë "Z" O'Hara`,
		" two\nlines \x1b[31m\t\xff end ": "two lines [31m end",
		strings.Repeat("ä", 500):          strings.Repeat("ä", 127),
	} {
		if got := oneLine(value); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// TestAuthorIsTheUsersOwn: it comes from the user's own configuration and what that includes, also on conditions about
// the project; not from a repository, and reading it writes nothing.
func TestAuthorIsTheUsersOwn(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	project := filepath.Join(home, "work", "project")
	spec := &sandbox.Spec{Project: sandbox.Source{Host: home + "/a fork's copy", Guest: project}}
	if got := gitAuthor(t.Context(), spec); got != (sandbox.Author{}) {
		t.Errorf("without a configuration: %q", got)
	}
	for name, text := range map[string]string{
		".gitconfig": "[trace2]\n\tnormalTarget = " + home + "/trace\n[user]\n\tname = Ada\n[include]\n\tpath = more\n[includeIf \"gitdir:~/work/\"]\n\tpath = at-work\n",
		"more":       "[user]\n\temail = ada@example.org\n",
		"at-work":    "[user]\n\temail = ada@work.example\n",
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q", project}, {"-C", project, "config", "user.name", "Mallory"}} {
		if out, err := exec.Command(git, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s, %v", out, err)
		}
	}
	_ = os.Remove(home + "/trace")
	t.Chdir(project)
	t.Setenv("GIT_DIR", project+"/.git")
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "user.name")
	t.Setenv("GIT_CONFIG_VALUE_0", "Eve")
	if got := gitAuthor(t.Context(), spec); got != (sandbox.Author{Name: "Ada", Email: "ada@work.example"}) {
		t.Errorf("%q", got)
	}
	if got := gitAuthor(t.Context(), &sandbox.Spec{Project: sandbox.Source{Guest: home}}); got.Email != "ada@example.org" {
		t.Errorf("in another directory: %q", got)
	}
	if err := os.WriteFile(project+"/.git/config", []byte("[broken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := gitAuthor(t.Context(), spec); got != (sandbox.Author{Name: "Ada", Email: "ada@example.org"}) {
		t.Errorf("in a repository that git does not read: %q", got)
	}
	if _, err := os.Stat(home + "/trace"); err == nil {
		t.Error("git wrote a trace")
	}
	xdg := home + "/xdg/git"
	if err := os.MkdirAll(xdg, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(home+"/.gitconfig", xdg+"/config"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", home+"/xdg")
	if got := gitAuthor(t.Context(), spec); got.Name != "Ada" {
		t.Errorf("from XDG_CONFIG_HOME: %q", got)
	}
	t.Setenv("PATH", home)
	if got := gitAuthor(t.Context(), spec); got != (sandbox.Author{}) {
		t.Errorf("without git: %q", got)
	}
}
