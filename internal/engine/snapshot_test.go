package engine_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
)

// TestRestoreVerifiesFirst: a damaged snapshot ends nothing, even with force.
func TestRestoreVerifiesFirst(t *testing.T) {
	e, _, shop := userPlace(t)
	s := run(t, shop)
	own := shop.File(store.DiskFile)
	write(t, own, "now")
	for file, harm := range map[string]func(path string) error{
		"machine.ram":   func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) },
		"machine.state": os.Remove,
		"disk.raw":      func(path string) error { return os.WriteFile(path, []byte("Then"), 0o600) },
	} {
		kept := enginetest.Keep(t, shop, "one", "then")
		if err := harm(filepath.Join(kept.Path, file)); err != nil {
			t.Fatal(err)
		}
		err := e.RestoreSnapshot(t.Context(), "shop", "one", true)
		if !errors.Is(err, snapshot.ErrDamaged) || engine.ReasonOf(err) != engine.SnapshotDamaged {
			t.Errorf("%s: %v", file, err)
		}
		if st, err := shop.State(); err != nil || st.Phase != sandbox.Running || len(s.all()) > 0 {
			t.Errorf("%s: the sandbox is %s, %v; asked of it: %q", file, st.Phase, err, s.all())
		}
		made, err := e.Fork(t.Context(), engine.ForkRequest{Sandbox: "shop", From: "one", Names: []string{"other"}})
		if !errors.Is(err, snapshot.ErrDamaged) || len(made) > 0 {
			t.Errorf("fork, %s: %v", file, err)
		}
	}
	if got := read(t, own); got != "now" {
		t.Errorf("the disk is %q", got)
	}
	enginetest.Keep(t, shop, "one", "then")
	if err := e.RestoreSnapshot(t.Context(), "shop", "none", false); engine.ReasonOf(err) != engine.SnapshotNotFound {
		t.Errorf("a snapshot that does not exist, of a sandbox that runs: %v", err)
	}
	if err := e.RestoreSnapshot(t.Context(), "shop", "one", false); engine.ReasonOf(err) != engine.StateWouldBeLost {
		t.Errorf("while it runs: %v", err)
	}
}

// TestListOfSnapshots: damage that a look at the files' sizes finds is in the list.
func TestListOfSnapshots(t *testing.T) {
	e, _, shop := userPlace(t)
	if list, err := e.Snapshots(""); err != nil || len(list) != 0 {
		t.Errorf("none: %+v, %v", list, err)
	}
	enginetest.Keep(t, shop, "good", "disk")
	if err := os.Remove(enginetest.Keep(t, shop, "nodisk", "disk").Disk()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(enginetest.Keep(t, shop, "short", "disk").Disk(), 1); err != nil {
		t.Fatal(err)
	}
	enginetest.Keep(t, shop, "fork.1", "disk") // of a fork that was killed
	want := []struct{ name, err string }{{"good", ""}, {"nodisk", "no disk.raw"}, {"short", "disk.raw has 1 bytes instead of 4"}}
	for _, of := range []string{"", "shop"} {
		list, err := e.Snapshots(of)
		if err != nil || len(list) != len(want) {
			t.Fatalf("%+v, %v", list, err)
		}
		for i, w := range want {
			s := list[i]
			if s.Sandbox != "shop" || s.Name != w.name || s.Made.IsZero() || s.Size == 0 {
				t.Errorf("%+v", s)
			}
			if (s.Err == nil) != (w.err == "") || s.Err != nil && (!errors.Is(s.Err, snapshot.ErrDamaged) || !strings.Contains(s.Err.Error(), w.err)) {
				t.Errorf("%s: %v, want %q", s.Name, s.Err, w.err)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(shop.File(store.SnapshotsFolder), "fork.*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := e.Snapshots("nope"); engine.ReasonOf(err) != engine.NotFound {
		t.Errorf("%v", err)
	}
}

// TestRemoveSnapshots: damaged ones too; those before one that is not there are gone.
func TestRemoveSnapshots(t *testing.T) {
	e, _, shop := userPlace(t)
	enginetest.Keep(t, shop, "one", "disk")
	if err := os.RemoveAll(filepath.Join(enginetest.Keep(t, shop, "two", "disk").Path, "snapshot.json")); err != nil {
		t.Fatal(err)
	}
	enginetest.Keep(t, shop, "three", "disk")
	removed, err := e.RemoveSnapshots(t.Context(), "shop", []string{"two", "one", "nope", "three"})
	var failed *engine.Error
	if !errors.As(err, &failed) || failed.Reason != engine.SnapshotNotFound || failed.Snapshot != "nope" || failed.Sandbox != "shop" {
		t.Errorf("%v", err)
	}
	if want := []string{"two", "one"}; !slices.Equal(removed, want) {
		t.Errorf("%q, want %q", removed, want)
	}
	if list, err := e.Snapshots("shop"); err != nil || len(list) != 1 || list[0].Name != "three" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := e.RemoveSnapshots(t.Context(), "shop", []string{"../three"}); err == nil || !strings.Contains(err.Error(), "snapshot: ") {
		t.Errorf("%v", err)
	}
}

// TestSnapshotNames: what is wrong with a name is said before the sandbox is started.
func TestSnapshotNames(t *testing.T) {
	e, _, shop := userPlace(t)
	enginetest.Keep(t, shop, "one", "disk")
	for _, c := range []struct {
		sandbox, name string
		reason        engine.Reason
		says          string
	}{
		{"shop", "one", engine.SnapshotExists, "sandbox shop already has a snapshot named one"},
		{"shop", "One", "", "snapshot: invalid sandbox name"},
		{"shop", "fork.1", "", "snapshot: invalid sandbox name"},
		{"nope", "two", engine.NotFound, "nope"},
	} {
		_, err := e.CreateSnapshot(t.Context(), c.sandbox, c.name)
		if err == nil || engine.ReasonOf(err) != c.reason || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s of %s: %v", c.name, c.sandbox, err)
		}
	}
	if err := e.RestoreSnapshot(t.Context(), "shop", "nope", false); engine.ReasonOf(err) != engine.SnapshotNotFound {
		t.Errorf("%v", err)
	}
}

// TestCreateSnapshot of a sandbox that runs: its supervisor makes it, and it goes on.
func TestCreateSnapshot(t *testing.T) {
	e, _, shop := userPlace(t)
	s := run(t, shop)
	s.snapshot = func(path string) error {
		enginetest.Keep(t, shop, filepath.Base(path), "disk")
		return nil
	}
	if name, err := e.CreateSnapshot(t.Context(), "shop", "one"); err != nil || name != "one" {
		t.Errorf("%q, %v", name, err)
	}
	unnamed, err := e.CreateSnapshot(t.Context(), "shop", "")
	if err != nil || sandbox.CheckName(unnamed) != nil {
		t.Errorf("%q, %v", unnamed, err)
	}
	if list, err := e.Snapshots("shop"); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	s.snapshot = func(string) error { return errors.New("no room") }
	if _, err := e.CreateSnapshot(t.Context(), "shop", "three"); engine.ReasonOf(err) != engine.SnapshotFailed || !strings.Contains(err.Error(), "no room") {
		t.Errorf("%v", err)
	}
	s.snapshot = func(string) error { return control.Errorf(control.ReasonCannotSave, "not on this host") }
	if _, err := e.CreateSnapshot(t.Context(), "shop", "four"); engine.ReasonOf(err) != engine.CannotSave {
		t.Errorf("%v", err)
	}
	if got, want := s.all(), []string{"snapshot one", "snapshot " + unnamed, "snapshot three", "snapshot four"}; !slices.Equal(got, want) {
		t.Errorf("asked of the supervisor: %q, want %q", got, want)
	}
}

// TestListsAreListsInJSON: a sandbox without ports and mounts has empty lists, which
// programs can walk, and not null.
func TestListsAreListsInJSON(t *testing.T) {
	sandboxes, err := store.OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sandboxes.Create(&sandbox.Spec{ID: "1", Name: "bare", Dir: "/p"}); err != nil {
		t.Fatal(err)
	}
	i, err := engine.New(sandboxes, engine.Options{}).Describe(t.Context(), "bare")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(i)
	if err != nil || !strings.Contains(string(b), `"ports":[]`) || !strings.Contains(string(b), `"mounts":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}
