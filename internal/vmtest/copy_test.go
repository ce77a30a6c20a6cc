//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCopy(t *testing.T) {
	dir := temp(t)
	src := filepath.Join(dir, "tree")
	if err := os.MkdirAll(filepath.Join(src, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(src, "a b\xff"), "one")
	writeFile(t, filepath.Join(src, "sub", "run.sh"), "#!/bin/sh\n")
	if err := os.Chmod(filepath.Join(src, "sub", "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/run.sh", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	then := time.Unix(1_000_000_000, 0)
	for _, f := range []string{"sub/run.sh", "sub"} {
		if err := os.Chtimes(filepath.Join(src, f), time.Time{}, then); err != nil {
			t.Fatal(err)
		}
	}
	must(t, dir, "cp", src, "shared:/tmp/copied")
	if got := must(t, dir, "exec", "shared", "--", "sh", "-c", "cd /tmp/copied; ls -R; stat -c '%a %Y' sub/run.sh; stat -c %Y sub; readlink link"); !strings.Contains(got, "755 1000000000\n1000000000\nsub/run.sh\n") {
		t.Errorf("%q", got)
	}
	back := filepath.Join(base, "back")
	must(t, dir, "cp", ":/tmp/copied", back)
	if got := readFile(t, filepath.Join(back, "a b\xff")); got != "one" {
		t.Errorf("%q", got)
	}
	if fi, err := os.Stat(filepath.Join(back, "sub")); err != nil || !fi.ModTime().Equal(then) {
		t.Errorf("%v, %v", fi, err)
	}
	if fi, err := os.Stat(filepath.Join(back, "sub", "run.sh")); err != nil || fi.Mode().Perm() != 0o755 || !fi.ModTime().Equal(then) {
		t.Errorf("%v, %v", fi, err)
	}
	fails(t, dir, 125, "shared:/no/such/file", "cp", "shared:/no/such/file", back)
	fails(t, dir, 125, "neither a file", "cp", "shared:/dev/null", back)
	fails(t, dir, 125, "/dev/full is neither a file", "cp", "shared:/etc/hosts", "/dev/full")
	sh(t, dir, "mkdir -p ~/special/sub && mkfifo ~/special/pipe ~/special/sub/pipe && chmod 750 ~/special && echo kept > ~/special/sub/file")
	fails(t, dir, 125, "left out shared:special/sub/pipe", "cp", ":~/special", back+"-special")
	if fi, err := os.Stat(back + "-special"); err != nil || fi.Mode().Perm() != 0o750 || readFile(t, filepath.Join(back+"-special", "sub", "file")) != "kept\n" {
		t.Errorf("%v, %v", fi, err)
	}
	fails(t, dir, 125, "no such user", "cp", "-u", "nobody-here", "shared:/etc/hosts", back)
	// Into a directory that is there, with a link in the project that leads out.
	must(t, dir, "cp", filepath.Join(src, "sub"), ":/tmp/copied")
	must(t, dir, "cp", ":/tmp/copied/sub/run.sh", ".")
	if fi, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", fi, err)
	}
	sh(t, dir, "ln -s "+back+" out; head -c 3000000 /dev/urandom > /tmp/copied/large")
	fails(t, dir, 125, "leads out of", "cp", ":/tmp/copied/large", "out/")
	must(t, dir, "cp", ":/tmp/copied/large", "large") // also over the share: the same bytes
	must(t, dir, "cp", "large", ":/tmp/copied/again")
	sh(t, dir, "cmp large /tmp/copied/large && cmp large /tmp/copied/again")
	must(t, dir, "exec", "shared", "--", "rm", "-rf", "/tmp/copied")
}
