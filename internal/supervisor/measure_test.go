package supervisor

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/control"
)

// TestProcessIsMeasured: memory that a process takes and bytes that it writes are counted, and an
// ended process is told from an error.
func TestProcessIsMeasured(t *testing.T) {
	measure := func() (u control.Usage) {
		t.Helper()
		if err := addProcess(&u, os.Getpid(), "RssAnon"); err != nil {
			t.Fatal(err)
		}
		return u
	}
	before := measure()
	const size = 32 << 20
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(b) }()
	if grown := measure().Memory - before.Memory; grown < size/2 || grown > 16*size { // Go's own memory changes too
		t.Errorf("%d bytes more after %d were taken", grown, size)
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "f"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	after := measure()
	if after.DiskWritten < before.DiskWritten || after.CPU < before.CPU { // a file in memory is not written to a disk
		t.Errorf("%+v after %+v", after, before)
	}
	cmd := exec.CommandContext(t.Context(), "true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := addProcess(&after, cmd.Process.Pid, "RssAnon"); !gone(err) {
		t.Errorf("an ended process: %v", err)
	}
}
