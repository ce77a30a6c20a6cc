package guard

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// at makes a place of a path. has are names that the host has in its directory.
func at(path string, folds, isDir bool, has ...string) Place {
	names := strings.Split(path, "/")
	last := len(names) - 1
	return Place{
		Dir: names[:last], Name: names[last], Folds: folds,
		Has:      func(name string) bool { return slices.Contains(has, name) },
		IsDir:    func() bool { return isDir },
		Contains: func([]string) bool { return slices.Contains(has, "secret") },
		Made:     func() bool { return slices.Contains(has, "made") },

		InRepository: func() bool { return slices.Contains(has, "HEAD") && slices.Contains(has, "objects") },
	}
}

func TestJudge(t *testing.T) {
	rules, err := New(Options{Guard: []string{"/deploy/*.sh", "ci/"}, NoGuard: []string{".idea"}, Hide: []string{"private/**"}, Show: []string{".env.ci"}, Paths: []string{"tools/hook"}, HiddenPaths: []string{"config/secrets"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path  string
		want  Kind
		folds bool
		isDir bool
		has   []string
	}{
		{path: ".git/config", want: Guarded}, {path: "a/b/.git/hooks", want: Guarded, isDir: true}, {path: ".git/HEAD"}, {path: ".git/index"}, {path: ".git/info/attributes", want: Guarded},
		{path: ".git/info/exclude"}, {path: ".git/refs/heads/config"}, {path: ".git/refs/heads/hooks"}, {path: ".git/refs/remotes/origin/HEAD"}, {path: ".git/logs/HEAD"},
		{path: ".git/modules/a/b/config", want: Guarded}, {path: ".git/worktrees/w/commondir", want: Guarded}, {path: ".git/worktrees/w/gitdir"},
		{path: ".git/worktrees/w/gitdir", want: Guarded, has: []string{"gitdir"}}, {path: ".git/worktrees/w/gitdir", has: []string{"gitdir", "made"}},
		{path: ".git/objects/x/HEAD", want: Guarded}, {path: ".git/refs/x/objects", want: Guarded, isDir: true}, {path: ".git/refs/x/objects", want: Guarded}, {path: ".git/logs/x/objects", want: Guarded},
		{path: ".git/objects/info/alternates", want: Guarded}, {path: "b.git/objects/info/http-alternates", want: Guarded}, {path: "alternates"}, {path: ".git/remotes", want: Guarded, isDir: true},
		{path: ".git/modules/a/branches", want: Guarded, isDir: true}, {path: ".git/refs/remotes"}, {path: ".git/modules/a/refs/remotes"}, {path: ".git/logs/refs/remotes"}, {path: "remotes"}, {path: "b.git/remotes", want: Guarded, has: []string{"HEAD"}},
		{path: ".git/rebase-merge", want: Guarded, isDir: true}, {path: ".git/worktrees/w/rebase-apply", want: Guarded, isDir: true}, {path: "b.git/worktrees/w/rebase-merge", want: Guarded, isDir: true, has: []string{"HEAD"}}, {path: ".git/refs/heads/sequencer"}, {path: "sequencer"},
		{path: ".git/worktrees", want: Guarded, isDir: true}, {path: ".git/worktrees", isDir: true, has: []string{"worktrees"}}, {path: ".git/refs/heads/worktrees", isDir: true}, {path: "worktrees", isDir: true}, {path: "b.git/worktrees/w/gitdir", want: Guarded, has: []string{"HEAD", "gitdir"}}, {path: "gitdir", has: []string{"gitdir"}},
		{path: ".Git/Config", want: Guarded}, {path: "config"}, {path: "config", want: Guarded, has: []string{"HEAD"}}, {path: "x/hooks", want: Guarded, has: []string{"HEAD"}},
		{path: "x/HEAD", want: Guarded}, {path: "x/HEAD", has: []string{"HEAD"}}, {path: "x/head"}, {path: "x/head", want: Guarded, folds: true},
		{path: "git~1/config"}, {path: "git~1/config", want: Guarded, folds: true}, {path: ".git./config", want: Guarded, folds: true},
		{path: "w/.git", want: Guarded}, {path: "w/.git", isDir: true}, {path: "w/.git", want: Guarded, has: []string{".git", "made"}}, {path: "w/.git", want: Guarded, has: []string{".git"}}, {path: "w/.git", isDir: true, has: []string{".git"}},
		{path: ".vscode", want: Guarded}, {path: "a/.VSCODE", want: Guarded}, {path: ".v\u017fcode", want: Guarded}, {path: ".idea"}, {path: "x.code-workspace", want: Guarded},
		{path: ".claude/settings.json", want: Guarded}, {path: ".claude/CLAUDE.md"}, {path: "CLAUDE.md"}, {path: "settings.json"}, {path: ".gitmodules", want: Noted},
		{path: "deploy/a.sh", want: Guarded}, {path: "x/deploy/a.sh"}, {path: "x/ci", want: Guarded, isDir: true}, {path: "x/ci"}, {path: "tools/hook", want: Guarded}, {path: "Tools/Hook", want: Guarded},
		{path: ".env", want: Hidden}, {path: "a/.env.local", want: Hidden}, {path: ".env.example"}, {path: ".env.ci"}, {path: ".env", isDir: true}, {path: ".environment"},
		{path: "a.pem"}, {path: "a.pem", want: Hidden, has: []string{"secret"}}, {path: "a.pem", has: []string{"secret", "made"}}, {path: ".npmrc"}, {path: ".aws", want: Hidden, isDir: true},
		{path: ".env~", want: Hidden}, {path: "#.env#", want: Hidden}, {path: ".#.env", want: Hidden}, {path: "id_rsa.bak", want: Hidden}, {path: ".id_rsa.swp", want: Hidden}, {path: ".env___jb_tmp___", want: Hidden},
		{path: "tls.key~"}, {path: "tls.key~", want: Hidden, has: []string{"secret"}}, {path: "main.go~"}, {path: ".vscode~"},
		{path: ".g\u200cit/config"}, {path: ".g\u200cit/config", want: Guarded, folds: true}, {path: ".git/con\ufb01g", want: Guarded, folds: true}, {path: ".vscode::$INDEX_ALLOCATION", want: Guarded, folds: true},
		{path: ".hg/hgrc", want: Guarded}, {path: "hgrc"}, {path: ".jj/repo/config.toml", want: Guarded}, {path: "repo/config.toml"}, {path: ".Rprofile", want: Guarded}, {path: ".envrc.local", want: Guarded},
		{path: ".jj/repo", want: Guarded}, {path: ".jj/repo", isDir: true}, {path: ".jj/repo/store/git_target"}, {path: ".jj/repo/store/git_target", want: Guarded, has: []string{"git_target"}}, {path: ".jj/repo/store/git_target", has: []string{"git_target", "made"}},
		{path: ".lefthook/pre-commit", isDir: true}, {path: ".lefthook", want: Guarded, isDir: true}, {path: "lefthook-local.toml", want: Guarded}, {path: "lefthook.go"}, {path: ".autoenv.zsh", want: Guarded}, {path: ".mise.production.toml", want: Guarded}, {path: "mise.toml.md"},
		{path: ".project", want: Guarded}, {path: ".project", isDir: true}, {path: "jupyter_server_config.py", want: Guarded}, {path: "jupyter_config.json"}, {path: ".pi", want: Guarded, isDir: true}, {path: ".agents/plugins", want: Guarded, isDir: true}, {path: ".agents/notes", isDir: true}, {path: ".cursor/rules", isDir: true},
		{path: ".envrc", want: Guarded}, {path: ".envrc", want: Hidden, has: []string{"secret"}}, {path: ".envrc", want: Guarded, has: []string{"secret", "made"}}, {path: ".env-prod", want: Hidden}, {path: "prod.env"}, {path: "prod.env", want: Hidden, has: []string{"secret"}}, {path: ".dev.vars.example"}, {path: ".dev.vars.local", want: Hidden},
		{path: "id_rsa_work", want: Hidden, has: []string{"secret"}}, {path: "id_card.png"}, {path: "deploy_ed25519", want: Hidden, has: []string{"secret"}}, {path: "shop-0a1b2c3d4e5f.json", want: Hidden, has: []string{"secret"}}, {path: "shop-0a1b2c3d4e5g.json", has: []string{"secret"}}, {path: "x-firebase-adminsdk-q-1.json", want: Hidden, has: []string{"secret"}},
		{path: "debug.keystore"}, {path: "release.keystore", want: Hidden}, {path: "my.service.account.json", want: Hidden, has: []string{"secret"}}, {path: "terraform.tfstate.backup", want: Hidden, has: []string{"secret"}}, {path: "terraform.tfstate.d", isDir: true, has: []string{"secret"}}, {path: "kubeconfig.go"}, {path: "UTC--2026-01-01", want: Hidden},
		{path: "config/secrets", want: Hidden}, {path: "secrets"}, {path: "private/x/y", want: Hidden}, {path: "README.md"},
		{path: "dotfiles/.bashrc", want: Guarded}, {path: ".config/fish", want: Guarded, isDir: true}, {path: "fish", isDir: true}, {path: ".gitconfig", want: Guarded}, {path: ".github/hooks/x.json"}, {path: ".github/hooks", want: Guarded, isDir: true},
		{path: ".github/workflows", isDir: true}, {path: "hooks", isDir: true}, {path: "mcp.json"}, {path: ".kilocode/mcp.json", want: Guarded}, {path: "skills", isDir: true}, {path: ".agents/skills", want: Guarded, isDir: true},
	} {
		if got, _ := rules.Judge(at(c.path, c.folds, c.isDir, c.has...)); got != c.want {
			t.Errorf("%s (folds %v, directory %v, has %v): %v, want %v", c.path, c.folds, c.isDir, c.has, got, c.want)
		}
	}
}

func TestLinksThatLeadAway(t *testing.T) {
	rules, err := New(Options{Guard: []string{"/deploy/*.sh", "ci/jobs/", "a/**/b", "x.sh"}, Hide: []string{"config/prod.yml"}, Paths: []string{"tools/git/hooks"}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		".claude": true, "a.d/.config": true, ".Claude": true, ".git/info": true, "info": false, "src": false, ".git/modules": false, ".git/objects/info": true, ".git/refs": true, ".git/modules/m/logs": true, ".git/refs/heads/logs": false, "logs": false,
		"deploy": true, "x/deploy": false, "ci": true, "x/ci": false, "a": true, "a/x": true, "a/x/y": true, "b": false, "x.sh": false, "config": true, "Config": true,
		"tools": true, "tools/git": true, "tools/git/hooks": false, "git": false,
	} {
		if got := rules.MayLeadAway(at(path, false, false)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	for path, want := range map[string]bool{"b.git/info": true, "b.git/objects": true, "b.git/logs": true, "b.git/x": false} {
		if got := rules.MayLeadAway(at(path, false, false, "HEAD")); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestLinksOutOfARepository(t *testing.T) {
	rules, err := New(Options{NoGuard: []string{"mine/.git/x"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, target string
		want         bool
		has          []string
	}{
		{path: ".git/x", target: "/etc", want: true}, {path: ".git/x", target: "y"}, {path: ".git/x", target: "y/z"}, {path: ".git/x", target: "./y/z", want: true}, {path: ".git/x", target: "../y", want: true},
		{path: ".git/a/x", target: "../y", want: true}, {path: ".git/HEAD", target: "refs/heads/main"}, {path: ".hg/wlock", target: "host/f0000000:12"}, {path: ".git/.#x", target: "me@host.12:34"},
		{path: ".git/x", target: "config", want: true}, {path: ".git/x", target: "hooks//pre-commit", want: true}, {path: ".git/x", target: "hooks/", want: true}, {path: ".git/x", target: "modules/m/config", want: true},
		{path: ".git/x", target: "objects/e/HEAD", want: true}, {path: ".git/x", target: "worktrees/w/gitdir", want: true}, {path: ".git/x", target: "info", want: true}, {path: ".git/x", target: "info/attributes", want: true},
		{path: ".git/x", target: "objects", want: true}, {path: ".git/modules/m/x", target: "logs", want: true}, {path: ".git/x", target: ".", want: true}, {path: ".git/x", target: "", want: false}, {path: ".hg/x", target: "hgrc", want: true},
		{path: "b.git/x", target: "config", want: true, has: []string{"HEAD", "objects"}}, {path: ".git/a/x", target: "../../y", want: true}, {path: ".git/a/x", target: "y/../../z", want: true}, {path: "a/.GIT/b/x", target: "/y", want: true},
		{path: ".hg/x", target: "/y", want: true}, {path: "src/x", target: "/y"}, {path: ".git", target: "../y"}, {path: "b.git/x", target: "/y"}, {path: "b.git/x", target: "/y", want: true, has: []string{"HEAD", "objects"}},
		{path: "mine/.git/x", target: "/y"},
	} {
		if got := rules.LeadsOut(at(c.path, false, false, c.has...), c.target); got != c.want {
			t.Errorf("%s -> %s: %v", c.path, c.target, got)
		}
	}
}

func TestGuards(t *testing.T) {
	rules, err := New(Options{Paths: []string{"tools/hook"}})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]bool{
		".git/config": true, "a/.git/hooks/pre-push": true, ".vscode/x": true, "tools/hook": true, ".env": true, ".git": true, ".git/x": false, "src/config": false, ".git/COMMIT_EDITMSG": false, "src/main.go": false, "tools": false,
	} {
		if rules.Guards(at) != want {
			t.Errorf("%s: %v", at, !want)
		}
	}
}

func TestCandidatesAreFew(t *testing.T) {
	rules, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"main.go", "index.js", "README.md", "node_modules", "src", "package.json", "ab12cd", "HEAD.lock"} {
		if rules.Candidate(name) {
			t.Errorf("%s costs a judgement", name)
		}
	}
}

func TestPatternsThatMakeNoSense(t *testing.T) {
	for pattern, column := range map[string]int{
		"": 1, "!a": 1, "#a": 1, "/": 1, "//": 1, "a\x20": 2, "a/../b": 3, "./a": 1, "a/b**": 4, "a[": 1, "x/a[b": 3, "a\\": 1, "a\x1bb": 2, "\xff": 1, strings.Repeat("a", 1025): 1024,
	} {
		var bad *PatternError
		if err := CheckPattern(pattern); !errors.As(err, &bad) || bad.Column != column {
			t.Errorf("%q: %v, want column %d", pattern, err, column)
		}
	}
	for _, pattern := range []string{"a", "/a", "a/", "*.sh", "**/x", "a/**", "a/**/b", `\#a`, "[ab]", "ü"} {
		if err := CheckPattern(pattern); err != nil {
			t.Errorf("%q: %v", pattern, err)
		}
	}
}

// TestTargetsOfTheUser: the user's configuration counts too, as do included files, the home in a path, links
// on its way, and the repository of a working tree.
func TestTargetsOfTheUser(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", top)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(top, "xdg"))
	root := filepath.Join(top, "project")
	for name, text := range map[string]string{
		".gitconfig":                      "[core]\n\thooksPath = hooks\n[include]\n\tpath = more.inc\n",
		"more.inc":                        "[core]\n\tfsmonitor = ~/project/monitor\n",
		"xdg/git/config":                  "[include]\n\tpath = " + top + "/link/shared.inc\n",
		"project/monitor":                 "",
		"project/.git":                    "gitdir: ../main/.git/worktrees/w\n",
		"main/.git/worktrees/w/commondir": "../..\n",
		"main/.git/config":                "[core]\n\tsshCommand = ./ssh.sh\n",
		"project/ssh.sh":                  "",
	} {
		put(t, filepath.Join(top, name), text, 0o644)
	}
	if err := os.Symlink(root, filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	got, _ := Targets(root)
	slices.Sort(got)
	if want := []string{"hooks", "monitor", "shared.inc", "ssh.sh"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTheRootsOwnPathCounts(t *testing.T) {
	rules, err := New(Options{Prefix: []string{"home", "user", ".claude"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := rules.Judge(at("settings.json", false, false)); got != Guarded {
		t.Errorf("settings.json: %v", got)
	}
	if got, _ := rules.Judge(at("notes/settings.json", false, false)); got != Free {
		t.Errorf("notes/settings.json: %v", got)
	}
}

func TestTargets(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	root := t.TempDir()
	for _, d := range []string{".git", "scripts", "agents", "config"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		".git/config":     "[core]\n\thooksPath = scripts/hooks\n\tfsmonitor = \"./scripts/monitor -v\"\n[include]\n\tpath = ../git.inc\n[includeIf \"gitdir:x\"]\n\tpath = /outside\n[filter \"x\"]\n\tclean = sh scripts/clean %f\n[remote \"origin\"]\n\turl = scripts/monitor\n",
		"scripts/monitor": "", "scripts/clean": "", "agents/mcp.json": "", "config/secrets": "",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("agents/mcp.json", filepath.Join(root, ".mcp.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("config/secrets", filepath.Join(root, ".env")); err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatal(err)
	}
	got, hidden := Targets(real)
	if !slices.Equal(hidden, []string{"config/secrets"}) {
		t.Errorf("hidden: %q", hidden)
	}
	slices.Sort(got)
	if want := []string{"agents/mcp.json", "git.inc", "scripts/clean", "scripts/hooks", "scripts/monitor"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, hidden := Targets(t.TempDir()); got != nil || hidden != nil {
		t.Errorf("of nothing: %q, %q", got, hidden)
	}
}

// TestTargetsOfHooks: files that hooks of agents and of git run, and what .envrc loads and puts on the PATH, are
// guarded; others that these files name are not.
func TestTargetsOfHooks(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		".claude/settings.json": `{"permissions": {"allow": ["Read(./src/main.ts)"]}, "env": {"command": "src/main.ts"}, "statusLine": {"command": "sh tools/line.sh"}, "apiKeyHelper": "tools/key",
			"hooks": {"PreToolUse": [{"matcher": "src/main.ts", "hooks": [{"type": "command", "command": "\"$CLAUDE_PROJECT_DIR\"/tools/lint.sh --fix; python3 ${CLAUDE_PROJECT_DIR}/tools/check.py"}]}]}}`,
		".cursor/hooks.json":    `{"version": 1, "hooks": {"stop": [{"command": "./tools/stop.sh"}]}}`,
		".github/hooks/a.json":  `{"hooks": {"sessionStart": [{"bash": "tools/start.sh"}]}}`,
		".gemini/settings.json": `not JSON`,
		".envrc":                "# source tools/comment.sh\nwatch_file package.json\nexport A=package.json\n  source_env tools/env.sh\nuse flake\n. ./tools/dot.sh\n./tools/run.sh\nsource /etc/profile\nuse\n\nPATH_add bin\nexport PATH=$PWD/more/bin:src:$PATH\nlayout node\n",
		"mise.toml":             "[env]\n_.path = [\"./made\", \"{{config_root}}/tools\"]\n[tasks]\nx = 'package.json'\n",
		".husky/pre-commit":     "#!/bin/sh\nnode ./hooks/a.js package.json src/gone.js\n", ".husky/_/h": "hooks/e.sh",
		".pre-commit-config.yaml": "repos:\n- repo: local\n  hooks:\n  - id: x\n    entry: hooks/b.sh --fix\n    files: ^src/main\\.ts$\n",
		".git/hooks/pre-push":     "exec \"$(git rev-parse --show-toplevel)/hooks/c\"\n", ".git/hooks/pre-push.sample": "hooks/d.sh\n",
		"hooks/a.js": "", "hooks/b.sh": "", "hooks/c": "", "hooks/d.sh": "", "hooks/e.sh": "",
		"package.json": "", "flake.nix": "", "shell.nix": "", "src/main.ts": "",
		"tools/lint.sh": "", "tools/check.py": "", "tools/stop.sh": "", "tools/start.sh": "", "tools/line.sh": "", "tools/key": "", "tools/env.sh": "", "tools/dot.sh": "", "tools/run.sh": "", "tools/comment.sh": "", "tools/other.sh": "",
	} {
		put(t, filepath.Join(root, name), text, 0o644)
	}
	if err := os.Chmod(filepath.Join(root, "hooks/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	got, _ := Targets(root)
	slices.Sort(got)
	want := []string{"bin", "flake.nix", "hooks/a.js", "hooks/b.sh", "hooks/c", "made", "more/bin", "node_modules/.bin", "src", "tools", "tools/check.py", "tools/dot.sh", "tools/env.sh", "tools/key", "tools/line.sh", "tools/lint.sh", "tools/run.sh", "tools/start.sh", "tools/stop.sh"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPresent(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{".env": "", "a/.env.local": "", "node_modules/.env": "", "a/x.pem": "-----BEGIN PRIVATE KEY-----", "a/ca.pem": "-----BEGIN CERTIFICATE-----", ".aws/credentials": ""} {
		put(t, filepath.Join(root, name), text, 0o644)
	}
	rules, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, more := rules.Present(root, 10); more || !slices.Equal(got, []string{".aws", ".env", "a/.env.local", "a/x.pem"}) {
		t.Errorf("%q, %v", got, more)
	}
	if got, more := rules.Present(root, 2); !more || len(got) != 2 {
		t.Errorf("%q, %v", got, more)
	}
}

// TestHidesIn: whether a rule about contents hides a file is told by the file that is there.
func TestHidesIn(t *testing.T) {
	r, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for name, text := range map[string]string{".envrc": "export API_TOKEN=abcdefghijklmnop\n", "sub/.envrc": "use flake\n", "sub/.env": "A=b\n"} {
		put(t, filepath.Join(root, name), text, 0o600)
	}
	for at, want := range map[string]bool{".envrc": true, "sub/.envrc": false, "none/.envrc": false, "sub/.env": true, "none/.env": true, "sub/Makefile": false} {
		if got := r.HidesIn(root, at); got != want {
			t.Errorf("%s: %v", at, got)
		}
	}
}
