package image

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// makerEnv names the disk that the test program makes when it plays who is killed.
const makerEnv = "BAWN_TEST_MAKES_DISK"

// TestDiskMakerIsKilled: whoever makes a disk may be killed on the way. There is
// no disk then, mke2fs ends too, and the next one makes it and leaves nothing else.
func TestDiskMakerIsKilled(t *testing.T) {
	if path := os.Getenv(makerEnv); path != "" {
		t.Fatalf("it was not killed: %v", EnsureDisk(path, MinDisk))
	}
	bin, dir := t.TempDir(), t.TempDir()
	path, began := filepath.Join(dir, "disk.raw"), filepath.Join(bin, "began")
	fake := "#!/bin/sh\nfor last; do :; done\nprintf half > \"$last\"\necho $$ > " + began + ".new\nmv " + began + ".new " + began + "\nexec sleep 1000\n"
	if err := os.WriteFile(filepath.Join(bin, "mke2fs"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), makerEnv+"="+path, "PATH="+bin+":"+os.Getenv("PATH"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var mke2fs int
		for mke2fs == 0 {
			if b, err := os.ReadFile(began); err == nil {
				mke2fs, _ = strconv.Atoi(strings.TrimSpace(string(b)))
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := errors.Join(c.Process.Kill(), os.Remove(began)); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait()
		for runs(mke2fs) {
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a disk is there: %v", err)
		}
	}
	if err := EnsureDisk(path, MinDisk); err != nil {
		t.Fatal(err)
	}
	if got := inspect(t, path, "stat /"); !strings.Contains(got, "Type: directory") {
		t.Errorf("%q", got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// runs says whether a process lives; who waits for orphans here may be slow.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}
