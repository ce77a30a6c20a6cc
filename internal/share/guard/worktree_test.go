package guard

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// put writes a file, and makes the directories above it.
func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// TestTargetsOfAWorktree: what the configuration of a linked worktree's repository runs is guarded
// in the worktree.
func TestTargetsOfAWorktree(t *testing.T) {
	top := t.TempDir()
	write := func(name, text string) { t.Helper(); put(t, filepath.Join(top, name), text, 0o644) }
	write("tree/.git", "gitdir: ../main/.git/worktrees/tree\n")
	write("main/.git/worktrees/tree/commondir", "../..\n")
	write("main/.git/config", "[core]\n\thooksPath = build/hooks\n")
	write("main/.git/worktrees/tree/config.worktree", "[core]\n\tfsmonitor = tools/watch\n")
	write("tree/tools/watch", "x")
	guarded, _ := Targets(filepath.Join(top, "tree"))
	for _, want := range []string{"build/hooks", "tools/watch"} {
		if !slices.Contains(guarded, want) {
			t.Errorf("%s is not guarded: %s", want, strings.Join(guarded, " "))
		}
	}
	write("loop/.git", "gitdir: .git\n")
	write("odd/.git", "nonsense")
	write("pipes/.git", "gitdir: common")
	write("pipe/file", "")
	write("pipes/common/file", "")
	for _, pipe := range []string{"pipe/.git", "pipes/common/commondir", "pipes/common/config"} { // nobody writes to them
		if err := unix.Mkfifo(filepath.Join(top, pipe), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"loop", "odd", "pipe", "pipes"} {
		if guarded, _ := Targets(filepath.Join(top, dir)); len(guarded) != 0 {
			t.Errorf("%s: %v", dir, guarded)
		}
	}
}

// TestAttackTargetsOfOtherWorkingTrees: what git runs in a repository below the project, in a linked working tree, or in
// the repository that the project is a directory of, is guarded.
func TestAttackTargetsOfOtherWorkingTrees(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	top := t.TempDir()
	write := func(name, text string) { t.Helper(); put(t, filepath.Join(top, name), text, 0o755) }
	write(".git/config", "[core]\n\thooksPath = project/ci/hooks\n\tfsmonitor = ./project/watch\n")
	write("project/watch", "")
	write("project/a/inner/.git/config", "[core]\n\thooksPath = ../hooks\n[diff]\n\texternal = bin/diff\n")
	write("project/a/inner/bin/diff", "")
	write("project/a/inner/.git/hooks/pre-commit", "exec ./check.sh\n")
	write("project/a/inner/check.sh", "")
	deep := "project/1/2/3/4/5/6/7/8/9/tree"
	write("project/a/inner/.git/worktrees/tree/gitdir", filepath.Join(top, deep, ".git")+"\n")
	write("project/a/inner/.git/worktrees/tree/commondir", "../..\n")
	write("project/a/inner/.git/worktrees/gone/gitdir", "/nowhere/.git\n")
	write(deep+"/.git", "gitdir: "+top+"/project/a/inner/.git/worktrees/tree\n")
	write(deep+"/bin/diff", "")
	write("project/sub/.git", "gitdir: ../../.git/modules/sub\n")
	write(".git/modules/sub/config", "[core]\n\thooksPath = h\n")
	write("project/node_modules/x/.git/config", "[core]\n\thooksPath = no\n")
	guarded, _ := Targets(filepath.Join(top, "project"))
	for _, want := range []string{"ci/hooks", "watch", "a/hooks", "a/inner/bin/diff", "a/inner/check.sh", "1/2/3/4/5/6/7/8/9/tree/bin/diff", "sub/h"} {
		if !slices.Contains(guarded, want) {
			t.Errorf("%s is not guarded: %q", want, guarded)
		}
	}
	if slices.Contains(guarded, "node_modules/x/no") {
		t.Errorf("node_modules was looked at: %q", guarded)
	}
}
