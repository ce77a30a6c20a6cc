//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// guardedFiles are files of a project that the host runs or trusts, and hidden ones, with
// their contents on the host.
var guardedFiles = map[string]string{
	".git/HEAD": "ref: refs/heads/main\n", ".git/config": "[core]\n\trepositoryformatversion = 0\n", ".git/hooks/pre-commit": "#!/bin/sh\n",
	".vscode/tasks.json": "{}\n", ".envrc": "host\n", ".claude/settings.json": "{}\n", "bawn.yaml.example": "x\n",
	".env": "SECRET=host\n", "deep/.env.local": "SECRET=host\n", "key.pem": "-----BEGIN PRIVATE KEY-----\n", "ca.pem": "-----BEGIN CERTIFICATE-----\n",
}

// TestGuardedPaths: root in the guest neither changes what the host runs nor sees secrets, by
// whatever means, and git works there as usual.
func TestGuardedPaths(t *testing.T) {
	dir := filepath.Join(shared(t), "guarded")
	for name, text := range guardedFiles {
		writeDeep(t, filepath.Join(dir, name), text)
	}
	for _, d := range []string{".git/objects", ".git/refs/heads"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := sh(t, dir, `exec 2>&1; sudo sh -c '
set +e
p=$PWD; export HOME=/root GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="*"
echo evil >.git/hooks/pre-commit; echo evil >.git/hooks/post-merge; mv .git/hooks .git/h; mkdir -p .git/hooks; echo evil >.git/hooks/pre-push
git config core.fsmonitor evil; git config core.fsmonitor
echo evil >c; mv c .git/config; ln .envrc l && echo evil >l
rm -rf .vscode; mkdir .vscode; echo evil >.vscode/tasks.json; cat .vscode/tasks.json
mkdir m; echo evil >m/settings.json; mv .claude .c2; mv m .claude; ln -s m .gemini; echo evil >.envrc; truncate -s 0 .envrc; chmod 777 .envrc
mkdir -p sub/.idea; echo evil >sub/.idea/workspace.xml; mkdir bare bare/objects bare/refs; echo evil >bare/config; echo "ref: refs/heads/main" >bare/HEAD
mkdir b; mount --bind . b; echo evil >b/.git/hooks/commit-msg; echo evil >/proc/self/root$p/.envrc; echo evil >deep/../.envrc; umount b
cat .env deep/.env.local key.pem; ls -A . deep | grep -x ".env\|.env.local\|key.pem"; ln .env e && cat e; mv .env e && cat e; mv deep d2; cat d2/.env.local; mv d2 deep; cat ca.pem
echo mine >.env; cat .env
git init -q made && cd made && git -c user.name=x -c user.email=x@x commit -q --allow-empty -m one && git config a.b c && git config a.b && git log --oneline | wc -l
'`)
	for name, text := range guardedFiles {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != text {
			t.Errorf("the host's %s is %q, %v", name, b, err)
		}
	}
	for _, name := range []string{".git/hooks/post-merge", ".git/hooks/pre-push", ".git/hooks/commit-msg", "sub/.idea/workspace.xml", "bare/HEAD", ".gemini", "made/.git/config"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("the host has %s", name)
		}
	}
	if strings.Contains(out, "SECRET") || strings.Contains(out, "PRIVATE KEY") {
		t.Errorf("a secret was read:\n%s", out)
	}
	for _, want := range []string{"BEGIN CERTIFICATE", "mine\n", "evil\n", "c\n1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("the guest does not see %q:\n%s", want, out)
		}
	}
	if log := must(t, dir, "files", "log"); !strings.Contains(log, "/guarded/.git/hooks\n") || !strings.Contains(log, "kept") || !strings.Contains(log, "refused") {
		t.Errorf("the log:\n%s", log)
	}
}

// writeDeep writes a file and makes its directory.
func writeDeep(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, text)
}
