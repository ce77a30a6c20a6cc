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

// worktreeGit runs git with an identity, and waits for locks that the other side holds: git waits a
// tenth of a second for that of a branch (git-config(1), core.filesRefLockTimeout).
const worktreeGit = `export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*' GIT_CONFIG_KEY_1=core.filesRefLockTimeout GIT_CONFIG_VALUE_1=60000 GIT_CONFIG_KEY_2=core.packedRefsTimeout GIT_CONFIG_VALUE_2=60000 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
`

// TestWorktree: git works in the sandboxes of two linked worktrees at the same time, while the host
// commits in the main one; and a person reviews, accepts and takes back what a guest made there.
func TestWorktree(t *testing.T) {
	top := filepath.Join(base, "home", "worktrees")
	dir := filepath.Join(top, "fix")
	sh := func(script string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "sh", "-ec", `mkdir -p "$0"; cd "$0"; `+worktreeGit+script, top).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	sh(`git init -q -b main shop; cd shop; echo one >f; git add f; git commit -qm one; git worktree add -q ../fix; git worktree add -q ../other`)
	guests := map[string]string{ // worktree, and what its guest does besides
		"fix":   `printf 'all:\n' >Makefile; mkdir .vscode; echo '{}' >.vscode/tasks.json`,
		"other": `:`,
	}
	done := make(chan result, len(guests))
	for name, more := range guests {
		t.Cleanup(func() { bawnAt(context.Background(), filepath.Join(top, name), nil, nil, "rm", "--force", name) })
		go func() {
			// No other test has a machine of this kind, so a template would be in vain.
			done <- bawnAt(t.Context(), filepath.Join(top, name), nil, []string{"BAWN_TEMPLATES=off"}, "run", "--name", name, "--share-git", "--", "sh", "-euc", worktreeGit+`
# Both guests write the one config.lock, for which git does not wait.
n=0; until git config user.name "$1" 2>err; do grep -q 'could not lock' err; n=$((n + 1)); test "$n" -lt 300; sleep 0.2; done
rm err; test "$(git config user.name)" = "$1"
for i in 1 2 3; do echo "$i" >>g; git add g; git commit -qm "guest $i"; done
git branch "topic-$1"; git fetch -q . main; git gc -q 2>err || grep -q 'already running' err; rm err
test "$(ls "$0/worktrees")" = "$1"; test ! -e "$0/index"; git fsck; git status --short; `+more+`
git rev-list --count HEAD`, filepath.Join(top, "shop", ".git"), name)
		}()
	}
	sh(`cd shop; for i in 1 2 3 4 5; do echo $i >h; git add h; git commit -qm "host $i"; done`)
	for range guests {
		if r := <-done; r.code != 0 || !strings.HasSuffix(r.out, "4\n") || strings.Contains(r.err, "git will not work") || strings.Contains(r.err, "bawn review") {
			t.Errorf("%+v", r)
		}
	}
	if t.Failed() {
		return
	}
	if got := sh(`cd shop; git fsck --strict; for w in fix other; do git -C ../$w rev-list --count HEAD; git -C ../$w status --short; git rev-list --count topic-$w; done; git rev-list --count HEAD; git config --local user.name || echo none`); !strings.HasSuffix(got, "4\n?? Makefile\n4\n4\n4\n6\nnone\n") {
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
