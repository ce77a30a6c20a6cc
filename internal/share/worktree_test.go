package share

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// worktree is a linked worktree with the git directory that it has in common with others, each
// mounted as the guest of one sandbox has it.
type worktree struct {
	*project        // of the worktree
	common   string // in the guest
}

// newWorktrees makes a repository with linked worktrees a and b.
func newWorktrees(t *testing.T) (main string, a, b worktree) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	top := t.TempDir()
	main = filepath.Join(top, "main")
	host := &project{t: t, host: top}
	host.sh(top, `mkdir main && cd main && `+repository+` && git worktree add -q ../a && git worktree add -q ../b && echo staged >new && git add new`)
	one := func(name string) worktree {
		p := &project{t: t, host: filepath.Join(top, name)}
		private := t.TempDir()
		p.guest, p.fs = mountTest(t, Options{Root: p.host, Guard: &guard.Options{}, Private: filepath.Join(private, "p"), Events: filepath.Join(private, "log")})
		abortLate(t, p.guest)
		common, _ := mountTest(t, Options{
			Root: filepath.Join(main, ".git"), Guard: &guard.Options{Prefix: []string{".git"}, Worktree: name},
			Private: filepath.Join(private, "g"), Events: filepath.Join(private, "log"),
		})
		abortLate(t, common)
		return worktree{p, common}
	}
	return main, one("a"), one("b")
}

// git runs a script in the guest's worktree. The mount is at another place than the host's
// directory, so git is told where the git directory is.
func (w *worktree) git(script string) (string, error) {
	return w.try(w.guest, `export GIT_DIR='`+w.common+`/worktrees/`+filepath.Base(w.host)+`' GIT_WORK_TREE="$PWD"; `+script)
}

// TestTwoWorktrees: two guests commit in two worktrees of one repository at the same time; the host
// has all commits, and the repository is sound.
func TestTwoWorktrees(t *testing.T) {
	main, a, b := newWorktrees(t)
	var both sync.WaitGroup
	for _, w := range []worktree{a, b} {
		both.Go(func() {
			out, err := w.git(`for i in 1 2 3; do echo $i >f$i && git add f$i && git commit -q -m "$i" || exit 1; done
				git branch topic-$(basename "$GIT_DIR") && git fsck`)
			if err != nil {
				t.Errorf("%s: %v\n%s", w.host, err, out)
			}
		})
	}
	both.Wait()
	for _, w := range []worktree{a, b} { // one at a time: git's own locks refuse the second
		if out, err := w.git(`git config user.name guest && git pack-refs --all && git gc -q`); err != nil {
			t.Errorf("%s: %v\n%s", w.host, err, out)
		}
	}
	out := a.sh(main, `git fsck --strict; for w in a b; do git -C ../$w log --oneline | wc -l; git -C ../$w status --porcelain; git branch --list topic-$w; done; git config --get user.name || echo none; git diff --cached --name-only`)
	if want := "4\n  topic-a\n4\n  topic-b\nnone\nnew\n"; !strings.HasSuffix(out, want) {
		t.Errorf("the host has %q, want %q", out, want)
	}
}

// TestAttackOtherWorktree: root in the guest of one worktree reaches neither the folder of another
// one nor what belongs to the main one, and git there changes nothing of them.
func TestAttackOtherWorktree(t *testing.T) {
	main, a, _ := newWorktrees(t)
	git := filepath.Join(main, ".git")
	watched := []string{"worktrees/b/HEAD", "worktrees/b/index", "worktrees/b/gitdir", "worktrees/b/commondir", "index", "HEAD", "config", "logs/HEAD", "worktrees/a/commondir", "worktrees/a/gitdir", "description"}
	before := map[string]string{}
	for _, name := range watched {
		before[name] = readText(t, filepath.Join(git, name))
	}
	for _, script := range []string{
		`test ! -e worktrees/b`, `test ! -e index`, `test "$(ls worktrees)" = a`, `! ls | grep -qx index`, `! cat worktrees/b/HEAD`, `! cat WORKTREES/b/HEAD`, `test -r HEAD`,
	} {
		if out, err := a.try(a.common, script); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	attack := func(watched []string, scripts ...string) {
		t.Helper()
		for _, script := range scripts {
			_, _ = a.try(a.common, script) // whether it works in the guest does not matter
		}
		for _, name := range watched {
			if now := readText(t, filepath.Join(git, name)); now != before[name] {
				t.Errorf("%s: %q, was %q", name, now, before[name])
			}
		}
	}
	attack(watched,
		`mkdir worktrees/b && echo evil >worktrees/b/HEAD && echo evil >worktrees/b/index`,
		`echo evil >index`, `echo evil >HEAD`, `echo evil >config`, `echo evil >logs/HEAD`, `echo evil >description`, `echo evil >ORIG_HEAD`, `mkdir rebase-merge && echo exec evil >rebase-merge/git-rebase-todo`,
		`mv worktrees/b worktrees/c`, `ln worktrees/a/HEAD worktrees/b/x`, `ln -s a worktrees/d`, `rm -rf worktrees/b index HEAD`,
		`echo ../../../evil >worktrees/a/commondir`, `echo /evil >worktrees/a/gitdir`, `mkdir -p modules/x hooks && echo evil >hooks/post-commit && chmod +x hooks/post-commit`,
	)
	attack(watched[:8], // these destroy its own folder
		`git --git-dir=. worktree prune --expire=now`, `git --git-dir=. gc -q`, `mv worktrees/a worktrees/c`, `mv worktrees other`, `rm -rf worktrees`,
	)
	for _, name := range []string{"hooks/post-commit", "ORIG_HEAD", "rebase-merge", "modules", "other", "worktrees/c", "worktrees/d"} {
		if _, err := os.Lstat(filepath.Join(git, name)); err == nil {
			t.Errorf("the host has %s", name)
		}
	}
	if out := a.sh(main, `git -C ../b status --porcelain && git worktree list`); strings.Count(out, "\n") < 2 || !strings.Contains(out, "[b]") {
		t.Errorf("git on the host: %s", out)
	}
}

// TestTheMainWorktreeLeavesTheOthersAlone: the guest of a main working tree does not see the folders of
// those linked ones that lie elsewhere on the host, and neither `git worktree prune` nor gc there
// removes anything of them. Its own worktrees work.
func TestTheMainWorktreeLeavesTheOthersAlone(t *testing.T) {
	p := newProject(t, guard.Options{HiddenPaths: []string{".git/worktrees/other"}}, func(p *project) {
		p.sh(p.host, repository+` && git worktree add -q --detach "$0.other" && mv .git/worktrees/* .git/worktrees/other && printf 'gitdir: %s' "$PWD/.git/worktrees/other" >"$0.other/.git"
			cd "$0.other" && echo staged >s && git add s && git stash -q && git stash apply -q --index && git status --porcelain`)
	})
	t.Cleanup(func() { os.RemoveAll(p.host + ".other") })
	before := p.sh(p.host+".other", `git status --porcelain; git rev-parse HEAD; cat .git`)
	for _, step := range []string{
		`test ! -e .git/worktrees/other && test "$(git worktree list | wc -l)" = 1`,
		`git worktree prune -v --expire=now`, `git -c gc.pruneExpire=never gc -q`, // as the guest's configuration says
		`git worktree add -q inside -b inside && cd inside && echo x >x && git add x && git commit -qm x && git worktree list | grep -q inside`,
		`git worktree add -q -b more more/other && cd more/other && git commit -q --allow-empty -m y`,
		`mkdir -p .git/worktrees/other/rebase-merge && echo 'exec evil' >.git/worktrees/other/rebase-merge/git-rebase-todo`,
		`mv .git/worktrees .git/w2 && test ! -e .git/worktrees`, // by a copy of what it sees: the host keeps the other's
		`git worktree prune --expire=now && git worktree add -q --detach again && test "$(ls .git/worktrees)" = again`,
	} {
		if out, err := p.try(p.guest, step); err != nil {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	if after := p.sh(p.host+".other", `git status --porcelain; git rev-parse HEAD; cat .git`); after != before {
		t.Errorf("the other working tree is\n%s\nand was\n%s", after, before)
	}
	if _, err := os.Lstat(filepath.Join(p.host, ".git/worktrees/other/index")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(p.host, ".git/worktrees/other/rebase-merge")); err == nil {
		t.Error("the guest has begun a rebase there")
	}
}
