package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sys/proc/proctest"
)

// TestAttackPagers: bawn review shows what a guest did, so the guest waits for it with a pager of its own: on the PATH
// by node_modules/.bin, behind a link, by a name that the person's setting has, or in settings.
func TestAttackPagers(t *testing.T) {
	shared, home := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	for _, k := range pagerFolders {
		t.Setenv(k, "")
	}
	mark := filepath.Join(home, "mark")
	for _, f := range []string{"less", "preprocess", "pg"} {
		if err := os.WriteFile(filepath.Join(shared, f), []byte("#!/bin/sh\ntouch "+mark+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(home, "bin"), 0o700), os.Symlink(filepath.Join(shared, "pg"), filepath.Join(home, "bin/pg"))); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", shared+":"+filepath.Join(home, "bin")+":"+os.Getenv("PATH"))
	t.Setenv("LESSOPEN", "|-"+filepath.Join(shared, "preprocess")+" %s")
	t.Setenv("LD_PRELOAD", filepath.Join(shared, "lib.so"))
	t.Chdir(shared)
	proctest.Share(t, shared)
	for _, command := range []string{"less", "pg", "./pg", "FOO=1 pg"} {
		cmd, err := pager(command)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = strings.NewReader("text\n")
		_ = cmd.Run() // there may be no such program
		if cmd.Dir != "/" || strings.Contains(strings.Join(cmd.Env, "\n"), shared) {
			t.Errorf("%s: %s, %q", command, cmd.Dir, cmd.Env)
		}
	}
	for _, command := range []string{filepath.Join(shared, "pg"), "~/bin/pg -x", "less -k " + shared} {
		if _, err := pager(command); err == nil || !strings.Contains(err.Error(), "a guest can write to") {
			t.Errorf("%s: %v", command, err)
		}
	}
	for _, k := range pagerFolders {
		t.Setenv(k, shared)
		if _, err := pager("less"); err == nil || !strings.Contains(err.Error(), k) {
			t.Errorf("%s: %v", k, err)
		}
		t.Setenv(k, "")
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a program of the guest ran")
	}
	cmd, err := pager("printenv LESSSECURE LESS")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.Output(); err != nil || !strings.HasPrefix(string(out), "1\n") {
		t.Errorf("%q, %v", out, err)
	}
}
