package disk

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

	"bawn.dev/bawn/internal/sys/diskuse"
)

// makerEnv names the disk that the test program makes when it runs as the process that is
// killed.
const makerEnv = "BAWN_TEST_MAKES_DISK"

// TestDiskMakerIsKilled: a process that makes a disk is killed on the way. Then there is
// no disk, mke2fs ends too, and the next process makes the disk and leaves nothing else.
func TestDiskMakerIsKilled(t *testing.T) {
	if path := os.Getenv(makerEnv); path != "" {
		t.Fatalf("it was not killed: %v", Ensure(path, MinSize))
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
	if err := Ensure(path, MinSize); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/sbin/debugfs", "-R", "stat /", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Type: directory") {
		t.Errorf("%v: %q", err, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// runs reports whether a process lives; one that ended and was not waited for does not.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestEnsure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	size := func() int64 {
		t.Helper()
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi.Size()
	}
	if err := Ensure(path, MinSize-1); err == nil {
		t.Error("a disk that is too small")
	}
	for _, c := range []struct{ ask, want int64 }{{MinSize, MinSize}, {2 * MinSize, 2 * MinSize}, {MinSize, 2 * MinSize}} {
		if err := Ensure(path, c.ask); err != nil || size() != c.want {
			t.Errorf("asked for %d: %d bytes, %v", c.ask, size(), err)
		}
	}
	if err := New(path, MinSize); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a disk: %v", err)
	}
	if used := diskuse.Of(path); used > 16<<20 {
		t.Errorf("an empty disk takes %d bytes", used)
	}
}
