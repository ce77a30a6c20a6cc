package tracefs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbe: a probe is an fprobe, and a kprobe where the kernel calls fprobes invalid.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	fs := FS{root}
	defer fs.Close()
	file := filepath.Join(dir, probeFile)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fs.probe("bawn/x function"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "f:bawn/x function" {
		t.Errorf("%q, %v", b, err)
	}
	// A file to which any text but a number is an invalid argument. The error is that of the last attempt.
	if err := errors.Join(os.Remove(file), os.Symlink("/proc/self/oom_score_adj", file)); err != nil {
		t.Fatal(err)
	}
	if err := fs.probe("bawn/x function"); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), `"p:bawn/x`) {
		t.Errorf("%v", err)
	}
}
