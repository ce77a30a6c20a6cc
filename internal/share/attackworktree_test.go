package share

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// TestAttackWorkingTreesOfTheGuest: git runs what the host's configuration names from the top of a working
// tree. The guest makes a directory one, by a file that leads to a repository of the host, or changes
// one of the host's that lies deeper. Nothing of the guest may run, and no other repository may be written or read.
func TestAttackWorkingTreesOfTheGuest(t *testing.T) {
	outside := t.TempDir()
	ran := filepath.Join(outside, "ran")
	evil := func(at string) string {
		return `mkdir -p $(dirname ` + at + `); rm -f ` + at + `; printf '#!/bin/sh\ntouch ` + ran + `\ncat\n' >` + at + `; chmod +x ` + at
	}
	for _, a := range []struct{ name, guest, host string }{
		{"a file that leads to the project's repository", evil("sub/tools/hooks/pre-commit") + `; echo 'gitdir: ../.git' >sub/.git`, `cd sub && git commit -q --allow-empty -m x`},
		{"the file first", `echo 'gitdir: ../.git' >sub/.git; ` + evil("sub/tools/hooks/pre-commit"), `cd sub && git commit -q --allow-empty -m x`},
		{"a program that git asks for changes", evil("sub/tools/monitor") + `; echo 'gitdir: ../.git' >sub/.git`, `cd sub && git status`},
		{"a filter", evil("sub/tools/clean") + `; echo 'gitdir: ../.git' >sub/.git; echo '* filter=x' >sub/.gitattributes`, `cd sub && git add s`},
		{"git status of the project, which asks in submodules", evil("sub/tools/monitor") + `; git rm -q -r --cached sub; git update-index --add --cacheinfo 160000,$(git rev-parse HEAD),sub; echo 'gitdir: ../.git' >sub/.git`, `git status`},
		{"a link", evil("sub/tools/monitor") + `; ln -s ../.git sub/.git`, `cd sub && git status`},
		{"a file that is renamed", evil("sub/tools/monitor") + `; echo 'gitdir: ../.git' >d; mv d sub/.git`, `cd sub && git status`},
		{"a hard link", evil("sub/tools/monitor") + `; echo 'gitdir: ../.git' >d; ln d sub/.git`, `cd sub && git status`},
		{"a directory that is exchanged for a file", evil("sub/tools/monitor") + `; echo 'gitdir: ../.git' >d; mkdir sub/.git; python3 -c "
import ctypes
ctypes.CDLL(None).renameat2(-100, b'd', -100, b'sub/.git', 2)"`, `cd sub && git status`},
		{"a file that is exchanged for a directory", evil("sub/tools/monitor") + `; echo 'gitdir: ../.git' >d; mkdir sub/.git; python3 -c "
import ctypes
ctypes.CDLL(None).renameat2(-100, b'sub/.git', -100, b'd', 2)"`, `cd sub && git status`},
		{"a file in a directory that is renamed", evil("new/tools/monitor") + `; echo 'gitdir: ../.git' >new/.git; mv new new2`, `cd new2 && git status`},
		{"a file without a name that gets one", evil("sub/tools/monitor") + `; python3 -c "
import os
f=os.open('sub',os.O_TMPFILE|os.O_RDWR); os.write(f,b'gitdir: ../.git'); os.link('/proc/self/fd/%d'%f,'sub/.git')"`, `cd sub && git status`},
		{"hooks of the host's linked working tree", evil("wt/tools/hooks/pre-commit"), `cd wt && git commit -q --allow-empty -m x`},
		{"a monitor of the host's linked working tree", evil("wt/tools/monitor"), `cd wt && git status`},
		{"a monitor of a repository below the project", evil("inner/bin/monitor"), `cd inner && git status`},
		{"hooks of a repository below the project", evil("inner/my-hooks/pre-commit"), `cd inner && git commit -q --allow-empty -m x`},
		{"another repository of the host", `echo 'gitdir: ` + outside + `/other/.git' >sub/.git`, `cd sub && git status; git commit -q -a -m x; git checkout -q . ; git add . ; git commit -q -m x`},
		{"another repository of the host, to read", `echo 'gitdir: ` + outside + `/other/.git' >sub/.git`, `cd sub && git checkout -q -- .; git stash -q; test ! -e secret || touch ` + ran},
	} {
		t.Run(a.name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) {
				p.sh(p.host, repository+` && mkdir -p sub tools/hooks inner/bin && echo s >sub/s && printf '#!/bin/sh\nfalse\n' >tools/monitor && printf '#!/bin/sh\ncat\n' >tools/clean && printf '#!/bin/sh\ntrue\n' >tools/hooks/pre-commit && chmod +x tools/* tools/hooks/* && git add . && git commit -q -m sub &&
					git config core.hooksPath tools/hooks && git config core.fsmonitor ./tools/monitor && git config filter.x.clean ./tools/clean && git worktree add -q wt -b wt &&
					cd inner && git init -q && git config core.hooksPath my-hooks && git config core.fsmonitor ./bin/monitor && cd ..
					mkdir `+outside+`/other && cd `+outside+`/other && `+repository+` && echo secret >secret && git add . && git commit -q -m secret`)
			})
			defer os.RemoveAll(filepath.Join(outside, "other"))
			other := p.sh(outside, `cd other && git rev-parse HEAD && git ls-files -s && git reflog --all`)
			guest, _ := p.try(p.guest, `set +e; `+a.guest)
			host, err := p.try(p.host, `set +e; `+a.host)
			t.Logf("guest: %s\nhost: %v %s", guest, err, host)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host, or a file of another repository came into the project")
				_ = os.Remove(ran)
			}
			if now := p.sh(outside, `cd other && git rev-parse HEAD && git ls-files -s && git reflog --all`); now != other {
				t.Errorf("another repository of the host was changed: %s\nand was %s", now, other)
			}
		})
	}
}

// TestAttackWhatTheHostContinues: the guest writes commands into the state of a rebase, an am or a series of picks, the
// host's or one of its own, and the host's person continues it.
func TestAttackWhatTheHostContinues(t *testing.T) {
	outside := t.TempDir()
	ran := filepath.Join(outside, "ran")
	line := `exec touch ` + ran
	const conflict = ` && git switch -q -c topic && echo t >f && git commit -q -a -m t && echo t2 >g && git add g && git commit -q -m t2 && git switch -q main && echo m >f && git commit -q -a -m m`
	for _, a := range []struct{ name, begin, guest, host string }{
		{"a rebase of the host", `git switch -q topic; git rebase main`, `echo '` + line + `' >>.git/rebase-merge/git-rebase-todo`, `echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"another file in its place", `git switch -q topic; git rebase main`, `cp .git/rebase-merge/git-rebase-todo t; echo '` + line + `' >>t; mv t .git/rebase-merge/git-rebase-todo`, `echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"another directory in its place", `git switch -q topic; git rebase main`, `cp -r .git/rebase-merge .git/r; echo '` + line + `' >>.git/r/git-rebase-todo; mv .git/rebase-merge .git/r2; rm -rf .git/rebase-merge; mv .git/r .git/rebase-merge`, `echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"a strategy, which names a program", `git switch -q topic; git rebase main`, `mkdir -p git-merge-..; printf '#!/bin/sh\ntouch ` + ran + `\n' >git-merge-../x; cp git-merge-../x git-merge-x; chmod +x git-merge-../x git-merge-x; echo ../x >.git/rebase-merge/strategy`, `echo r >f; git add f; GIT_EDITOR=true PATH=.:$PATH git rebase --continue`},
		{"a rebase that the guest begins", `:`, `git switch -q topic; git rebase main; echo '` + line + `' >>.git/rebase-merge/git-rebase-todo`, `echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"a rebase that the guest makes up", `:`, `mkdir .git/m; git rev-parse HEAD | tee .git/m/onto >.git/m/orig-head; echo refs/heads/main >.git/m/head-name; : >.git/m/interactive; echo 1 >.git/m/msgnum; echo 1 >.git/m/end; : >.git/m/done; echo '` + line + `' >.git/m/git-rebase-todo; mv .git/m .git/rebase-merge`, `git rebase --continue`},
		{"picks of the host", `git cherry-pick topic~1 topic`, `sed -i '1i ` + line + `' .git/sequencer/todo; echo '` + line + `' >>.git/sequencer/todo`, `echo r >f; git add f; GIT_EDITOR=true git cherry-pick --continue`},
		{"a linked working tree", `git switch -q main; git worktree add -q wt topic; cd wt; git rebase main`, `echo '` + line + `' >>.git/worktrees/wt/rebase-merge/git-rebase-todo`, `cd wt; echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"a working tree of a bare repository", `git clone -q --bare . b.git; cd b.git; git worktree add -q ../wt topic; cd ../wt; git rebase main`, `echo '` + line + `' >>b.git/worktrees/wt/rebase-merge/git-rebase-todo`, `cd wt; echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"a submodule with the name of references", `git clone -q . m/logs; mkdir -p .git/modules/m; git init -q --separate-git-dir .git/modules/m/logs m/logs; cd m/logs; git branch -q topic origin/topic; git switch -q topic; git rebase origin/main`, `cd .git/modules/m/logs; mv HEAD H; mv objects o; mv rebase-merge r2; cp -r r2 r; echo '` + line + `' | tee -a r/git-rebase-todo >>r2/git-rebase-todo; mv r rebase-merge; echo '` + line + `' >>rebase-merge/git-rebase-todo; mv H HEAD; mv o objects`, `cd m/logs; echo r >f; git add f; GIT_EDITOR=true git rebase --continue`},
		{"where a working tree of a bare repository lies", `git clone -q --bare . b.git; cd b.git; git worktree add -q ../wt topic`, `echo /nowhere/.git >b.git/worktrees/wt/gitdir`, `grep -q wt b.git/worktrees/wt/gitdir || touch ` + ran},
	} {
		t.Run(a.name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) {
				p.sh(p.host, `{ `+repository+conflict+`; } && { set +e; `+a.begin+`; true; }`)
			})
			guest, _ := p.try(p.guest, `set +e; `+a.guest)
			host, err := p.try(p.host, `set +e; `+a.host)
			t.Logf("guest: %s\nhost: %v %s", guest, err, host)
			if _, err := os.Stat(ran); err == nil {
				t.Error("what the guest wrote was run, or believed, on the host")
				_ = os.Remove(ran)
			}
		})
	}
	// The guest's own rebases, picks and mails go on as usual, stopped and continued, and leave nothing.
	p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, repository+conflict) })
	p.sh(p.guest, `git switch -q topic; ! git rebase -q main 2>/dev/null; test -d .git/rebase-merge; echo r >f; git add f; GIT_EDITOR=true git rebase --continue; test ! -e .git/rebase-merge
		git log --oneline | grep -c . | grep -qx 4; git switch -q main; ! git cherry-pick topic~1 topic topic~2; git cherry-pick --abort; test ! -e .git/sequencer; git cherry-pick topic~1 topic
		git format-patch -q -1 --stdout >mail; git reset -q --hard HEAD~1; git am -q mail; test ! -e .git/rebase-apply; test -z "$(git status --porcelain -uno)"`)
	if out := p.sh(p.host, `git log --oneline | head -1; git status --short -uno; git status; ls .git`); testing.Verbose() {
		t.Log(out)
	}
	for _, at := range []string{".git/rebase-merge", ".git/rebase-apply", ".git/sequencer"} {
		p.hostHas(at, "")
	}
}

// TestAttackAnExchangeOfKinds: rules that are about files or directories alone hold for what an exchange leaves there.
func TestAttackAnExchangeOfKinds(t *testing.T) {
	p := newProject(t, guard.Options{Guard: []string{"ci/"}}, nil)
	exchange := func(a, b string) string {
		return `; python3 -c "
import ctypes
ctypes.CDLL(None).renameat2(-100, b'` + a + `', -100, b'` + b + `', 2)"`
	}
	for _, a := range []struct{ guest, at string }{
		{`mkdir -p a/.jj/repo; echo evil >x1` + exchange("x1", "a/.jj/repo"), "a/.jj/repo"},
		{`mkdir -p b/.jj/repo; echo evil >x2` + exchange("b/.jj/repo", "x2"), "b/.jj/repo"},
		{`mkdir -p e/.project; echo evil >x4` + exchange("x4", "e/.project"), "e/.project"},
		{`mkdir -p g/.project; echo evil >x5` + exchange("g/.project", "x5"), "g/.project"},
		{`echo x >ci; mkdir y; echo evil >y/run` + exchange("y", "ci"), "ci/run"},
		{`mkdir c; echo x >c/ci; mkdir z; echo evil >z/run` + exchange("c/ci", "z"), "c/ci/run"},
		{`mkdir d d/.git; echo evil >x3; mv -T x3 d/.git`, "d/.git"},
	} {
		out, err := p.try(p.guest, `set +e; `+a.guest)
		t.Logf("%s: %v %s", a.guest, err, out)
		if b, err := os.ReadFile(filepath.Join(p.host, a.at)); err == nil {
			t.Errorf("the host has %s: %q", a.at, b)
		}
	}
}

// TestAttackRepositoriesOfFossil: the guest makes a check-out of Fossil, or changes the settings of the host's repository, in
// which programs are named.
func TestAttackRepositoriesOfFossil(t *testing.T) {
	if _, err := exec.LookPath("fossil"); err != nil {
		t.Skip("no fossil")
	}
	ran := filepath.Join(t.TempDir(), "ran")
	const open = `export USER=u; fossil init x.fossil >/dev/null && fossil open -f x.fossil >/dev/null && echo a >f && fossil add f && fossil commit -m x --no-warnings`
	set := `fossil settings diff-command "touch ` + ran + `"`
	for _, a := range []struct{ name, host, guest string }{
		{"a check-out of the guest", `:`, open + ` && ` + set},
		{"the settings of the host's repository", open, `export USER=u; ` + set},
		{"a copy in its place", open, `export USER=u; cp x.fossil y; fossil settings -R y diff-command "touch ` + ran + `"; mv y x.fossil`},
	} {
		t.Run(a.name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, a.host) })
			guest, gerr := p.try(p.guest, a.guest)
			host, err := p.try(p.host, `export USER=u; echo changed >f; fossil diff`)
			t.Logf("guest: %v %s\nhost: %v %s", gerr, guest, err, host)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host")
				_ = os.Remove(ran)
			}
		})
	}
}
