package share

import (
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// TestAttackGitOfTheHostRunsNothing lets the guest prepare something in each project, and the host's
// person use git there. Nothing of the guest may run, and nothing outside may be written.
func TestAttackGitOfTheHostRunsNothing(t *testing.T) {
	p := newProject(t, guard.Options{}, func(p *project) {
		p.sh(p.host, repository+` && mkdir sub && echo s >sub/s && git add . && git commit -q -m sub`)
	})
	outside := t.TempDir()
	ran := filepath.Join(outside, "ran")
	precious := filepath.Join(outside, "precious")
	evil := `printf '[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "touch ` + ran + `; false"\n\tworktree = ` + p.host + `/sub\n' >`
	for _, a := range []struct{ name, guest, host string }{
		{"a repository below refs, whose objects are a program",
			`mkdir -p .git/refs/e/refs; cp .git/HEAD .git/refs/e/HEAD; ` + evil + `.git/refs/e/config; printf x >.git/refs/e/objects; chmod +x .git/refs/e/objects; echo 'gitdir: ../.git/refs/e' >sub/.git`,
			`cd sub && git status`},
		{"a repository below logs, whose objects are a link",
			`mkdir -p .git/logs/e/refs; cp .git/HEAD .git/logs/e/HEAD; ` + evil + `.git/logs/e/config; ln -s ../../objects .git/logs/e/objects; echo 'gitdir: ../.git/logs/e' >sub/.git`,
			`cd sub && git status`},
		{"a link in the place of a repository's directory",
			`mkdir -p gd/refs gd/objects; ` + evil + `gd/config; echo 'ref: refs/heads/main' >gd/h; ln -s h gd/HEAD; ln -s ../gd sub/.git`,
			`cd sub && git status`},
		{"objects exchanged for a directory",
			`mkdir -p .git/refs/x/refs .git/dir; cp .git/HEAD .git/refs/x/HEAD; ` + evil + `.git/refs/x/config; printf x >.git/refs/x/objects;
			 python3 -c "
import ctypes
ctypes.CDLL(None).renameat2(-100, b'.git/refs/x/objects', -100, b'.git/dir', 2)"; echo 'gitdir: ../.git/refs/x' >sub/.git`,
			`cd sub && git status`},
		{"the message of a commit written through a link",
			`rm -f .git/COMMIT_EDITMSG; ln -s ` + precious + ` .git/COMMIT_EDITMSG`,
			`git commit -q --allow-empty -m hello`},
		{"the log of a reference written through a link",
			`rm -f .git/logs/HEAD; ln -s ` + precious + ` .git/logs/HEAD`,
			`git commit -q --allow-empty -m hello`},
		{"a directory of logs that is a link",
			`mv .git/logs .git/logs2; ln -s ` + outside + ` .git/logs`,
			`git commit -q --allow-empty -m hello`},
		{"a link moved to its place",
			`ln -s ` + precious + ` l; rm -f .git/FETCH_HEAD; mv l .git/FETCH_HEAD`,
			`git fetch -q . main`},
		{"a directory with a link moved to its place",
			`mkdir d; ln -s ` + precious + ` d/HEAD; rm -rf .git/logs; mv d .git/logs`,
			`git commit -q --allow-empty -m hello`},
		{"objects of another repository",
			`mkdir -p .git/objects/info &&  echo ` + outside + `/other/.git/objects >.git/objects/info/alternates`,
			`if grep -q . .git/objects/info/alternates; then touch ` + ran + `; fi`},
		{"a remote in the old form", `mkdir -p .git/remotes; printf 'URL: x\n' >.git/remotes/origin; mkdir -p .git/branches; echo x >.git/branches/up`,
			`if test -s .git/remotes/origin || test -s .git/branches/up; then touch ` + ran + `; fi`},
	} {
		t.Run(a.name, func(t *testing.T) {
			if err := os.WriteFile(precious, []byte("precious\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			guest, _ := p.try(p.guest, a.guest)
			host, err := p.try(p.host, a.host)
			t.Logf("guest: %s\nhost: %v %s", guest, err, host)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host")
				_ = os.Remove(ran)
			}
			if got := readText(t, precious); got != "precious\n" {
				t.Errorf("a file outside was written: %q", got)
			}
			if list, _ := filepath.Glob(filepath.Join(outside, "*")); len(list) != 1 {
				t.Errorf("outside: %q", list)
			}
			_, _ = p.try(p.host, `find .git -type l -delete; rm -rf sub/.git gd .git/refs/[ex] .git/logs/e .git/dir .git/remotes .git/branches .git/objects/info/alternates; test -d .git/logs || mv .git/logs2 .git/logs || mkdir .git/logs; : >.git/logs/HEAD`)
			for _, f := range []string{"HEAD", "refs"} {
				_ = os.RemoveAll(filepath.Join(outside, f))
			}
		})
	}
}

// TestAttackABareRepositoryWithoutItsHead: the guest takes away what makes a bare repository of the host one,
// changes its configuration and hooks, and puts the rest back; the person restores HEAD.
func TestAttackABareRepositoryWithoutItsHead(t *testing.T) {
	for name, away := range map[string]string{
		"removed": `rm HEAD`, "renamed": `mv HEAD ../H`, "all of it": `rm HEAD description; mv objects refs info ..`, "exchanged": `echo x >y; mv y HEAD; rm HEAD`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) {
				p.sh(p.host, repository+` && git init -q --bare bare.git && git push -q ./bare.git HEAD:main && git -C bare.git config core.editor vi`)
			})
			ran := filepath.Join(t.TempDir(), "ran")
			out, _ := p.try(p.guest, `set +e; cd bare.git; `+away+`; printf '[core]\n\tbare = true\n\tpager = "touch `+ran+`; cat"\n\tfsmonitor = "touch `+ran+`"\n' >config; cat config >x; mv x config; ln -s x commondir
				rm -rf hooks; mkdir hooks; printf '#!/bin/sh\ntouch `+ran+`\n' >hooks/pre-receive; chmod +x hooks/pre-receive; mv ../objects ../refs ../info .; true`)
			t.Log(out)
			p.sh(p.host, `echo 'ref: refs/heads/main' >bare.git/HEAD; git commit -q --allow-empty -m more; git push -q ./bare.git HEAD:main --force; git -C bare.git --paginate log >/dev/null; git -C bare.git config core.editor | grep -qx vi`)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host")
			}
		})
	}
	// A repository that the guest makes itself works as before, and is its own to remove.
	p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, repository) })
	p.sh(p.guest, `git init -q --bare own.git && git push -q ./own.git HEAD:master HEAD:main && git -C own.git config a.b c && git -C own.git log --oneline && rm -rf own.git && test ! -e own.git && mkdir -p src/hooks && echo x >src/config && echo y >src/hooks/a`)
	p.hostHas("src/config", "x\n")
	p.hostHas("src/hooks/a", "y\n")
}
