package etc

import (
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReplaceFileKeepsMode(t *testing.T) {
	path := t.TempDir() + "/dir/file"
	must(t, Replace(path, []byte("a"), 0o604))
	must(t, os.Chmod(path, 0o640))
	must(t, Replace(path, []byte("b"), 0o604))
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o640 || string(Read(path)) != "b" {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestReadSmallDoesNotWaitForAPipe(t *testing.T) {
	path := t.TempDir() + "/pipe"
	must(t, unix.Mkfifo(path, 0o600))
	if got := Read(path); got != nil {
		t.Errorf("read %q", got)
	}
}

func TestOwner(t *testing.T) {
	fi, err := os.Stat(t.TempDir())
	must(t, err)
	if uid, gid := owner(fi); uid != os.Getuid() || gid < 0 {
		t.Errorf("got %d, %d", uid, gid)
	}
	if uid, _ := owner(noStat{fi}); uid != -1 {
		t.Error(uid)
	}
}

type noStat struct{ fs.FileInfo }

func (noStat) Sys() any { return nil }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
