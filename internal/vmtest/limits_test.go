//go:build vm

package vmtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestTooMuchMemory(t *testing.T) {
	dir := project(t, "memory")
	r := bawn(t, dir, "run", "--memory", "100T", "--", "true")
	if r.code != 125 || !strings.Contains(strings.ToLower(r.err), "memory") {
		t.Errorf("%+v", r)
	}
}

// TestDiskLimit: a guest that fills its disk gets ENOSPC, and the host gives no
// more than --disk.
func TestDiskLimit(t *testing.T) {
	dir := project(t, "full")
	must(t, dir, "run", "--memory", "1G", "--disk", "1G", "--", "true")
	r := bawn(t, dir, "run", "--user", "root", "--", "sh", "-c", "cat /dev/zero > /fill")
	if r.code == 0 || !strings.Contains(r.err, "No space left") {
		t.Errorf("%+v", r)
	}
	if used := inspect(t, dir).DiskUsed; used > 1<<30 {
		t.Errorf("the host gave %d bytes", used)
	}
	must(t, dir, "run", "--", "true")
	must(t, dir, "stop")
	must(t, dir, "run", "--user", "root", "--", "rm", "/fill")
	must(t, dir, "run", "--", "sh", "-c", "head -c 10000000 /dev/zero > ~/ok")
}

// TestRootHostDiskFull: the host's disk fills up under a sandbox. Its machine is paused,
// the person is told why, and it goes on when there is room. Only root can make a small
// file system.
func TestRootHostDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("wants root, to mount a small file system")
	}
	dir := project(t, "hostfull")
	small := filepath.Join(base, "small")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", small, "tmpfs", 0, "size=6M"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	env := []string{"XDG_STATE_HOME=" + small}
	t.Cleanup(func() {
		if r := bawnAt(context.Background(), dir, nil, env, "rm", "--force"); r.code != 0 {
			t.Errorf("rm: %+v", r)
		}
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	in := func(args ...string) result { return bawnAt(t.Context(), dir, nil, env, args...) }
	if r := in("run", "--memory", "1G", "--", "true"); r.code != 0 {
		t.Fatalf("%+v", r)
	}

	c := command(t.Context(), dir, "run", "--", "sh", "-c", "head -c 16000000 /dev/urandom > ~/big && sync && wc -c < ~/big")
	c.Env = append(c.Env, env...)
	var out, said lockedBuffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "word of the full disk", func() bool { return strings.Contains(said.String(), "the host's disk is full") })
	if r := in("ls"); !strings.Contains(r.out, "host disk full") {
		t.Errorf("ls: %+v", r)
	}
	if err := syscall.Mount("none", small, "tmpfs", syscall.MS_REMOUNT, "size=100M"); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil || out.String() != "16000000\n" {
		t.Errorf("%v: %q, %q", err, out.String(), said.String())
	}

	// It is full when the sandbox is to start.
	if r := in("stop"); r.code != 0 {
		t.Fatalf("stop: %+v", r)
	}
	fill := filepath.Join(small, "fill")
	f, err := os.Create(fill)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	f.Close()
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if r := in("run", "--", "true"); r.code != 125 || !strings.Contains(r.err, "no space left") || !strings.Contains(r.err, "try:") {
		t.Errorf("a start on a full disk: %+v", r)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if r := in("run", "--", "sh", "-c", "wc -c < ~/big"); r.code != 0 || r.out != "16000000\n" {
		t.Errorf("after that: %+v", r)
	}
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestLogLimit is part of attack 17: the console's log is bounded.
func TestLogLimit(t *testing.T) {
	dir := shared(t)
	must(t, dir, "run", "--user", "root", "--", "sh", "-c", "head -c 2500000 /dev/zero | tr '\\0' 'x' > /dev/ttyS0")
	var total int64
	files, _ := filepath.Glob(filepath.Join(base, "state", "bawn", "sandboxes", "shared", "console.log*"))
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			total += fi.Size()
		}
	}
	if total < 1<<20 || total > 2<<20+64<<10 { // two files of 1 MiB, and what the last write was longer
		t.Errorf("%d bytes of logs in %v", total, files)
	}
}

// TestLimits: how many sandboxes run, and how much memory they have, is bounded.
func TestLimits(t *testing.T) {
	shared(t)
	dir := project(t, "limited")
	for _, c := range []struct{ env, say string }{
		{"BAWN_MAX_SANDBOXES=1", "at most 1 may run at the same time"},
		{"BAWN_MAX_MEMORY=2500M", "all together may have 2.4 GiB"},
		{"BAWN_MAX_MEMORY=lots", "BAWN_MAX_MEMORY"},
		{"BAWN_MAX_SANDBOXES=0", "BAWN_MAX_SANDBOXES"},
	} {
		r := bawnAt(t.Context(), dir, nil, []string{c.env}, "run", "--memory", "1G", "--", "true")
		if r.code != 125 || !strings.Contains(r.err, c.say) {
			t.Errorf("%s: %+v", c.env, r)
		}
	}
	if r := bawn(t, dir, "inspect"); !strings.Contains(r.err, "no such sandbox") {
		t.Errorf("a sandbox that was refused is there: %+v", r)
	}
}

// TestMemoryComesBack: memory that the guest frees is free on the host.
func TestMemoryComesBack(t *testing.T) {
	dir := shared(t)
	was := guestMemory(t, dir)
	sh(t, dir, "head -c 400M /dev/urandom > /dev/shm/fill")
	full := guestMemory(t, dir)
	if full < was+350<<20 {
		t.Fatalf("400 MB took the host from %d to %d MiB", was>>20, full>>20)
	}
	sh(t, dir, "rm /dev/shm/fill")
	wait(t, "the memory to come back", func() bool { return guestMemory(t, dir) < full-300<<20 })
}

// guestMemory is how much of the host's memory the guest of a project takes, in bytes.
func guestMemory(t testing.TB, dir string) (n int64) {
	t.Helper()
	r := bawnAt(t.Context(), dir, nil, nil, "inspect")
	pid := regexp.MustCompile(`"machinePid": (\d+)`).FindStringSubmatch(r.out)
	if pid == nil {
		t.Fatalf("inspect: %+v", r)
	}
	smaps := readSmaps(t, pid[1])
	for _, m := range smaps {
		if strings.Contains(m.name, "bawn-ram") {
			n += m.rss
		}
	}
	return n
}

type mapping struct {
	name string
	rss  int64
}

func readSmaps(t testing.TB, pid string) (list []mapping) {
	t.Helper()
	b, err := os.ReadFile("/proc/" + pid + "/smaps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case strings.Contains(f[0], "-"):
			list = append(list, mapping{name: line})
		case f[0] == "Rss:":
			n, _ := strconv.ParseInt(f[1], 10, 64)
			list[len(list)-1].rss = n << 10
		}
	}
	return list
}
