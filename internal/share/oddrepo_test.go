package share

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// TestADamagedRepository: git in the guest says of a damaged repository what git on the host says, and
// what is guarded stays so.
func TestADamagedRepository(t *testing.T) {
	for name, damage := range map[string]string{
		"a reference of garbage":           `echo garbage >.git/refs/heads/broken; : >.git/refs/heads/empty`,
		"a reference that leads to a loop": `ln -s loop .git/refs/heads/loop; echo 'ref: refs/heads/b' >.git/refs/heads/a; echo 'ref: refs/heads/a' >.git/refs/heads/b`,
		"HEAD of garbage":                  `echo garbage >.git/HEAD`,
		"HEAD that is a directory":         `rm .git/HEAD; mkdir .git/HEAD`,
		"no objects":                       `rm -rf .git/objects/??`,
		"alternates that lead outside":     `echo /nowhere/objects >.git/objects/info/alternates; echo ../../../../../etc >>.git/objects/info/alternates`,
		"alternates that lead to itself":   `echo ../objects >.git/objects/info/alternates`,
		"a configuration of garbage":       `printf '[core\n\377' >.git/config`,
		"a file .git that leads to itself": `rm -rf .git; echo 'gitdir: .git' >.git`,
		"files .git in a circle":           `mkdir a b; mv .git old; echo 'gitdir: a/.git' >.git; echo 'gitdir: ../b/.git' >a/.git; echo 'gitdir: ../.git' >b/.git`,
		"a commondir that leads to itself": `mkdir -p .git/worktrees/x; echo . >.git/worktrees/x/commondir; echo . >.git/commondir`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, repository+`; `+damage) })
			p.fs.rules.Present(p.host, 10)
			guard.Targets(p.host)
			ask := func(dir string) string {
				out, err := p.try(dir, `set +e; exec 2>&1; export GIT_DISCOVERY_ACROSS_FILESYSTEM=1; git status --short; git log --oneline; git branch -a; git fsck; git rev-parse --git-dir; git worktree list; true`)
				if err != nil {
					t.Fatal(err)
				}
				return strings.ReplaceAll(out, dir, "DIR")
			}
			if host, guest := ask(p.host), ask(p.guest); host != guest {
				t.Errorf("the guest's git says\n%s\nand the host's\n%s", guest, host)
			}
			_, _ = p.try(p.guest, `set +e; git config a.b c; git gc -q; git pack-refs --all; git worktree prune; mkdir -p .git/hooks; echo evil >.git/hooks/pre-commit; echo evil >.git/config; true`)
			for _, at := range []string{".git/hooks/pre-commit", ".git/config"} {
				if b, err := os.ReadFile(filepath.Join(p.host, at)); err == nil && strings.Contains(string(b), "evil") {
					t.Errorf("the host's %s is the guest's", at)
				}
			}
		})
	}
}

// TestOddNamesAreGuarded: names that are no UTF-8, the longest names, and paths that are longer than
// the kernel takes in one call; with a repository below them.
func TestOddNamesAreGuarded(t *testing.T) {
	p := newProject(t, guard.Options{}, nil)
	long := strings.Repeat("n", 253) // the store adds two bytes
	for _, step := range []string{
		`d=$(printf 'a\377b\n'); mkdir "$d" "$d/.vscode"; echo evil >"$d/.vscode/tasks.json"; echo evil >"$d/.envrc"; grep -q evil "$d/.envrc"; echo ok >"$d/$d"`,
		`mkdir .vscode; f=$(printf '\377.json'); echo evil >".vscode/$f"; grep -q evil ".vscode/$f"; mv ".vscode/$f" .vscode/x; ls .vscode | grep -qx x`,
		`mkdir ` + long + `; cd ` + long + `; echo evil >.envrc; echo evil >.env; grep -q evil .envrc; echo ok >` + long,
		`git init -q "$(printf 'r\377')"; cd "$(printf 'r\377')"; git config a.b evil; test "$(git config a.b)" = evil; f=$(printf '\377'); echo x >"$f"; git add .; git commit -qm x; git mv "$f" y; git status --short`,
		`mkdir ` + long + `xx; cd ` + long + `xx; ! echo evil >.envrc; ! mkdir .vscode; echo ok >free`, // refused, not let through
		// deeper than PATH_MAX: by steps
		`i=0; while [ $i -lt 40 ]; do mkdir ` + long[:200] + `; cd -P ` + long[:200] + `; i=$((i+1)); done; echo ok >file; cat file; set +e; mkdir .vscode && echo evil >.vscode/tasks.json; echo evil >.envrc; mkdir -p .git/hooks; echo evil >.git/hooks/x; echo evil >.git/config; true`,
	} {
		if out, err := p.try(p.guest, step); err != nil {
			t.Errorf("%s: %v\n%s", step, err, out)
		}
	}
	if out := p.sh(p.host, `find . \( -path '*vscode*' -o -name '.env*' -o -name config -o -path '*hooks/x' \) -print; find . -type f -name file | wc -l; find . -name '`+long+`' -type f | wc -l`); out != "1\n1\n" {
		t.Errorf("the host has %q", out)
	}
}

// TestAFileSystemThatFoldsCase: a share whose file system takes names of another case for the same
// (played by the server: this file system need not have it) guards them, their short names and their
// streams, when they are made, changed, linked and renamed.
func TestAFileSystemThatFoldsCase(t *testing.T) {
	p := newProject(t, guard.Options{}, func(p *project) {
		p.folds = true
		p.sh(p.host, `mkdir plain .git; echo host >.git/config`)
	})
	evil := []string{`.ENVRC`, `.GIT/config`, `git~1/hooks/x`, `.git /config`, `.git./hooks/x`, `.vscode::$INDEX_ALLOCATION/tasks.json`, `.v` + "\u017f" + `code/tasks.json`, `.g` + "\u200c" + `it/config`, `.MCP.json.`, `b/head`}
	for _, at := range evil {
		for _, way := range []string{`mkdir -p "${at%/*}"; echo evil >"$at"`, `echo evil >plain/x; mv plain/x "$at"`, `mkdir -p plain/d; echo evil >plain/d/x; ln plain/d/x "$at"`, `mv plain/d "${at%/*}"`} {
			_, _ = p.try(p.guest, `set +e; at='`+at+`'; test "${at%/*}" != "$at" || at="./$at"; `+way+`; true`)
		}
		if out := p.sh(p.host, `grep -rl evil . || true`); strings.Contains(out, at) {
			t.Errorf("%s: the host has %s", at, out)
		}
	}
	p.hostHas(".git/config", "host\n")
}
