package share

import (
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// TestAttackLinksWithinARepository: the guest leaves a link in a repository to what is guarded there, and
// the host's git writes to it what the guest prepared: the message of a merge, a log, the head of a fetch.
func TestAttackLinksWithinARepository(t *testing.T) {
	p := newProject(t, guard.Options{}, func(p *project) {
		p.sh(p.host, repository+` && git init -q --bare bare.git && git push -q ./bare.git HEAD:main && git -C bare.git config core.logAllRefUpdates true &&
			mkdir -p .git/modules/m && git init -q --bare .git/modules/m && printf '#!/bin/sh\nexit 0\n' >.git/hooks/pre-commit && chmod +x .git/hooks/pre-commit &&
			mkdir -p .git/info && : >.git/info/attributes && : >.git/objects/info/alternates`)
	})
	outside := t.TempDir()
	ran := filepath.Join(outside, "ran")
	merge := `git rev-parse HEAD >.git/MERGE_HEAD; printf '[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "touch ` + ran + `; false"\n' >.git/MERGE_MSG; `
	script := `git rev-parse HEAD >.git/MERGE_HEAD; printf 'touch ` + ran + `\n' >.git/MERGE_MSG; `
	commit := `GIT_EDITOR=true git commit -q --allow-empty; GIT_EDITOR=true git commit -q --allow-empty -m again; git status`
	const guarded = `.git/config .git/hooks/pre-commit .git/info/attributes .git/objects/info/alternates .git/modules/m/config bare.git/config`
	kept := filepath.Join(outside, "kept.tar")
	p.sh(p.host, `tar cf `+kept+` `+guarded)
	before := p.sh(p.host, `sha256sum `+guarded)
	for _, a := range []struct{ name, guest, host string }{
		{"the configuration by the message of a merge", merge + `ln -sf config .git/COMMIT_EDITMSG`, commit},
		{"the same, with a dot", merge + `ln -sf ./config .git/COMMIT_EDITMSG`, commit},
		{"a hook", script + `ln -sf hooks/pre-commit .git/COMMIT_EDITMSG`, commit},
		{"a directory that leads to hooks", script + `ln -s hooks .git/h; ln -sf h/pre-commit .git/COMMIT_EDITMSG`, commit},
		{"a directory that leads to the repository", merge + `ln -s . .git/here; ln -sf here/config .git/COMMIT_EDITMSG`, commit},
		{"a way through refs, where names are free", merge + `ln -s .. .git/refs/up; ln -sf refs/up/config .git/COMMIT_EDITMSG`, commit},
		{"a way through logs and down again", merge + `ln -s ../../.git .git/logs/up; ln -sf logs/up/config .git/COMMIT_EDITMSG`, commit},
		{"another directory in the place of refs", merge + `mv .git/logs .git/l2; ln -s modules/m .git/logs; ln -sf logs/config .git/COMMIT_EDITMSG`, commit},
		{"the configuration of a submodule", merge + `ln -sf modules/m/config .git/COMMIT_EDITMSG`, commit},
		{"the head of a repository below objects",
			`git rev-parse HEAD >.git/MERGE_HEAD; echo 'ref: refs/heads/main' >.git/MERGE_MSG; mkdir -p sub .git/objects/e/objects .git/objects/e/refs; printf '[core]\n\trepositoryformatversion = 0\n\tworktree = ` + p.host + `/sub\n\tfsmonitor = "touch ` + ran + `; false"\n' >.git/objects/e/config; echo 'gitdir: ../.git/objects/e' >sub/.git; ln -sf objects/e/HEAD .git/COMMIT_EDITMSG`,
			`GIT_EDITOR=true git commit -q --allow-empty; cd sub && git status`},
		{"the log of a reference", `rm -f .git/logs/HEAD; ln -s ../config .git/logs/HEAD`, commit},
		{"the log of a branch", `mkdir -p .git/logs/refs/heads; rm -f .git/logs/refs/heads/*; for b in main master; do ln -s ../../../info/attributes .git/logs/refs/heads/$b; done`, commit},
		{"the head of a fetch", `rm -f .git/FETCH_HEAD; ln -s objects/info/alternates .git/FETCH_HEAD`, `git fetch -q . HEAD`},
		{"a link moved to its place", merge + `ln -s config l; rm -f .git/COMMIT_EDITMSG; mv l .git/COMMIT_EDITMSG`, commit},
		{"a directory with a link moved to its place", `mkdir d; ln -s ../config d/HEAD; rm -rf .git/logs; mv d .git/logs`, commit},
		{"a bare repository", `ln -s config bare.git/FETCH_HEAD`, `git -C bare.git fetch -q . HEAD`},
		{"the log of a bare repository", `mkdir -p bare.git/logs/refs/heads; ln -s ../../../config bare.git/logs/refs/heads/main`, `git push -q ./bare.git HEAD:main --force`},
	} {
		t.Run(a.name, func(t *testing.T) {
			guest, _ := p.try(p.guest, `set +e; `+a.guest)
			host, err := p.try(p.host, `set +e; `+a.host)
			t.Logf("guest: %s\nhost: %v %s", guest, err, host)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host")
				_ = os.Remove(ran)
			}
			if after := p.sh(p.host, `sha256sum `+guarded); after != before {
				t.Errorf("a guarded file was changed:\n%s\nand before:\n%s", after, before)
			}
			_, _ = p.try(p.host, `find .git bare.git -type l -delete; tar xf `+kept+`; rm -rf sub .git/objects/e; rm -f .git/MERGE_* .git/COMMIT_EDITMSG; test -d .git/logs || mv .git/l2 .git/logs || mkdir .git/logs; : >.git/logs/HEAD`)
		})
	}
}
