package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// TestBuildIsInterrupted: a build ends when it is no longer wanted, also while
// mmdebstrap ignores signals, and leaves no process.
func TestBuildIsInterrupted(t *testing.T) {
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	fake := "#!/bin/sh\ntrap '' TERM INT HUP\nsleep 1000 & echo $$ $! > " + pids + ".new; mv " + pids + ".new " + pids + "\nwait; wait; sleep 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte(fake), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	ctx, cancel := context.WithCancel(t.Context())
	cmd := mmdebstrap(ctx, modeUnshare, debian.Mirror{}, nil)
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
