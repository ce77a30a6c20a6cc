//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// readyMembers lists the pool machines that are ready.
func readyMembers(t testing.TB) (ids []string) {
	t.Helper()
	var rows []struct{ ID, State string }
	out := run(t, os.TempDir(), "pool", "--json")
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("bawn pool --json: %v\n%s", err, out)
	}
	for _, r := range rows {
		if r.State == "ready" {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// fromPool reports whether a sandbox's last start took a pool machine.
func fromPool(t testing.TB, name string) bool {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(sandboxDir(name), "supervisor.log"))
	if err != nil {
		t.Fatal(err)
	}
	_, last, ok := cutLast(string(log), "msg=running")
	return ok && strings.Contains(last, "pool=true")
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// poolProcesses returns the processes of the pool machines.
func poolProcesses(t testing.TB) map[int]string {
	t.Helper()
	found := processes(filepath.Join(base, "state/bawn/pool/"))
	for pid, line := range found { // one that was taken has the folder in its command line still
		if fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)); strings.Contains(line, "__pool-member") && !inPool(fds) {
			delete(found, pid)
		}
	}
	return found
}

func inPool(fds []string) bool {
	for _, fd := range fds {
		if l, err := os.Readlink(fd); err == nil && strings.HasPrefix(l, filepath.Join(base, "state/bawn/pool/")) {
			return true
		}
	}
	return false
}

// TestPool: new sandboxes start from machines that waited, each as somebody else,
// with all that an ordinary start gives; and nothing is left of those that nobody
// took.
func TestPool(t *testing.T) {
	dir := project(t, "pool")
	writeFile(t, filepath.Join(dir, "here"), "the project\n")
	flags := []string{"--memory", "1G"}
	awaitTemplate(t, dir, flags...)
	must(t, dir, "pool", "1")
	t.Cleanup(func() { bawnAt(context.Background(), dir, nil, nil, "pool", "0") })
	seen := identities{}
	_, _ = newSandbox(t, dir, "pool-0", "true", flags...) // after which one is made ready
	for _, name := range []string{"pool-a", "pool-b"} {
		wait(t, "a machine to wait", func() bool { return len(readyMembers(t)) == 1 })
		script := identity + "; cat here >&2; pwd >&2; echo made > " + name + "; sudo ls -A /run/bawn/warm-up >&2"
		out, _ := newSandbox(t, dir, name, script, append(flags, "--allow", "example.test", "-p", "0:8080")...)
		if !fromPool(t, name) {
			t.Errorf("%s did not start from a machine that waited", name)
		}
		seen.add(t, name, out)
		if got := readFile(t, filepath.Join(dir, name)); got != "made\n" {
			t.Errorf("%s wrote %q to the project", name, got)
		}
		if p := must(t, dir, "policy", "show", "--name", name); !strings.Contains(p, "example.test") {
			t.Errorf("rules of %s:\n%s", name, p)
		}
		if got := must(t, dir, "exec", name, "--", "cat", dir+"/here"); got != "the project\n" {
			t.Errorf("%s reads %q", name, got)
		}
		// The keys of the warm-up open nothing, and it left no mount.
		if got := must(t, dir, "exec", name, "--", "sh", "-c", "mount | grep -c warm-up; true"); got != "0\n" {
			t.Errorf("%s has %s mounts of the warm-up", name, got)
		}
	}
	w := watchInside(t, dir, filepath.Join(dir, "watched"), "exec", "pool-b")
	// It lives on as any other.
	must(t, dir, "exec", "pool-b", "--", "sh", "-c", "echo kept > ~/kept")
	must(t, dir, "suspend", "pool-b")
	if got := must(t, dir, "exec", "pool-b", "--", "sh", "-c", "cat ~/kept here"); got != "kept\nthe project\n" {
		t.Errorf("after a suspension: %q", got)
	}
	w.sees(t, "after-the-suspension")
	must(t, dir, "stop", "pool-b")
	if got := must(t, dir, "exec", "pool-b", "--", "sh", "-c", "cat ~/kept here"); got != "kept\nthe project\n" {
		t.Errorf("after a stop: %q", got)
	}

	// One that is killed while it waits is no harm.
	wait(t, "a machine to wait", func() bool { return len(readyMembers(t)) == 1 })
	for pid := range poolProcesses(t) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	wait(t, "it to be gone", func() bool { return len(poolProcesses(t)) == 0 })
	newSandbox(t, dir, "pool-c", "cat here", flags...)
	if fromPool(t, "pool-c") {
		t.Error("a dead machine was taken")
	}
	// Nothing is left of those that nobody took.
	wait(t, "a machine to wait", func() bool { return len(readyMembers(t)) == 1 })
	must(t, dir, "rm", "-f", "pool-0")
	must(t, dir, "pool", "0")
	wait(t, "nothing to be left", func() bool { return len(poolProcesses(t)) == 0 })
	if got := must(t, dir, "pool"); strings.Count(got, "\n") != 1 {
		t.Errorf("the pool is\n%s", got)
	}
	fails(t, dir, 125, "0 to 16", "pool", "many")
}
