package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakeGroup makes a control group as the kernel shows it.
func fakeGroup(t *testing.T, root, name, events string) {
	t.Helper()
	dir := filepath.Join(root, name)
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(dir, "cgroup.events"), []byte(events), 0o644))
}

func TestFreezeReachesAllGroups(t *testing.T) {
	for frozen, text := range map[bool]string{true: "1", false: "0"} {
		root := t.TempDir()
		for _, g := range []string{"bawn", "docker"} {
			fakeGroup(t, root, g, "populated 1\nfrozen "+text+"\n")
		}
		must(t, os.Mkdir(root+"/no-group", 0o755))
		must(t, setFrozen(root, frozen, time.Minute))
		for _, g := range []string{"bawn", "docker"} {
			if b, err := os.ReadFile(filepath.Join(root, g, "cgroup.freeze")); err != nil || strings.TrimSpace(string(b)) != text {
				t.Errorf("%v: %s has %q, %v", frozen, g, b, err)
			}
		}
	}
}

func TestFreezeWaitsForTheGroup(t *testing.T) {
	root := t.TempDir()
	fakeGroup(t, root, "docker", "populated 1\nfrozen 0\n")
	if err := setFrozen(root, true, 0); err == nil || !strings.Contains(err.Error(), "docker") {
		t.Errorf("a group that does not freeze: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- setFrozen(root, true, time.Minute) }()
	select {
	case err := <-done:
		t.Errorf("it is said to be frozen: %v", err)
	case <-time.After(2 * freezePoll):
	}
	must(t, os.WriteFile(filepath.Join(root, "docker", "cgroup.events"), []byte("populated 1\nfrozen 1\n"), 0o644))
	must(t, <-done)
}

// TestFreezeOfAGroupThatEnds: a container may end meanwhile.
func TestFreezeOfAGroupThatEnds(t *testing.T) {
	root := t.TempDir()
	fakeGroup(t, root, "docker", "")
	must(t, os.Remove(root+"/docker/cgroup.events"))
	must(t, setFrozen(root, true, 0))
}
