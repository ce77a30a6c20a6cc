package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLocalDirPlace: what is missing is made, and neither a link nor a file is taken for the
// directory, wherever on the way it is.
func TestLocalDirPlace(t *testing.T) {
	share, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.Symlink(outside, filepath.Join(share, "link")),
		os.Symlink("gone", filepath.Join(share, "dangling")),
		os.WriteFile(filepath.Join(share, "file"), nil, 0o600),
		os.Mkdir(filepath.Join(share, "there"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	for _, dir := range []string{"there", "new", "packages/a/node_modules", "there/in"} {
		fd, err := openDirIn(share, dir, uid, gid)
		if err != nil {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		var is, want unix.Stat_t
		if err := errors.Join(unix.Fstat(fd, &is), unix.Lstat(filepath.Join(share, dir), &want)); err != nil || is.Ino != want.Ino || want.Mode&unix.S_IFMT != unix.S_IFDIR {
			t.Errorf("%s: another file, %v", dir, err)
		}
		unix.Close(fd)
	}
	for _, dir := range []string{"link", "link/x", "dangling", "file", "file/x"} {
		fd, err := openDirIn(share, dir, uid, gid)
		if err == nil {
			unix.Close(fd)
		}
		if err == nil || !strings.Contains(err.Error(), "is not a directory, or is a link") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("made outside of the share: %v, %v", left, err)
	}
}

// TestLocalDirNames: each directory has a folder of its own on the disk, also where one lies in
// another; a folder that an interrupted start began is completed.
func TestLocalDirNames(t *testing.T) {
	names := map[string]string{}
	for _, dir := range []string{"a", "a/b", "a-b", "a%2Fb", strings.Repeat("d/", 200)} {
		name := localName("/p", dir)
		if other, taken := names[name]; taken || len(name) > 200 || strings.Contains(name, "/") {
			t.Errorf("%s: %s, as %q", dir, name, other)
		}
		names[name] = dir
	}
	path := filepath.Join(t.TempDir(), "local", "x")
	if err := os.MkdirAll(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := makeOwned(path, os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
}
