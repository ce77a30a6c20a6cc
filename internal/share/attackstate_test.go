package share

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/share/guard"
)

// TestAttackStateOfABisection: the guest writes shell text into the state of a bisection, the host's or
// one that it makes up, and the host's person looks at it. git before 2.40 evaluates BISECT_NAMES.
func TestAttackStateOfABisection(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	evil := `echo "\$(touch ` + ran + `)"`
	const history = ` && for i in 2 3 4 5 6 7 8 9; do echo $i >f; git commit -q -a -m $i; done`
	for _, a := range []struct{ name, begin, guest, host string }{
		{"of the host", `git bisect start HEAD HEAD~7`, evil + ` >.git/BISECT_NAMES`, `git bisect visualize --oneline; git bisect good; git bisect view --oneline`},
		{"another file in its place", `git bisect start HEAD HEAD~7`, evil + ` >n; mv n .git/BISECT_NAMES; ` + evil + ` >n; rm -f .git/BISECT_NAMES; ln n .git/BISECT_NAMES`, `git bisect visualize --oneline`},
		{"by another case", `git bisect start HEAD HEAD~7`, evil + ` >.git/bisect_names; ` + evil + ` >.git/BISECT_NAMES.lock`, `git bisect visualize --oneline`},
		{"that the guest begins", `:`, `git bisect start HEAD HEAD~7; ` + evil + ` >.git/BISECT_NAMES`, `git bisect visualize --oneline; git bisect log; git bisect reset`},
		{"of a linked working tree", `git worktree add -q wt; cd wt; git bisect start HEAD HEAD~7`, evil + ` >.git/worktrees/wt/BISECT_NAMES`, `cd wt; git bisect visualize --oneline`},
		{"of a bare repository", `git clone -q --bare . b.git; cd b.git; git bisect start --no-checkout HEAD HEAD~7`, evil + ` >b.git/BISECT_NAMES`, `cd b.git; git bisect visualize --oneline`},
	} {
		t.Run(a.name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) {
				p.sh(p.host, `{ `+repository+history+`; } && { `+a.begin+`; }`)
			})
			guest, _ := p.try(p.guest, `set +e; `+a.guest)
			host, err := p.try(p.host, `set +e; `+a.host)
			t.Logf("guest: %s\nhost: %v %s", guest, err, host)
			if out, _ := p.try(p.host, `grep -rl touch --include='BISECT_*' . || true`); out != "" {
				t.Errorf("the host has the guest's text in %s", out)
			}
			if _, err := os.Stat(ran); err == nil {
				t.Error("what the guest wrote was run on the host")
				_ = os.Remove(ran)
			}
		})
	}
	// The guest's own bisection goes on as usual, finds the commit, and leaves nothing.
	p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, repository+history) })
	out := p.sh(p.guest, `git bisect start HEAD HEAD~7; git bisect run sh -c 'test "$(cat f)" -lt 6'; git bisect log >log; test -s log; git bisect reset; git bisect replay log; git bisect reset; git status; test "$(git branch --show-current)" = main`)
	if want := "is the first bad commit"; !strings.Contains(out, want) {
		t.Errorf("it does not say %q:\n%s", want, out)
	}
	if got := p.sh(p.host, `rm log; git status --porcelain; ls .git | grep BISECT || true; git for-each-ref refs/bisect`); got != "" {
		t.Errorf("it leaves %q", got)
	}
}

// TestAttackAFileThatTheHostIsSaving: git, editors and libraries write a file under a name beside it, and
// rename it. A guest that finds the name meanwhile writes what then lies at the guarded path.
func TestAttackAFileThatTheHostIsSaving(t *testing.T) {
	for _, a := range []struct{ temp, path string }{
		{".git/config.lock", ".git/config"}, {".git/config.worktree.lock", ".git/config.worktree"}, {"bare.git/config.lock", "bare.git/config"},
		{".git/modules/m/config.lock", ".git/modules/m/config"}, {".git/worktrees/w/config.worktree.lock", ".git/worktrees/w/config.worktree"},
		{".envrc.tmp", ".envrc"}, {".mcp.json___jb_tmp___", ".mcp.json"}, {"sub/mise.toml.tmp", "sub/mise.toml"}, {".MCP.json.tmp", ".mcp.json"},
		{"deploy.sh.tmp", "deploy.sh"},
	} {
		t.Run(a.temp, func(t *testing.T) {
			p := newProject(t, guard.Options{Guard: []string{"deploy.sh"}}, func(p *project) {
				p.sh(p.host, repository+` && mkdir -p sub .git/modules .git/worktrees/w && git init -q --bare bare.git && git clone -q --bare . .git/modules/m && echo ../.. >.git/worktrees/w/commondir`)
			})
			p.sh(p.host, `printf 'of the host\n' >`+a.temp)
			out, _ := p.try(p.guest, `set +e; cat `+a.temp+`; echo evil >>`+a.temp+`; cat `+a.temp+`; echo evil >x; mv x `+a.temp+`; exec 3<>`+a.temp+`; echo evil >&3`)
			t.Log(out)
			p.sh(p.host, `mv `+a.temp+` `+a.path)
			p.hostHas(a.path, "of the host\n")
		})
	}
	// The guest saves in the same way.
	p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, repository) })
	p.sh(p.guest, `git config a.b c; git config a.b; git remote add o x; git branch -q --track t main; git switch -q -c u; git config --unset a.b
		for f in .envrc .mcp.json mise.toml; do echo one >$f.tmp; mv $f.tmp $f; cat $f; test ! -e $f.tmp; done; echo two >f.lock; mv f.lock f; test "$(git config remote.o.url)" = x; git commit -qam two`)
	p.hostHas(".git/config.lock", "")
	p.hostHas(".envrc", "")
	p.hostHas("f", "two\n")
	p.sh(p.host, `git config x.y z; git log -1 --format=%s | grep -qx two; ! git config remote.o.url`)
}

// TestAttackAMarkThatPutsAFolderOnThePath: with PATH=.git/safe/../../bin the folder .git/safe says that the person trusts the
// programs of the project (github.com/thoughtbot/dotfiles).
func TestAttackAMarkThatPutsAFolderOnThePath(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	const use = `export PATH=".git/safe/../../bin:$PATH"; uname`
	for name, marked := range map[string]string{"of the guest": ``, "of the host": ` && mkdir .git/safe && mkdir bin && printf '#!/bin/sh\n' >bin/other`} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) { p.sh(p.host, repository+marked) })
			_, _ = p.try(p.guest, `set +e; mkdir .git/safe; mkdir d; mv d .git/safe; git branch safe; mkdir -p bin; printf '#!/bin/sh\ntouch `+ran+`\n' >bin/uname; chmod +x bin/uname; cp bin/uname bin/other; bin/uname`)
			_ = os.Remove(ran) // it ran in the guest
			out, err := p.try(p.host, use)
			t.Logf("%v %s", err, out)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host")
				_ = os.Remove(ran)
			}
		})
	}
}

// TestAttackWhatGitLooksUpByItself: the guest prepares state that git reads without being asked (missing objects, caches
// of the index, lists of objects, resolutions, an archive of references), and names a program wherever git knows one for it. The
// host's person uses git, and nothing runs.
func TestAttackWhatGitLooksUpByItself(t *testing.T) {
	outside := t.TempDir()
	ran := filepath.Join(outside, "ran")
	evil := filepath.Join(outside, "evil")
	if err := os.WriteFile(evil, []byte("#!/bin/sh\ntouch "+ran+"\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	const all = `git status; git diff; git log -p --all; git fsck; git gc -q; git fetch --all; git stash; git commit -q --allow-empty -m x; git switch -q topic; git merge main; git push; git maintenance run --task=prefetch; git prune; git blame f; git show HEAD:f; git show :g; git worktree list`
	for name, guest := range map[string]string{
		"objects that a promisor has": `git repack -q -a -d; for p in .git/objects/pack/*.pack; do : >"${p%.pack}.promisor"; done; git config core.repositoryformatversion 1; git config extensions.partialClone evil
			git config remote.evil.promisor true; git config remote.evil.url 'ext::` + evil + `'; git config remote.evil.uploadpack ` + evil + `; git config protocol.ext.allow always
			echo gone >g; h=$(git hash-object -w g); git update-index --add --cacheinfo 100644,$h,g; rm -f .git/objects/$(echo $h | cut -c1-2)/$(echo $h | cut -c3-)`,
		"a promisor in the old form":               `mkdir -p .git/remotes .git/branches; printf 'URL: ext::` + evil + `\nPull: refs/heads/main\n' >.git/remotes/origin; echo 'ext::` + evil + `' >.git/branches/origin`,
		"a monitor of the index":                   `git config core.fsmonitor ` + evil + `; git config core.fsmonitorHookVersion 1; git update-index --fsmonitor; git status`,
		"an untracked cache":                       `git config core.untrackedCache true; git update-index --force-untracked-cache; git status; git update-index --split-index`,
		"a sparse check-out":                       `git sparse-checkout set --no-cone '/*'; echo '!f' >>.git/info/sparse-checkout; git config --worktree core.fsmonitor ` + evil + ` || true`,
		"a bundle of a server":                     `git config fetch.bundleURI file://` + outside + `/bundle; git config transfer.bundleURI true; git config remote.origin.url .; git config remote.origin.uploadpack ` + evil,
		"recorded resolutions":                     `git config rerere.enabled true; git switch -q topic; git merge main || true; echo solved >f; git commit -qam solved; git reset -q --hard HEAD~1; for d in .git/rr-cache/*; do printf '#!/bin/sh\ntouch ` + ran + `\n' >$d/postimage; chmod +x $d/postimage; done; git switch -q main`,
		"grafts and replacements":                  `git rev-parse HEAD >.git/info/grafts; git rev-parse HEAD~1 >.git/shallow; git replace HEAD HEAD~1; git pack-refs --all`,
		"a graph of commits and an index of packs": `git repack -q -d; git commit-graph write --reachable; git multi-pack-index write; printf x >>.git/objects/info/commit-graph || { chmod u+w .git/objects/info/commit-graph; printf x >>.git/objects/info/commit-graph; }`,
		"objects of a neighbour":                   `mkdir -p n; git init -q --bare n/o.git; mkdir -p .git/objects/info; echo ../../n/o.git/objects >.git/objects/info/alternates; git config core.alternateRefsCommand ` + evil,
		"drivers by attributes":                    `printf '* filter=evil diff=evil merge=evil\n' >.gitattributes; mkdir -p .git/info; cp .gitattributes .git/info/attributes; for k in filter.evil.clean filter.evil.smudge filter.evil.process diff.evil.command diff.evil.textconv merge.evil.driver; do git config $k ` + evil + `; done; git config filter.evil.required true`,
		"LFS and submodules":                       `printf '[lfs]\n\turl = ssh://-oProxyCommand=` + evil + `/x\n[core]\n\tfsmonitor = ` + evil + `\n' >.lfsconfig; printf '[submodule "m"]\n\tpath = m\n\turl = -u` + evil + `\n\tupdate = !` + evil + `\n' >.gitmodules; git add .gitmodules; git config submodule.m.update '!` + evil + `'; git config submodule.recurse true`,
		"names of branches":                        `h=$(git rev-parse HEAD); for n in --upload-pack=` + evil + ` -u '$(touch ` + ran + `)' ';touch x' '--exec=x'; do d=.git/refs/heads/$n; mkdir -p "$(dirname -- "$d")"; echo $h >"$d"; done; true`,
		"a stash for a merge":                      `git stash create >.git/MERGE_AUTOSTASH; git rev-parse topic >.git/MERGE_HEAD; printf '#!/bin/sh\ntouch ` + ran + `\n' >.git/MERGE_MSG; echo no-ff >.git/MERGE_MODE; cp .git/MERGE_MSG .git/SQUASH_MSG; cp .git/MERGE_MSG .git/gc.log; echo "1 x" >.git/gc.pid`,
	} {
		t.Run(name, func(t *testing.T) {
			p := newProject(t, guard.Options{}, func(p *project) {
				p.sh(p.host, repository+` && git branch topic && echo two >f && git commit -qam two && git switch -q topic && echo three >f && git commit -qam three && git switch -q main && echo four >f`)
			})
			config := readText(t, filepath.Join(p.host, ".git/config"))
			out, _ := p.try(p.guest, `set +e; `+guest)
			_ = os.Remove(ran)
			_, _ = p.try(p.guest, `set +e; git status; git add -A; git show :g; git fetch --all`)
			if _, err := os.Stat(ran); err != nil && slices.Contains([]string{"a monitor of the index", "drivers by attributes", "objects that a promisor has"}, name) {
				t.Error("it does not run where it holds, in the guest: the attack is none")
			}
			_ = os.Remove(ran)
			host, err := p.try(p.host, `set +e; export GIT_EDITOR=true GIT_PAGER=cat; `+all)
			t.Logf("guest: %s\nhost: %v %s", out, err, host)
			if _, err := os.Stat(ran); err == nil {
				t.Error("the guest's program ran on the host")
				_ = os.Remove(ran)
			}
			if got := readText(t, filepath.Join(p.host, ".git/config")); got != config {
				t.Errorf("the host's configuration is %q", got)
			}
		})
	}
}
