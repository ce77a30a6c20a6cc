package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

func TestGitLink(t *testing.T) {
	for text, want := range map[string]gitLink{
		"gitdir: /src/shop/.git/worktrees/fix\n":    {"/src/shop/.git/worktrees/fix", "/src/shop/.git", "/src/shop", "a linked worktree"},
		"gitdir: ../shop/.git/worktrees/fix\r\n":    {"/src/shop/.git/worktrees/fix", "/src/shop/.git", "/src/shop", "a linked worktree"},
		"gitdir: /srv/bare.git/worktrees/fix":       {"/srv/bare.git/worktrees/fix", "/srv/bare.git", "/srv/bare.git", "a linked worktree"},
		"gitdir: ../.git/modules/libs/one\n":        {"/src/.git/modules/libs/one", "/src/.git/modules/libs/one", "/src", "a submodule"},
		"gitdir: /elsewhere/a b \"ü\"\n":            {"/elsewhere/a b \"ü\"", "/elsewhere/a b \"ü\"", "/elsewhere/a b \"ü\"", "a working tree"},
		"gitdir: /worktrees/x\n":                    {"/worktrees/x", "/worktrees/x", "/worktrees/x", "a working tree"},
		"gitdir: \n":                                {},
		"":                                          {},
		"gitdir:/src\n":                             {},
		"gitdir: /src\n[core]\nfsmonitor = /evil\n": {},
		"gitdir: /src\x00\n":                        {},
		" gitdir: /src\n":                           {},
	} {
		got, ok := parseGitLink("/src/fix", text)
		if ok != (want.dir != "") || ok && got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, ok, want)
		}
	}
}

// makeRepository makes what git asks of a repository.
func makeRepository(t *testing.T, dir string) {
	t.Helper()
	err := errors.Join(os.MkdirAll(dir+"/objects", 0o755), os.MkdirAll(dir+"/refs", 0o755), os.WriteFile(dir+"/HEAD", []byte("ref: refs/heads/main\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

// TestRepositoryOutside: a new sandbox's start tells which directory git lacks, if it does.
func TestRepositoryOutside(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string) string { return filepath.Join(root, p) }
	for _, d := range []string{"shop/.git/worktrees/fix", "shop/.git/modules/lib", "shop/lib", "fix", ".ssh", "worktrees/x", "me/.git/modules/x"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"shop/.git", "shop/.git/modules/lib"} {
		makeRepository(t, at(d))
	}
	source := func(dir string) sandbox.Source { return sandbox.Source{Host: at(dir), Guest: at(dir)} }
	worktree := "gitdir: " + at("shop/.git/worktrees/fix") + "\n"
	for name, c := range map[string]struct {
		dir, link string // the project, and its file .git
		mounts    []sandbox.Source
		path, say string // of the notice; "" for none
	}{
		"a worktree":              {"fix", worktree, nil, "shop/.git", "a linked worktree of " + at("shop") + ","},
		"a worktree, shared":      {"fix", worktree, []sandbox.Source{source("shop/.git")}, "", ""},
		"its project is shared":   {"fix", worktree, []sandbox.Source{source("shop")}, "", ""},
		"shared at another place": {"fix", worktree, []sandbox.Source{{Host: at("shop"), Guest: "/mnt"}}, "shop/.git", "a linked worktree"},
		"only a part is shared":   {"fix", worktree, []sandbox.Source{source("shop/.git/worktrees/fix")}, "shop/.git", "a linked worktree"},
		"a submodule":             {"shop/lib", "gitdir: ../.git/modules/lib\n", nil, "shop/.git/modules/lib", "a submodule of " + at("shop") + ","},
		"inside the project":      {"fix", "gitdir: .bare\n", nil, "", ""},
		"it names keys":           {"fix", "gitdir: ../.ssh\n", nil, "", ""},
		"it names a home":         {"fix", "gitdir: ../worktrees/x\n", nil, "", ""},
		"it names another's part": {"fix", "gitdir: ../me/.git/modules/x\n", nil, "", ""},
		"it names nothing":        {"fix", "gitdir: /no/such/place\n", nil, "", ""},
		"it names a file":         {"fix", "gitdir: /etc/passwd\n", nil, "", ""},
		"a link":                  {"fix", "link", nil, "", ""},
		"a long file":             {"fix", worktree + strings.Repeat("\n", maxGitLink), nil, "", ""},
		"no repository":           {"fix", "", nil, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := at(c.dir + "/.git")
			t.Cleanup(func() { os.Remove(file) })
			var err error
			switch c.link {
			case "":
			case "link":
				if err = os.WriteFile(at("real"), []byte(worktree), 0o644); err == nil {
					err = os.Symlink(at("real"), file)
				}
			default:
				err = os.WriteFile(file, []byte(c.link), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if name == "inside the project" {
				if err := os.MkdirAll(at("fix/.bare"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			var got []Notice
			e := &Engine{events: func(ev Event) { got = append(got, ev.(Notice)) }}
			e.warnGitLink(&sandbox.Spec{Name: "box", Project: source(c.dir), Mounts: c.mounts})
			switch {
			case c.path == "":
				if len(got) != 0 {
					t.Errorf("%+v", got)
				}
			case len(got) != 1 || got[0].Reason != RepositoryOutside || got[0].Path != at(c.path) || !strings.Contains(got[0].Text, c.say):
				t.Errorf("%+v", got)
			}
		})
	}
}
