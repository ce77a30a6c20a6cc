package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
)

// keep makes a snapshot of a sandbox, whose disk holds the text.
func keep(t *testing.T, d store.Dir, name, disk string) *snapshot.Snapshot {
	t.Helper()
	ram, err := memory.New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	from := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(from, []byte(disk), 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := d.Spec()
	if err != nil {
		t.Fatal(err)
	}
	path := snapshotPath(d, name)
	draft, err := snapshot.Begin(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Discard()
	err = errors.Join(draft.RAM(ram), draft.State(func(w io.Writer) error { _, err := w.Write([]byte("state")); return err }), draft.Disk(t.Context(), from))
	if err == nil {
		err = draft.Commit(t.Context(), path, snapshot.Meta{Spec: spec})
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// bawnRun runs bawn and returns what it printed.
func bawnRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestRestoreVerifiesFirst: a damaged snapshot ends nothing, even with --force.
func TestRestoreVerifiesFirst(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, p := pretend(t, sandboxes, dir)
	own := d.File(store.DiskFile)
	if err := os.WriteFile(own, []byte("now"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, harm := range map[string]func(path string) error{
		"machine.ram":   func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) },
		"machine.state": os.Remove,
		"disk.raw":      func(path string) error { return os.WriteFile(path, []byte("Then"), 0o600) },
	} {
		s := keep(t, d, "one", "then")
		if err := harm(filepath.Join(s.Path, file)); err != nil {
			t.Fatal(err)
		}
		if _, err := bawnRun(t, "snapshot", "restore", "--force", "shop", "one"); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("%s: %v", file, err)
		}
		if st, err := d.State(); err != nil || st.Phase != sandbox.Running || len(p.all()) > 0 {
			t.Errorf("%s: the sandbox is %s, %v; asked of it: %q", file, st.Phase, err, p.all())
		}
		if _, err := bawnRun(t, "fork", "shop", "--from", "one", "other"); !errors.Is(err, snapshot.ErrDamaged) {
			t.Errorf("fork, %s: %v", file, err)
		}
	}
	if b, err := os.ReadFile(own); err != nil || string(b) != "now" {
		t.Errorf("the disk is %q, %v", b, err)
	}
	keep(t, d, "one", "then")
	if _, err := bawnRun(t, "snapshot", "restore", "shop", "one"); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("while it runs: %v", err)
	}
}

func TestRestorePutsAllBack(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir, CPUs: 3})
	if err != nil {
		t.Fatal(err)
	}
	keep(t, d, "one", "then")
	if err := errors.Join(d.WriteSpec(&sandbox.Spec{Name: "shop", Dir: dir, CPUs: 4}), os.WriteFile(d.File(store.DiskFile), []byte("now"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := restoreSnapshot(t.Context(), d, "one", false); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.File(store.DiskFile))
	spec, err2 := d.Spec()
	if err != nil || string(b) != "then" || err2 != nil || spec.CPUs != 3 || !suspended(d) {
		t.Errorf("disk %q, %v; spec %+v, %v; suspended %v", b, err, spec, err2, suspended(d))
	}
	if left, _ := filepath.Glob(d.File("*.restored")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestListShowsDamage: what a look at the files' sizes finds.
func TestListShowsDamage(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	keep(t, d, "good", "disk")
	if err := os.Remove(keep(t, d, "nodisk", "disk").Disk()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(keep(t, d, "short", "disk").Disk(), 1); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"good": "", "nodisk": "the snapshot is damaged: no disk.raw", "short": "the snapshot is damaged: disk.raw has 1 bytes of 4",
	}
	out, err := bawnRun(t, "snapshot", "ls", "--json")
	var rows []snapshotRow
	if err := errors.Join(err, json.Unmarshal([]byte(out), &rows)); err != nil || len(rows) != len(want) {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, r := range rows {
		if r.Error != want[r.Name] || r.Made.IsZero() {
			t.Errorf("%+v", r)
		}
	}
	if out, err = bawnRun(t, "snapshot", "ls"); err != nil || strings.Count(out, "damaged") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestListCountsAll: what snapshots take is shown, once where names share it, and so is
// that a sandbox is suspended, and how many snapshots go with it.
func TestListCountsAll(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	look := func() *engine.Info {
		t.Helper()
		r, err := engineOf(sandboxes).Describe(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := look(); r.SnapshotsUsed != 0 || r.SuspendedUsed != 0 || strings.Contains(diskWords(r), "+") || r.State.Phase != sandbox.Stopped {
		t.Errorf("before: %+v", r)
	}
	s := keep(t, d, "one", strings.Repeat("disk", 1<<18))
	was := look()
	if was.SnapshotsUsed < 1<<20 || !strings.Contains(diskWords(was), " + 1") {
		t.Errorf("a snapshot takes %d: %q", was.SnapshotsUsed, diskWords(was))
	}
	if err := s.Clone(d.File(store.SuspendedState)); err != nil {
		t.Fatal(err)
	}
	r := look()
	if r.SnapshotsUsed != was.SnapshotsUsed || r.SuspendedUsed > 3*4096 || r.State.Phase != sandbox.Suspended || !r.Suspended || stateWords(r) != "suspended" {
		t.Errorf("suspended where the snapshot was made: %+v", r)
	}
	keep(t, d, "two", "disk")
	root := rootCommand()
	var out, errs strings.Builder
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs([]string{"rm", "shop"})
	if err := root.ExecuteContext(t.Context()); err != nil || out.String() != "shop\n" || errs.String() != "bawn: 2 snapshots of shop went with it\n" {
		t.Errorf("%v, %q, %q", err, out.String(), errs.String())
	}
}
