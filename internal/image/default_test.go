package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// TestBuildIsInterrupted: a build ends with its context, also while mmdebstrap ignores
// signals, and leaves no process.
func TestBuildIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	fake := "#!/bin/sh\ntrap '' TERM INT HUP\nsleep 1000 & echo $$ $! > " + pids + ".new; mv " + pids + ".new " + pids + "\nwait; wait; sleep 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithCancel(t.Context())
	cmd, err := mmdebstrap(ctx, modeUnshare, debian.Mirror{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- buildTo(ctx, cmd, filepath.Join(dir, "out"), progress.Silent) }()
	var list []string
	for list == nil {
		if b, err := os.ReadFile(pids); err == nil {
			list = strings.Fields(string(b))
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	for _, p := range list {
		n, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		for runs(n) {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func TestFreeSubordinates(t *testing.T) {
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "subuid")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		uid, gid string
		want     int64
	}{
		{"", "", 100_000},
		{"a:100000:65536\n", "", 165_536},
		{"a:100000:65536\nb:165536:65536\n", "a:100000:65536\nb:500000:1000\n", 501_000},
		{"nonsense\na:x:1\na:1:1\n", "", 100_000},
	} {
		if got := freeSubordinates(file(c.uid), file(c.gid)); got != c.want {
			t.Errorf("%q, %q: %d", c.uid, c.gid, got)
		}
	}
	if got := freeSubordinates("/nonexistent"); got != 100_000 {
		t.Error(got)
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

// TestMmdebstrapProgress: the log of mmdebstrap becomes tasks with the totals that it
// announced.
func TestMmdebstrapProgress(t *testing.T) {
	log := `I: running apt-get update...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
After this operation, 98.9 MB of additional disk space will be used.
Get:1 http://mirror.test trixie/main amd64 libc6 amd64 2.41 [2,843 kB]
Get:2 http://mirror.test trixie/main amd64 dash amd64 0.5 [98 kB]
Unpacking libc6:amd64 (2.41) ...
Setting up libc6:amd64 (2.41) ...
Unpacking dash (0.5) ...
0 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
After this operation, 1,178 MB of additional disk space will be used.
Get:1 http://mirror.test trixie/main amd64 git amd64 2.47 [9 MB]
Setting up git (2.47) ...
I: creating tarball...
`
	r := &recorder{}
	p := newMmdebstrapProgress(r)
	p.read(strings.NewReader(log))
	_, _ = byteCounter{p}.Write(make([]byte, 1000))
	p.done(nil)
	want := `Preparing the default image: 0 of 0, 0 notes, ended 1, <nil>
Fetching the base system: 2 of 2, 2 notes, ended 1, <nil>
Installing the base system: 3 of 4, 3 notes, ended 1, <nil>
Fetching packages: 1 of 1, 1 notes, ended 1, <nil>
Installing packages: 1 of 2, 1 notes, ended 1, <nil>
Writing the image: 1000 of 1276900000, 0 notes, ended 1, <nil>
`
	if got := r.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := p.lastLines(); !strings.HasSuffix(got, "I: creating tarball...") || strings.Contains(got, "\n\n") {
		t.Errorf("the last lines are %q", got)
	}
}
