//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSSH reaches the guest with the real ssh, sftp, rsync and git.
func TestSSH(t *testing.T) {
	dir := temp(t)
	config := filepath.Join(base, "ssh_config")
	writeFile(t, config, must(t, dir, "ssh-config"))
	run := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), args[0], args[1:]...)
		c.Dir = dir
		c.Env = environment()
		out, err := c.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if got := run("ssh", "-F", config, "bawn-shared", "echo $((6*7)); id -u"); got != fmt.Sprintf("42\n%d\n", os.Getuid()) {
		t.Errorf("ssh: %q", got)
	}
	writeFile(t, filepath.Join(dir, "batch"), "put batch /tmp/put\nget /tmp/put got\nls /tmp\n")
	run("sftp", "-F", config, "-b", "batch", "bawn-shared")
	if readFile(t, filepath.Join(dir, "got")) != readFile(t, filepath.Join(dir, "batch")) {
		t.Error("sftp changed the file")
	}
	for umask, want := range map[string]string{"027": "0027 640 750 640\n", "077": "0077 600 700 600\n"} { // of the shell that calls ssh
		run("sh", "-c", "rm -rf by-*; umask "+umask+`; ssh -F "$0" bawn-shared "cd '$PWD'; umask >by-ssh; mkdir by-mkdir"; umask 0; cp batch by-cp; umask `+umask+
			`; printf 'put by-cp %s/by-sftp\n' "'$PWD'" | sftp -q -F "$0" -b - bawn-shared`, config)
		if got := run("sh", "-c", "echo $(cat by-ssh) $(stat -c %a by-ssh by-mkdir by-sftp)"); got != want {
			t.Errorf("umask %s: %q, want %q", umask, got, want)
		}
	}
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		writeFile(t, filepath.Join(tree, fmt.Sprint(i)), strings.Repeat(fmt.Sprint(i), 1000))
	}
	run("rsync", "-a", "-e", "ssh -F "+config, tree+"/", "bawn-shared:/tmp/rsynced/")
	run("rsync", "-a", "-e", "ssh -F "+config, "bawn-shared:/tmp/rsynced/", filepath.Join(dir, "back")+"/")
	run("diff", "-r", tree, filepath.Join(dir, "back"))
	sh(t, dir, "git init -q /tmp/repo && cd /tmp/repo && git -c user.name=n -c user.email=e commit -q --allow-empty -m from-guest")
	run("git", "-c", "core.sshCommand=ssh -F "+config, "clone", "-q", "bawn-shared:/tmp/repo", "clone")
	if got := run("git", "-C", "clone", "-c", "safe.directory=*", "log", "--format=%s"); got != "from-guest\n" {
		t.Errorf("git: %q", got)
	}
	// Forwarding in both directions.
	port := freePort(t)
	background(t, dir, "run", "--", "python3", "-m", "http.server", "--bind", "127.0.0.1", "8124")
	c := exec.CommandContext(t.Context(), "ssh", "-F", config, "-N", "-o", "ExitOnForwardFailure=yes", "-L", fmt.Sprintf("127.0.0.1:%d:127.0.0.1:8124", port), "bawn-shared")
	c.Env = environment()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	wait(t, "the forwarded port", func() bool {
		_, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		return err == nil
	})
}
