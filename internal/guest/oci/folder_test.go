package oci

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestContainersShareFolders: one folder for the same lists, which stays while a container uses it.
func TestContainersShareFolders(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "oci")
	own := []byte(newCA(t, "own"))
	lists := func(n int) *lists { return &lists{own: own, guest: fmt.Appendf(nil, "# %d\n", n)} }
	first, err := hold(folder, "a", lists(0))
	must(t, err)
	again, err := hold(folder, "b", lists(0))
	if err != nil || again != first {
		t.Fatalf("%s and %s: %v", first, again, err)
	}
	must(t, os.MkdirAll(filepath.Join(folder, "new-1", gitDir), 0o700)) // a call was killed
	info, err := os.Stat(filepath.Join(first, systemFile))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
	if info, err = os.Stat(first); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info, err)
	}
	must(t, release(folder, "a"))
	must(t, release(folder, "a"))
	for n := range 3 * keptFolders {
		_, err := hold(folder, "c", lists(n+1))
		must(t, err)
	}
	if left, _ := filepath.Glob(folder + "/new-*"); len(left) != 0 {
		t.Errorf("%q stay", left)
	}
	if made, _ := filepath.Glob(folder + "/ca-*"); len(made) == 0 || len(made) > keptFolders {
		t.Errorf("%d folders stay", len(made))
	}
	if _, err := os.Stat(first); err != nil {
		t.Errorf("the folder of a container that runs: %v", err)
	}
	must(t, release(folder, "b"))
	for n := range keptFolders {
		_, err := hold(folder, "c", lists(-n-1))
		must(t, err)
	}
	if _, err := os.Stat(first); err == nil {
		t.Error("the folder of no container stays")
	}
	for _, id := range []string{"", ".", "..", "a/b", "../x"} {
		if _, err := hold(folder, id, lists(0)); err == nil {
			t.Errorf("a container named %q", id)
		}
		must(t, release(folder, id))
	}
	must(t, release(folder, "../lock"))
	if _, err := os.Stat(filepath.Join(folder, "lock")); err != nil {
		t.Error(err)
	}
}
