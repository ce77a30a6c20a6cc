//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWorktree: git works in the sandbox of a linked worktree, while the host commits in another one;
// and a person reviews, accepts and takes back what the guest made there.
func TestWorktree(t *testing.T) {
	top := filepath.Join(base, "home", "worktrees")
	dir := filepath.Join(top, "fix")
	sh := func(script string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "sh", "-ec", `mkdir -p "$0"; cd "$0"; export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
`+script, top).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	sh(`git init -q -b main shop; cd shop; echo one >f; git add f; git commit -qm one; git worktree add -q ../fix; git worktree add -q ../other`)
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "rm", "--force", "fix") })
	done := make(chan result, 1)
	go func() {
		// No other test has a machine of this kind, so a template would be in vain.
		done <- bawnAt(t.Context(), dir, nil, []string{"BAWN_TEMPLATES=off"}, "run", "--name", "fix", "--share-git", "--", "sh", "-euc", `git config user.name g; git config user.email g@example.org
for i in 1 2 3; do echo "$i" >>g; git add g; git commit -qm "guest $i"; done
test ! -e "$0/worktrees/other"; test ! -e "$0/index"; git fsck; git status --short
printf 'all:\n' >Makefile; mkdir .vscode; echo '{}' >.vscode/tasks.json; git rev-list --count HEAD`, filepath.Join(top, "shop", ".git"))
	}()
	sh(`cd other; for i in 1 2 3 4 5; do echo $i >h; git add h; git commit -qm "host $i"; done`)
	if r := <-done; r.code != 0 || !strings.HasSuffix(r.out, "4\n") || strings.Contains(r.err, "git will not work") || strings.Contains(r.err, "bawn review") {
		t.Fatalf("%+v", r)
	}
	if got := sh(`cd shop; git fsck --strict; git -C ../fix rev-list --count HEAD; git -C ../other rev-list --count HEAD; git -C ../fix status --short; git config --local user.name || echo none`); !strings.HasSuffix(got, "4\n6\n?? Makefile\nnone\n") {
		t.Errorf("the host has %q", got)
	}

	var r struct {
		Findings []struct{ Path, Class string }
		Kept     []struct{ Path, Diff string }
	}
	if err := json.Unmarshal([]byte(must(t, dir, "review", "--json")), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 || r.Findings[0].Path != "Makefile" || len(r.Kept) != 2 || r.Kept[0].Path != "config" && r.Kept[1].Path != "config" {
		t.Errorf("the review has %+v", r)
	}
	fails(t, dir, 125, "--yes", "accept", ".vscode")
	if got := must(t, dir, "accept", "--yes", ".vscode"); !strings.Contains(got, "accepted "+dir+"/.vscode/tasks.json\n") {
		t.Errorf("accept: %q", got)
	}
	// The guest and the host have one file again.
	if got := sh(`cat fix/.vscode/tasks.json; echo '{"host": 1}' >fix/.vscode/tasks.json`); got != "{}\n" {
		t.Errorf("on the host: %q", got)
	}
	if got := must(t, dir, "run", "--", "cat", ".vscode/tasks.json"); got != "{\"host\": 1}\n" {
		t.Errorf("the guest reads %q", got)
	}
}
