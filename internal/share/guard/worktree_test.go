package guard

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTargetsOfAWorktree: what the configuration of a linked worktree's repository runs is guarded
// in the worktree.
func TestTargetsOfAWorktree(t *testing.T) {
	top := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
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
