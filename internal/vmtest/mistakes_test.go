//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestBadInput(t *testing.T) {
	dir := project(t, "bad")
	for _, c := range []struct {
		say  string
		args []string
	}{
		{"unknown flag", []string{"run", "--no-such-flag", "--", "true"}},
		{"there is no command", []string{"no-such-verb"}},
		{"command", []string{"run"}},
		{"does not exist", []string{"run", "-C", "/no/such/dir", "--", "true"}},
		{"not a directory", []string{"run", "-C", "/etc/passwd", "--", "true"}},
		{"--cpus", []string{"run", "--cpus", "-1", "--", "true"}},
		{"--memory", []string{"run", "--memory", "12Q", "--", "true"}},
		{"too little", []string{"run", "--memory", "1M", "--", "true"}},
		{"--disk", []string{"run", "--disk", "5", "--", "true"}},
		{"mount", []string{"run", "--mount", "/no/such/dir", "--", "true"}},
		{"port", []string{"run", "-p", "99999", "--", "true"}},
		{"name", []string{"run", "--name", "Not A Name", "--", "true"}},
		{"no such sandbox", []string{"exec", "nobody", "--", "true"}},
		{"sandbox", []string{"stop"}},
		{"", []string{"exec", "nobody"}},
	} {
		fails(t, dir, 125, c.say, c.args...)
	}
	// The home directory, the root and bawn's own folders are never shared.
	for _, d := range []string{"/", filepath.Join(base, "home"), filepath.Join(base, "state")} {
		fails(t, dir, 125, "cannot share", "run", "-C", d, "--", "true")
	}
	if got := must(t, dir, "ls"); strings.Contains(got, "bad") {
		t.Errorf("something was made:\n%s", got)
	}
}

func TestNoQEMU(t *testing.T) {
	dir := project(t, "noqemu")
	bin := t.TempDir()
	r := bawnAt(t.Context(), dir, nil, []string{"PATH=" + bin}, "run", "--", "true")
	if r.code != 125 || !strings.Contains(r.err, "QEMU is not installed") || !strings.Contains(r.err, "apt-get install") {
		t.Errorf("without QEMU: %+v", r)
	}
	old := "#!/bin/sh\necho 'QEMU emulator version 6.2.0'\n"
	for _, name := range []string{"qemu-system-x86_64", "qemu-system-aarch64"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(old), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	r = bawnAt(t.Context(), dir, nil, []string{"PATH=" + bin + ":/usr/bin:/bin"}, "run", "--", "true")
	if r.code != 125 || !strings.Contains(r.err, "6.2") || !strings.Contains(r.err, "7.2") {
		t.Errorf("with QEMU 6.2: %+v", r)
	}
}

// TestTwoAtOnce: two first runs in one directory make one sandbox.
func TestTwoAtOnce(t *testing.T) {
	dir := project(t, "two")
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := bawnAt(t.Context(), dir, nil, nil, "run", "--", "sh", "-c", fmt.Sprintf("echo %d >> /tmp/seen", i))
			if r.code != 0 {
				t.Errorf("run %d: %+v", i, r)
			}
		}()
	}
	wg.Wait()
	if got := must(t, dir, "run", "--", "wc", "-l", "/tmp/seen"); got != "3 /tmp/seen\n" {
		t.Errorf("%q", got)
	}
}

// TestLongPaths: paths of sockets are longer than a socket address holds (108 bytes,
// unix(7)).
func TestLongPaths(t *testing.T) {
	dir := project(t, "long")
	state := filepath.Join(base, strings.Repeat("long-", 30), strings.Repeat("path-", 20))
	env := []string{"XDG_STATE_HOME=" + state}
	if r := bawnAt(t.Context(), dir, nil, env, "run", "--", "true"); r.code != 0 {
		t.Errorf("run: %+v", r)
	}
	if r := bawnAt(context.Background(), dir, nil, env, "rm", "--force"); r.code != 0 {
		t.Errorf("rm: %+v", r)
	}
}

// TestDamagedCache: a file of the cache that no longer has its digest is made again.
func TestDamagedCache(t *testing.T) {
	dir := project(t, "damaged")
	files, err := filepath.Glob(filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "initramfs", "*", "initrd"))
	if err != nil || len(files) == 0 {
		must(t, dir, "run", "--", "true")
		must(t, dir, "stop")
		if files, err = filepath.Glob(filepath.Join(os.Getenv("BAWN_TEST_CACHE"), "bawn", "initramfs", "*", "initrd")); err != nil || len(files) == 0 {
			t.Fatalf("no initramfs in the cache: %v", err)
		}
	}
	for _, f := range files {
		if err := os.Chmod(f, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := os.OpenFile(f, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.WriteAt([]byte("damage"), 4000); err != nil {
			t.Fatal(err)
		}
		h.Close()
	}
	must(t, dir, "run", "--", "true")
}
