package engine_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// TestForkNames: what is wrong with a name is said before anything is made. Names that
// are free fail only later, because the snapshot does not exist.
func TestForkNames(t *testing.T) {
	e, home, _ := userPlace(t)
	if err := os.Mkdir(home+"/shop-taken", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		names, says string
		reason      engine.Reason
		copies      bool
	}{
		{"x y", "", engine.SnapshotNotFound, false},
		{"", "", engine.SnapshotNotFound, true},
		{"x y x", "two forks cannot both be named x", "", false},
		{"x shop", "a sandbox named shop exists already", engine.Exists, false},
		{"x Y", "invalid sandbox name", "", false},
		{"taken", "", engine.SnapshotNotFound, false},
		{"x taken", "cannot copy the project to", engine.ProjectCopyExists, true},
	} {
		made, err := e.Fork(t.Context(), engine.ForkRequest{Sandbox: "shop", Names: strings.Fields(c.names), From: "none", CopyProject: c.copies})
		if err == nil || engine.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) || len(made) > 0 {
			t.Errorf("%s: %q, %v", c.names, made, err)
		}
	}
	if err := os.Mkdir(home+"/shop-shop-fork", 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := e.Fork(t.Context(), engine.ForkRequest{Sandbox: "shop", From: "none", CopyProject: true})
	var failed *engine.Error
	if !errors.As(err, &failed) || failed.Reason != engine.ProjectCopyExists || failed.Path != home+"/shop-shop-fork" {
		t.Errorf("the default name: %v", err)
	}
}

// TestFork: forks of a sandbox that runs have its disk, rules and settings, an identity of
// their own, and no ports of the host. Without QEMU they are made and not started.
func TestFork(t *testing.T) {
	e, home, shop := userPlace(t)
	t.Setenv("PATH", t.TempDir())
	dir := filepath.Join(home, "shop")
	was := &sandbox.Spec{ID: "1", Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}, CPUs: 3, Memory: 512 << 20, Disk: 4 << 30, Throwaway: true, Ports: []sandbox.Port{{Host: 8080, Guest: 80}}}
	if err := shop.WriteSpec(was); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(was.Dir, "file"), "text")
	s := run(t, shop)
	s.snapshot = func(path string) error {
		enginetest.Keep(t, shop, filepath.Base(path), "disk")
		return nil
	}
	change(t, e, shopRules, allow("a.test"))
	made, err := e.Fork(t.Context(), engine.ForkRequest{Sandbox: "shop", Names: []string{"one", "two"}, CopyProject: true})
	if !slices.Equal(made, []string{"one", "two"}) || engine.ReasonOf(err) != engine.NoQEMU || !strings.Contains(err.Error(), "fork two was made, but did not start") {
		t.Errorf("%q, %v", made, err)
	}
	for _, name := range made {
		d := e.Sandboxes().Dir(name)
		spec, err := d.Spec()
		if err != nil {
			t.Fatal(err)
		}
		if spec.Name != name || spec.ID == "1" || spec.CPUs != 3 || spec.Throwaway || !slices.Equal(spec.Ports, []sandbox.Port{{Guest: 80}}) {
			t.Errorf("%+v", spec)
		}
		if spec.Dir != was.Dir+"-"+name || spec.Project.Guest != was.Dir || read(t, filepath.Join(spec.Dir, "file")) != "text" {
			t.Errorf("the project of %s is %s, at %s in the guest", name, spec.Dir, spec.Project.Guest)
		}
		if read(t, d.File(store.DiskFile)) != "disk" || read(t, d.File(store.PolicyFile)) != "allow a.test\n" {
			t.Errorf("%s has another disk or other rules", name)
		}
		if i, err := e.Describe(t.Context(), name); err != nil || !i.Suspended {
			t.Errorf("%+v, %v", i, err)
		}
	}
	if list, err := e.Snapshots("shop"); err != nil || len(list) > 0 {
		t.Errorf("snapshots that are left: %+v, %v", list, err)
	}
	if left, _ := filepath.Glob(shop.File("fork.*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
