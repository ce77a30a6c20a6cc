package engine

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// gitIn runs a script with git in a directory.
func gitIn(t *testing.T, dir, script string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	c := exec.CommandContext(t.Context(), "sh", "-ec", script)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always"}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// TestGitDirOf: what git itself makes is recognised, and both sides must name each other.
func TestGitDirOf(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	gitIn(t, top, `git init -q lib && git -C lib commit -q --allow-empty -m one
		git init -q main && cd main && git commit -q --allow-empty -m one && git worktree add -q ../tree && git submodule -q add "$PWD/../lib" libs/one && git commit -qm sub
		git clone -q --bare . ../bare.git && git -C ../bare.git worktree add -q ../of-bare && git init -q --separate-git-dir ../apart ../separate
		git worktree add -q inside && cp -r ../tree ../copied && mkdir ../loop ../stolen ../linked ../away
		echo 'gitdir: .git' >../loop/.git && echo "gitdir: $PWD/.git/worktrees/tree" >../stolen/.git
		ln -s "$PWD" ../link && echo "gitdir: $PWD/../link/.git/worktrees/tree" >../linked/.git && echo 'gitdir: /etc' >../away/.git`)
	at := func(p string) string { return filepath.Join(top, p) }
	for _, test := range []struct{ dir, git, worktree, what, fails string }{
		{dir: "tree", git: "main/.git", worktree: "tree", what: "a linked worktree of " + at("main")},
		{dir: "main/inside", git: "main/.git", worktree: "inside", what: "a linked worktree of " + at("main")},
		{dir: "of-bare", git: "bare.git", worktree: "of-bare", what: "a linked worktree of " + at("bare.git")},
		{dir: "main/libs/one", git: "main/.git/modules/libs/one", what: "a submodule of " + at("main")},
		{dir: "main", fails: "no file .git"},
		{dir: "loop", fails: "no file .git that leads to a repository"},
		{dir: "away", fails: "no file .git that leads to a repository"},
		{dir: "copied", fails: "is of another working tree, " + at("tree")},
		{dir: "stolen", fails: "is of another working tree, " + at("tree")},
		{dir: "linked", fails: "through a symbolic link"},
		{dir: "separate", fails: "core.worktree"},
	} {
		m, what, err := gitDirOf(at(test.dir))
		if test.fails != "" {
			if err == nil || !strings.Contains(err.Error(), test.fails) {
				t.Errorf("%s: %+v, %v, want %q", test.dir, m, err, test.fails)
			}
			continue
		}
		if want := (sandbox.Source{Host: at(test.git), Guest: at(test.git), Git: true, Worktree: test.worktree}); err != nil || m != want || what != test.what {
			t.Errorf("%s: %+v, %q, %v, want %+v", test.dir, m, what, err, want)
		}
	}

	yes, no := true, false
	share := func(c SpecChange, s *sandbox.Spec) {
		t.Helper()
		if err := c.setMounts(s); err != nil {
			t.Fatal(err)
		}
	}
	s := &sandbox.Spec{Name: "shop", Dir: at("tree"), Project: sandbox.Source{Host: at("tree"), Guest: at("tree")}}
	share(SpecChange{ShareGit: &yes}, s)
	share(SpecChange{ShareGit: &yes}, s)
	other := sandbox.Source{Host: "/x", Guest: "/x"}
	share(SpecChange{Mounts: &[]sandbox.Source{other}}, s)
	if len(s.Mounts) != 2 || s.Mounts[0] != other || s.Mounts[1].Worktree != "tree" {
		t.Errorf("mounts beside it: %+v", s.Mounts)
	}
	if err := checkGitDir(s, s.Mounts[1]); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(at("main/.git/worktrees/tree/gitdir"), []byte(at("elsewhere/.git")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := checkGitDir(s, s.Mounts[1]); ReasonOf(err) != GitDirUnusable {
		t.Errorf("a worktree that was moved: %v", err)
	}
	share(SpecChange{ShareGit: &no}, s)
	if len(s.Mounts) != 1 || !s.NoShareGit {
		t.Errorf("without it: %+v", s)
	}
	var bad *Error
	if err := (&SpecChange{ShareGit: &yes}).setMounts(s); !errors.As(err, &bad) || bad.Reason != GitDirUnusable {
		t.Errorf("a git directory that is not this project's: %v", err)
	}
}
