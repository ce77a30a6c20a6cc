//go:build vm

package vmtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOddProject: a project's own name may have any character, another share may lie in it,
// and a person learns that its repository is elsewhere.
func TestOddProject(t *testing.T) {
	home := filepath.Join(base, "home")
	dir, extra := filepath.Join(home, "it's \"odd\" $(x) `y` \\ %s,;=# \n ü 日"), filepath.Join(home, "odd-extra")
	for _, d := range []string{dir + "/in side", dir + "/mount point", extra + "/.git/worktrees/odd", extra + "/.git/objects", extra + "/.git/refs"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(extra, "file"), "extra\n")
	writeFile(t, filepath.Join(extra, ".git", "HEAD"), "ref: refs/heads/main\n")
	writeFile(t, filepath.Join(dir, "project.yaml"), "own\n")
	writeFile(t, filepath.Join(dir, ".git"), "gitdir: "+extra+"/.git/worktrees/odd\n")
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "odd") })
	// No other test has a machine of this kind, so a template would be in vain.
	r := bawnAt(t.Context(), dir, nil, []string{"BAWN_TEMPLATES=off"}, "run", "--name", "odd", "--memory", "1G", "--mount", extra+":"+dir+"/mount point:ro", "--", "sh", "-euc", `test "$PWD" = "$0"
echo made > made; cat project.yaml "mount point/file"
git init -q "in side"; cd "in side"; sudo env -u SUDO_UID git status --short; sudo env -u SUDO_UID git rev-parse --is-inside-work-tree`, dir)
	if r.code != 0 || r.out != "own\nextra\ntrue\n" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.err, "a linked worktree of "+extra+",") || !strings.Contains(r.err, "--mount "+extra+"/.git ") {
		t.Errorf("nothing is said of the repository: %q", r.err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "made")); string(b) != "made\n" {
		t.Errorf("on the host: %q, %v", b, err)
	}
	if got := must(t, filepath.Join(dir, "in side"), "run", "--", "pwd"); got != dir+"/in side\n" {
		t.Errorf("from a subdirectory: %q", got)
	}

	latin1 := filepath.Join(home, "l\xe9gume")
	if err := os.Mkdir(latin1, 0o755); err != nil {
		t.Fatal(err)
	}
	fails(t, latin1, 125, "not UTF-8", "run", "--name", "latin", "--", "true")
	if got := must(t, home, "ls", "--quiet"); strings.Contains(got, "latin") {
		t.Errorf("a sandbox was made: %q", got)
	}
}
