package reserve

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWithout(t *testing.T) {
	for name, c := range map[string]struct {
		st            unix.Statfs_t
		bytes, inodes uint64
	}{
		"a small file system":     {unix.Statfs_t{Bsize: 4096, Blocks: 1000, Bavail: 500, Files: 200, Ffree: 100}, 450 * 4096, 90},
		"a large one":             {unix.Statfs_t{Bsize: 4096, Blocks: 1 << 40, Bavail: 1 << 21, Files: 1 << 30, Ffree: 1 << 20}, 4 << 30, 5000},
		"a full one":              {unix.Statfs_t{Bsize: 4096, Blocks: 1000, Bavail: 49, Files: 200, Ffree: 10}, 0, 0},
		"one that counts no file": {unix.Statfs_t{Bsize: 512, Blocks: 100, Bavail: 100}, 95 * 512, 5000},
	} {
		st := without(c.st)
		if b, i := Bytes(&st), Inodes(&st, 5000); b != c.bytes || i != c.inodes {
			t.Errorf("%s: %d bytes, %d inodes, want %d and %d", name, b, i, c.bytes, c.inodes)
		}
	}
}

func TestLeft(t *testing.T) {
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var raw unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &raw); err != nil {
		t.Fatal(err)
	}
	st, err := Left(int(f.Fd()))
	if err != nil || st.Bavail > raw.Bavail || raw.Bavail > 0 && st.Bavail == raw.Bavail {
		t.Errorf("%d blocks of %d, %v", st.Bavail, raw.Bavail, err)
	}
	if _, err := Left(-1); err == nil {
		t.Error("no error")
	}
}
