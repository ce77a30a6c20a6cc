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
	for list, want := range map[string]sandbox.Author{
		"": {},
		"user.name\nAda Lovelace\x00user.email\nada@example.org\x00":  {Name: "Ada Lovelace", Email: "ada@example.org"},
		"user.name\nfirst\x00user.name\nZoë \"Z\" O'Hara\x00":         {Name: `Zoë "Z" O'Hara`},
		"user.name\n two\nlines \x1b[31m\t\xff end \x00user.name2\nx": {Name: "two lines [31m end"},
		"user.email\x00": {},
		"user.name\n" + strings.Repeat("ä", 500) + "\x00": {Name: strings.Repeat("ä", 127)},
		"user.signingkey\nsecret\x00":                     {},
	} {
		if got := parseAuthor(list); got != want {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
}

// TestAuthorIsTheUsersOwn: it comes from the user's own configuration and what that includes,
// not from a repository, and reading it writes nothing.
func TestAuthorIsTheUsersOwn(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip(err)
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	if got := gitAuthor(t.Context()); got != (sandbox.Author{}) {
		t.Errorf("without a configuration: %q", got)
	}
	for name, text := range map[string]string{
		".gitconfig": "[trace2]\n\tnormalTarget = " + home + "/trace\n[user]\n\tname = Ada\n[include]\n\tpath = more\n",
		"more":       "[user]\n\temail = ada@example.org\n",
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	project := filepath.Join(home, "project")
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
	if got := gitAuthor(t.Context()); got != (sandbox.Author{Name: "Ada", Email: "ada@example.org"}) {
		t.Errorf("%q", got)
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
	if got := gitAuthor(t.Context()); got.Name != "Ada" {
		t.Errorf("from XDG_CONFIG_HOME: %q", got)
	}
	t.Setenv("PATH", home)
	if got := gitAuthor(t.Context()); got != (sandbox.Author{}) {
		t.Errorf("without git: %q", got)
	}
}
