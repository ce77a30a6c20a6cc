//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWhenIdle: a sandbox in which nothing happens is suspended, one that works is
// not.
func TestWhenIdle(t *testing.T) {
	dir := project(t, "idle")
	fails(t, dir, 125, "--idle", "run", "--idle", "1s", "--", "true")
	must(t, dir, "run", "--memory", "1G", "--idle", "10s", "--", "sh", "-c",
		`touch busy; (while [ -e "$PWD/busy" ]; do :; done; exec sleep 4321) >/dev/null 2>&1 </dev/null &`)
	time.Sleep(15 * time.Second)
	if s := must(t, dir, "ls"); !strings.Contains(s, "running") {
		t.Fatalf("a sandbox that works is\n%s", s)
	}
	if err := os.Remove(filepath.Join(dir, "busy")); err != nil {
		t.Fatal(err)
	}
	wait(t, "the sandbox to be suspended", func() bool { return strings.Contains(must(t, dir, "ls"), "suspended") })
	must(t, dir, "run", "--idle", "0", "--", "pgrep", "-f", "sleep 4321")
	time.Sleep(12 * time.Second)
	if s := must(t, dir, "ls"); !strings.Contains(s, "running") {
		t.Errorf("with --idle 0 it is\n%s", s)
	}
}
