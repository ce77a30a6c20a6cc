//go:build vm

package vmtest

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWhenIdle: an idle sandbox is suspended, one that works is not.
func TestWhenIdle(t *testing.T) {
	dir := project(t, "idle")
	witness := project(t, "idle-witness")
	// idleAgain waits until another sandbox, which has nothing to do from now on, is
	// suspended: whatever was idle before it would be, too.
	idleAgain := func() {
		t.Helper()
		must(t, witness, "run", "--memory", "1G", "--idle", "10s", "--", "true")
		wait(t, "the witness to be suspended", func() bool { return phase(t, witness) == "suspended" })
	}
	fails(t, dir, 125, "--idle", "run", "--idle", "1s", "--", "true")
	must(t, dir, "run", "--memory", "1G", "--idle", "10s", "--", "sh", "-c",
		`touch busy; (while [ -e "$PWD/busy" ]; do :; done; exec sleep 4321) >/dev/null 2>&1 </dev/null &`)
	idleAgain()
	if s := phase(t, dir); s != "running" {
		t.Fatalf("a sandbox that works is %s", s)
	}
	if err := os.Remove(filepath.Join(dir, "busy")); err != nil {
		t.Fatal(err)
	}
	wait(t, "the sandbox to be suspended", func() bool { return phase(t, dir) == "suspended" })
	must(t, dir, "run", "--idle", "0", "--", "pgrep", "-f", "sleep 4321")
	idleAgain()
	if s := phase(t, dir); s != "running" {
		t.Errorf("with --idle 0 it is %s", s)
	}
}

// phase is the phase of a project's sandbox.
func phase(t *testing.T, dir string) string {
	t.Helper()
	return inspect(t, dir).State.Phase
}
