package reserve

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/mounttest"
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

// TestRoomOnBtrfs: statfs(2) does not see what was written a moment ago; a Room does, and syncs once
// for a part of what is left, not for each piece.
func TestRoomOnBtrfs(t *testing.T) {
	if !mounttest.Own(t) {
		return
	}
	f, err := os.Create(filepath.Join(mounttest.Loop(t, "btrfs"), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	syncs := 0
	r := Room{Sync: func() error { syncs++; return unix.Syncfs(int(f.Fd())) }}
	left := func(want uint64) uint64 {
		st, err := r.Left(int(f.Fd()), want)
		if err != nil {
			t.Fatal(err)
		}
		return Bytes(&st)
	}
	all := left(1 << 20)
	piece := make([]byte, 1<<20)
	for i := range 20 {
		r.Take(uint64(len(piece)))
		if _, err := f.WriteAt(piece, int64(i)<<20); err != nil {
			t.Fatal(err)
		}
		if got := left(1 << 20); got > all-uint64(i+1)<<20 {
			t.Errorf("%d bytes are left of %d after %d MiB", got, all, i+1)
		}
		r.Wrote(uint64(len(piece)))
	}
	if syncs != 0 {
		t.Errorf("20 MiB of %d were synced %d times", all, syncs)
	}
	if got := left(all - 10<<20); got > all-20<<20 || syncs != 1 {
		t.Errorf("%d bytes of %d are left, and it was synced %d times", got, all, syncs)
	}
	if got := left(all); got > all-20<<20 || syncs != 1 {
		t.Errorf("nothing was written: %d bytes of %d are left, and it was synced %d times", got, all, syncs)
	}
	r.Settle()
	if got := left(1); got > all-20<<20 || got < all-60<<20 || syncs != 2 {
		t.Errorf("%d bytes of %d are left after it was settled, and it was synced %d times", got, all, syncs)
	}
}

// TestRoomOfAnOPathDescriptor: it can be synced by one.
func TestRoomOfAnOPathDescriptor(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var r Room
	r.Take(1 << 20)
	if err := r.sync(fd); err != nil || r.uncounted != 1<<20 {
		t.Errorf("%d bytes, %v", r.uncounted, err)
	}
	r.Wrote(1 << 20)
	if err := r.sync(fd); err != nil || r.uncounted != 0 {
		t.Errorf("%d bytes, %v", r.uncounted, err)
	}
	if err := r.sync(-1); err == nil {
		t.Error("no error")
	}
}
