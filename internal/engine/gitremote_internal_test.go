package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRepositoryOfARemotesURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://github.com/own/app.git":              "github.com/own/app",
		"https://me:token@github.com/own/app":         "github.com/own/app",
		"https://GitHub.com:443/Own/App/":             "github.com/Own/App",
		"https://git.example.org:8443/team/a/b.git":   "git.example.org:8443/team/a/b",
		"git@github.com:own/app.git":                  "github.com/own/app",
		"github.com:/own/app.git":                     "github.com/own/app",
		"ssh://git@github.com/own/app.git":            "github.com/own/app",
		"ssh://git@github.com:22/own/app.git":         "github.com/own/app",
		"ssh://git@git.example.org:2222/team/app.git": "git.example.org:2222/team/app",
		"ssh://git@ssh.github.com:443/own/app.git":    "ssh.github.com/own/app",
		"ssh://git@git.example.org/~me/app":           "git.example.org/~me/app",
	} {
		if got, err := repositoryOf(url); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
	}
	for _, url := range []string{
		"", "/srv/git/app.git", "../app", "file:///srv/app.git", "http://github.com/own/app", "git://github.com/own/app", "work:own/app",
		"https://github.com", "https://github.com/", "https://github.com/own/*", "https://github.com/own/../app", "https://github.com/own/app?x", "https://github.com/own//app",
		"https://*.com/own/app", "git@github.com:own/app:push=**", "https://github.com/own/app:push=**", "https://github.com/own/app%0Aallow", "ext::sh -c x% y", "fd::7/x",
		"https://10.0.0.1/own/app", "git@github.com:own/app.git.git",
	} {
		if got, err := repositoryOf(url); err == nil {
			t.Errorf("%s: %q", url, got)
		}
	}
}

func TestRemoteURLOfTheHostsConfiguration(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".git"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, ".git/config")
	for _, c := range []struct{ config, want, why string }{
		{"[remote \"origin\"]\n\turl = https://a.test/o/r\n\tfetch = x\n", "https://a.test/o/r", ""},
		{"[remote \"Origin\"]\n\turl = https://a.test/o/r\n", "", "no such remote"},
		{"[remote \"origin\"]\n\tfetch = x\n", "", "no URL"},
		{"[remote \"origin\"]\n\turl = https://a.test/o/r\n\turl = https://b.test/o/r\n", "", "several"},
		{"[remote \"origin\"]\n\turl = https://a.test/o/r\n\tpushurl = https://b.test/o/r\n", "", "several"},
		{"[include]\n\tpath = ../other\n", "", "no such remote"},
		{"[remote \"origin\"\n", "", "config"},
		{"", "", "no such remote"},
	} {
		if err := os.WriteFile(file, []byte(c.config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "other"), []byte("[remote \"origin\"]\n\turl = https://c.test/o/r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := remoteURL(dir, "origin")
		if got != c.want || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%q: %q, %v", c.config, got, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../other", file); err != nil {
		t.Fatal(err)
	}
	if got, err := remoteURL(dir, "origin"); err == nil {
		t.Errorf("through a link: %q", got)
	}
}

// TestRemoteOfALinkedWorktree is that of its repository; a file .git that leads to another one's, which a
// guest could write, is not followed.
func TestRemoteOfALinkedWorktree(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"main/.git/objects/x", "main/.git/refs/x", "main/.git/HEAD"} {
		write(name, "")
	}
	write("main/.git/config", "[remote \"origin\"]\n\turl = https://a.test/o/r\n")
	write("main/.git/worktrees/tree/gitdir", filepath.Join(root, "tree/.git")+"\n")
	write("main/.git/worktrees/tree/commondir", "../..\n")
	write("main/.git/worktrees/tree/HEAD", "")
	for _, name := range []string{"tree", "other"} {
		write(name+"/.git", "gitdir: "+filepath.Join(root, "main/.git/worktrees/tree")+"\n")
	}
	if got, err := remoteURL(filepath.Join(root, "tree"), "origin"); err != nil || got != "https://a.test/o/r" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := remoteURL(filepath.Join(root, "other"), "origin"); err == nil {
		t.Errorf("of another working tree: %q", got)
	}
}
