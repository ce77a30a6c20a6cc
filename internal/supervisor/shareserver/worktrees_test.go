package shareserver

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
)

// TestOtherWorktrees: the folder of a working tree that no share holds is the host's alone, whatever
// form the path in it has.
func TestOtherWorktrees(t *testing.T) {
	root, mounted := t.TempDir(), t.TempDir()
	for name, tree := range map[string]string{
		"inside": root + "/wt/.git", "mounted": mounted + "/.git", "outside": "/elsewhere/wt/.git", "up": root + "/../wt/.git",
		"relative": "../../../../wt/.git", "relative-inside": "../../../wt/.git", "beside": root + "2/.git", "empty": "",
	} {
		folder := filepath.Join(root, ".git/worktrees", name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, "gitdir"), []byte(tree+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, odd := range []string{"fifo", "link", "none"} {
		if err := os.Mkdir(filepath.Join(root, ".git/worktrees", odd), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, ".git/worktrees/fifo/gitdir"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside/gitdir", filepath.Join(root, ".git/worktrees/link/gitdir")); err != nil {
		t.Fatal(err)
	}
	spec := &sandbox.Spec{Project: sandbox.Source{Host: root, Guest: root}, Mounts: []sandbox.Source{{Host: mounted, Guest: "/mnt"}}}
	want := []string{".git/worktrees/beside", ".git/worktrees/outside", ".git/worktrees/relative", ".git/worktrees/up"}
	if got := otherWorktrees(root, spec); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := otherWorktrees(t.TempDir(), spec); got != nil {
		t.Errorf("of no repository: %q", got)
	}
}
