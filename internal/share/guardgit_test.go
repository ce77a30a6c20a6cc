package share

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// project is a guarded share of a directory, mounted with the kernel's FUSE client.
type project struct {
	t           *testing.T
	host, guest string
	fs          *fileSystem
	folds       bool // it is served as a file system that folds case
}

// newProject mounts a share with the default rules. prepare fills it on the host.
func newProject(t *testing.T, o guard.Options, prepare func(p *project)) *project {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	p := &project{t: t, host: t.TempDir()}
	if prepare != nil {
		prepare(p)
	}
	dir := t.TempDir()
	paths, hidden := guard.Targets(p.host) // as package shareserver does at a start
	o.Paths, o.HiddenPaths = append(o.Paths, paths...), append(o.HiddenPaths, hidden...)
	p.fs = newTest(t, Options{Root: p.host, Guard: &o, Private: filepath.Join(dir, "private"), Events: filepath.Join(dir, "files.log")})
	p.fs.folds = p.fs.folds || p.folds
	p.guest = mountOf(t, p.fs)
	abortLate(t, p.guest)
	return p
}

// abortLate ends a mount whose test hangs in it.
func abortLate(t *testing.T, mounted string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(mounted, &st); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(90*time.Second, func() {
		_ = os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", unix.Minor(st.Dev)), []byte("1"), 0)
	})
	t.Cleanup(func() { timer.Stop() })
}

// sh runs a script in a directory and returns its output. It ends the test if the script fails.
func (p *project) sh(dir, script string) string {
	p.t.Helper()
	out, err := p.try(dir, script)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (p *project) try(dir, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// The shell goes into the mount, not the fork of this process: until its exec that holds up
	// the thread, and with it the collector and the server of the mount.
	c := exec.CommandContext(ctx, "/bin/sh", "-e", "-c", `cd "$0"; `+script, dir)
	c.WaitDelay = time.Second
	c.Env = gitEnv(p.t.TempDir())
	out, err := c.CombinedOutput()
	return string(out), err
}

// gitEnv returns the environment of scripts that run git, with a home directory.
func gitEnv(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always"}
}

// hostHas checks the contents of a file on the host; "" means that there is none.
func (p *project) hostHas(path, want string) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.host, path))
	switch {
	case want == "" && err == nil:
		p.t.Errorf("the host has %s: %q", path, b)
	case want != "" && string(b) != want:
		p.t.Errorf("the host's %s is %q, %v, not %q", path, b, err, want)
	}
}

const repository = `git init -q -b main . && echo one >f && git add f && git commit -q -m one`

// TestGitGoesOnAsUsual runs everyday git in the guest, and looks at what the host got.
func TestGitGoesOnAsUsual(t *testing.T) {
	p := newProject(t, guard.Options{}, func(p *project) {
		p.sh(p.host, repository+` && mkdir .vscode && echo '{}' >.vscode/settings.json && git add . && git commit -q -m vscode`)
	})
	config, err := os.ReadFile(filepath.Join(p.host, ".git/config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []string{
		`echo two >>f && git commit -q -am two`,
		`git switch -q -c feature && echo '{"a":1}' >.vscode/settings.json && git commit -q -am settings`,
		`git switch -q main && test "$(cat .vscode/settings.json)" = '{}'`,
		`git switch -q feature && grep -q a .vscode/settings.json && test -z "$(git status --porcelain)"`,
		`git switch -q main && echo three >g && git add g && git commit -q -m three && git merge -q -m merge feature`,
		`git switch -q -c topic HEAD~1 && echo t >t && git add t && git commit -q -m topic && git rebase -q main`,
		`echo dirty >>f && git stash -q && git stash pop -q && git checkout -q f`,
		`git config user.name someone && test "$(git config --local user.name)" = someone`,
		`git remote add origin ../upstream && git remote -v | grep -q upstream`,
		`git worktree add -q ../wt-none 2>/dev/null || git worktree add -q wt -b wt`,
		`test ! -d wt || (cd wt && echo w >w && git add w && git commit -q -m w)`,
		`test ! -d wt || git worktree remove wt`,
		`git worktree add -q wt2 -b wt2 && (cd wt2 && echo w >w && git add w && git commit -q -m w2)`,
		`git init -q sub && cd sub && echo s >s && git add s && git commit -q -m s && git config x.y z && git config x.y`,
		`git clone -q sub clone && cd clone && git log --oneline && git remote -v | grep -q sub && git fetch -q && test -z "$(git status --porcelain)"`,
		`mv clone clone2 && cd clone2 && git remote -v | grep -q sub && rm -rf ../clone2`,
		`git submodule add -q "$PWD/sub" module 2>&1 && git commit -q -m module && git submodule update --init && git submodule status`,
		`git gc -q && git fsck && git maintenance run --task=gc`,
		`git init -q --bare bare.git && git push -q "$PWD/bare.git" main && git ls-remote bare.git | grep -q main`,
		`printf '#!/bin/sh\ntouch hooked\n' >.git/hooks/post-commit && chmod +x .git/hooks/post-commit && git commit -q --allow-empty -m hook && test -e hooked && ls .git/hooks | grep -q post-commit`,
		`rm -rf bare.git sub && test ! -e sub`,
	} {
		if out, err := p.try(p.guest, step); err != nil {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	p.hostHas(".git/config", string(config))
	p.hostHas(".git/hooks/post-commit", "")
	p.hostHas(".vscode/settings.json", "{}\n")
	if out := p.sh(p.host, `git log --oneline --all | grep -c . && git status --short && git branch -a && git worktree list && git gc -q && git fsck && git worktree prune`); !strings.Contains(out, "\n") {
		t.Error(out)
	}
	if out := p.sh(p.guest, `cd wt2 && git log --oneline | grep -c w2`); out != "1\n" {
		t.Errorf("the guest's working tree: %q", out)
	}
}

// TestToolsThatWriteGuardedFiles does what hooks' managers, editors and package managers do to such
// files: it works in the guest, and the host has none of it. (husky, lefthook and npm themselves were seen
// to do so.)
func TestToolsThatWriteGuardedFiles(t *testing.T) {
	p := newProject(t, guard.Options{}, func(p *project) {
		p.sh(p.host, repository+` && mkdir .idea && echo old >.idea/workspace.xml && echo old >.envrc && printf '#!/bin/sh\n:\n' >.git/hooks/pre-commit && chmod +x .git/hooks/pre-commit`)
	})
	before := p.sh(p.host, `find . -type f | sort | xargs sha256sum`)
	for _, step := range []string{
		// husky: hooks in a directory of the project
		`git config core.hooksPath .husky/_ && mkdir -p .husky/_ && echo '*' >.husky/_/.gitignore && printf '#!/bin/sh\ntouch .git/huskied\n' >.husky/_/pre-commit && chmod +x .husky/_/pre-commit && git commit -q --allow-empty -m h && rm .git/huskied && git config --unset core.hooksPath`,
		// pre-commit: the hook that is there is moved aside
		`mv .git/hooks/pre-commit .git/hooks/pre-commit.legacy && printf '#!/bin/sh\n.git/hooks/pre-commit.legacy && touch .git/hooked\n' >.git/hooks/pre-commit && chmod 755 .git/hooks/pre-commit && git commit -q --allow-empty -m p && rm .git/hooked`,
		// VS Code and JetBrains: a new file in the place of the old one, which is kept until then
		`mkdir -p .vscode && echo '{}' >.vscode/settings.json.tmp && mv .vscode/settings.json.tmp .vscode/settings.json && grep -q '{}' .vscode/settings.json`,
		`cd .idea && echo new >workspace.xml___jb_tmp___ && mv workspace.xml workspace.xml___jb_old___ && mv workspace.xml___jb_tmp___ workspace.xml && rm workspace.xml___jb_old___ && grep -q new workspace.xml && test "$(ls)" = workspace.xml`,
		// sed -i, and an editor that keeps a backup by a hard link, or a copy where it cannot make one
		`sed -i s/old/new/ .envrc && grep -q new .envrc`, `ln .envrc .envrc~ 2>/dev/null || cp -p .envrc .envrc~; echo newer >.envrc; grep -q newer .envrc; rm .envrc~`,
		// a script of a package that leaves tasks for the editor; archives and copies of guarded files
		`mkdir -p .vscode && echo '{"tasks":[]}' >.vscode/tasks.json && mkdir out && tar cf - .vscode .envrc .idea | tar xf - -C out && cmp .vscode/tasks.json out/.vscode/tasks.json && cp -a .idea out2 && rm -r out out2`,
		`git add -f .vscode .envrc .idea && git commit -q --no-verify -m all && git stash list && test -z "$(git status --porcelain -uno)" && git checkout -q HEAD~1 && test ! -e .vscode/tasks.json && git checkout -q - && test -e .vscode/tasks.json`,
	} {
		if out, err := p.try(p.guest, step); err != nil {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	after := p.sh(p.host, `find . -type f | sort | xargs sha256sum`)
	for line := range strings.Lines(before) {
		if _, path, _ := strings.Cut(strings.TrimSpace(line), "  "); !strings.HasPrefix(path, "./.git/") || strings.Contains(path, "hooks") || strings.HasSuffix(path, "config") {
			if !strings.Contains(after, line) {
				t.Errorf("lost or changed: %s", line)
			}
		}
	}
	for _, name := range []string{".husky", ".vscode", "pre-commit.legacy", "workspace.xml___jb_tmp___"} {
		if strings.Contains(after, name) {
			t.Errorf("the host has %s", name)
		}
	}
}

// TestAGuestCannotPlantWhatTheHostRuns tries each way to change a guarded path on the host.
func TestAGuestCannotPlantWhatTheHostRuns(t *testing.T) {
	p := newProject(t, guard.Options{}, func(p *project) {
		p.sh(p.host, repository+`
			mkdir .vscode .claude .husky deep deep/.vscode repo.git
			for f in .vscode/tasks.json .claude/settings.json .claude/NOTES.md .envrc .mcp.json bawn.yaml deep/.vscode/tasks.json .husky/pre-commit; do echo host >$f; done
			git init -q --bare repo.git; git worktree add -q wt -b wt; mkdir plain; echo x >plain/x`)
	})
	before := p.sh(p.host, `find . -path ./.git/objects -prune -o -type f \( -path '*hooks*' -o -name config -o -path '*.vscode*' -o -path '*.claude/settings*' -o -name .envrc -o -name .mcp.json -o -name bawn.yaml -o -path '*husky*' -o -name commondir -o -name gitdir -o -path ./wt/.git \) -print | sort | xargs sha256sum`)
	attacks := []string{
		`echo evil >.git/hooks/pre-commit; chmod 755 .git/hooks/pre-commit`,
		`echo evil >>.git/config`, `: >.git/config`, `truncate -s 3 .git/config`, `rm .git/config`, `cp .git/config c; echo evil >>c; mv c .git/config`,
		`ln .git/config hard; echo evil >>hard`, `ln -s ../x .git/config.worktree`, `echo evil >.git/config.worktree`,
		`mv .git/hooks .git/h2; mkdir .git/hooks; echo evil >.git/hooks/pre-push`,
		`rm -f .git/info/attributes; mkdir -p my; echo evil >my/attributes; rm -r .git/info; ln -s ../my .git/info`,
		`echo '* filter=x' >.git/info/attributes`, `mkdir i; echo evil >i/attributes; mv .git/info .git/i2; mv i .git/info`,
		`echo evil >.vscode/tasks.json`, `mv .vscode v2; mkdir .vscode; echo evil >.vscode/tasks.json`,
		`mkdir mine; echo evil >mine/tasks.json; mv mine deep/.vscode`, `chmod 777 .envrc`, `touch -d 1990-01-01 .envrc`,
		`echo evil >.envrc.new; mv .envrc.new .envrc`, `echo evil >deep/.envrc`, `dd if=/dev/zero of=.mcp.json bs=1 count=1 conv=notrunc`,
		`echo evil >.claude/settings.json`, `mkdir -p .claude/hooks; echo evil >.claude/hooks/x`, `mkdir q; echo evil >q/settings.json; ln -s q .gemini`,
		`mkdir g; echo evil >g/settings.json; mv g .gemini`, `echo evil >.idea`, `mkdir -p a/b/.idea; echo evil >a/b/.idea/workspace.xml`,
		`echo evil >bawn.yaml`, `echo evil >.husky/pre-commit`, `rm -rf .husky`,
		`echo evil >repo.git/config`, `echo evil >repo.git/hooks/update`,
		`mkdir bare bare/objects bare/refs; echo evil >bare/config; echo 'ref: refs/heads/main' >bare/HEAD`,
		`mkdir b3 b3/objects b3/refs; echo 'ref: refs/heads/main' >b3/head0; mv b3/head0 b3/HEAD; echo evil >b3/config`,
		`mkdir -p .git/refs/heads/e/objects .git/refs/heads/e/refs; echo evil >.git/refs/heads/e/config; cp .git/HEAD .git/refs/heads/e/HEAD`,
		`mkdir -p .git/objects/e/objects .git/objects/e/refs; echo evil >.git/objects/e/config; cp .git/HEAD .git/objects/e/HEAD`,
		`echo evil >.git/worktrees/wt/commondir`, `echo evil >.git/worktrees/wt/gitdir`, `echo evil >.git/worktrees/wt/config.worktree`,
		`rm -f wt/.git; echo 'gitdir: /tmp/evil' >wt/.git`, `mv wt w2`,
		`mkdir -p .git/modules/m/hooks; echo evil >.git/modules/m/config; echo evil >.git/modules/m/hooks/x`,
		`mknod .envrc2 p; mv .envrc2 .envrc`, `mkfifo .tool-versions`, `echo evil >.mise.toml`, `echo evil >x.code-workspace`, `mkdir -p .config/mise; echo evil >.config/mise/config.toml`,
		`mkdir m2; echo evil >m2/config.toml; ln -s ../m2 .config/mise`, `ln -s m2 .config2; mv .config2 .config`,
		`echo evil >.VSCODE`, `mkdir .Git; echo evil >.Git/config`, `mkdir .Git/hooks; echo evil >.Git/hooks/x`,
		`python3 -c "
import os,mmap
f=os.open('.envrc',os.O_RDWR); m=mmap.mmap(f,0); m[0]=69"`,
		`python3 -c "
import os
os.open('.envrc',os.O_WRONLY|os.O_TRUNC)"`,
		`mkdir x; mkdir x/hooks; echo evil >x/hooks/post-checkout; mv x .git/hooks`, `mv x .git`,
		`mv deep deep2`, `mv .claude c2`, `rm -r .vscode`, `mv repo.git r2.git; echo evil >r2.git/config`, `mv .git .git2; mkdir .git; echo evil >.git/config`,
	}
	for _, a := range attacks {
		if out, err := p.try(p.guest, a); testing.Verbose() {
			t.Logf("%s: %v %s", a, err, out)
		}
	}
	p.sh(p.host, `sync -f . 2>/dev/null || true`)
	after := p.sh(p.host, `find . -path ./.git/objects -prune -o -type f \( -path '*hooks*' -o -name config -o -path '*.vscode*' -o -path '*.claude/settings*' -o -name .envrc -o -name .mcp.json -o -name bawn.yaml -o -path '*husky*' -o -name commondir -o -name gitdir -o -path ./wt/.git \) -print | sort | xargs sha256sum`)
	seen := map[string]bool{}
	for line := range strings.SplitSeq(before, "\n") {
		seen[line] = true
		if !strings.Contains(after, line) {
			t.Errorf("lost or changed: %s", line)
		}
	}
	for line := range strings.SplitSeq(after, "\n") {
		_, path, _ := strings.Cut(line, "  ")
		harmless := regexp.MustCompile(`^\./(x/hooks|\.git2|c2|r2\.git|(bare|b3|\.git/refs/heads/e|\.git/objects/e)/config$)`) // no repository: see below
		if !seen[line] && !harmless.MatchString(path) {
			t.Errorf("new: %s", line)
		}
	}
	for _, path := range []string{".git/hooks/pre-commit", ".git/config.worktree", ".idea", "a/b/.idea/workspace.xml", "deep/.envrc", ".claude/hooks/x", ".mise.toml", "x.code-workspace", ".VSCODE",
		"bare/HEAD", "b3/HEAD", ".git/objects/e/HEAD", ".Git/config", ".gemini/settings.json", ".git/info/attributes", ".config/mise/config.toml", ".git/modules/m/config", "deep2/.vscode/tasks.json"} {
		if _, err := os.Stat(filepath.Join(p.host, path)); err == nil {
			t.Errorf("the host has %s", path)
		}
	}
	for _, dir := range []string{"bare", "b3", ".git2", "r2.git", ".git/refs/heads/e", ".git/objects/e"} {
		if _, err := os.Stat(filepath.Join(p.host, dir)); err != nil {
			continue
		}
		if out, err := p.try(filepath.Join(p.host, dir), `git rev-parse --git-dir`); err == nil && strings.TrimSpace(out) == "." {
			t.Errorf("git on the host takes %s for a repository", dir)
		}
	}
}
