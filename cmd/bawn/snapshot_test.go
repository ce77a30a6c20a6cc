package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/engine"
	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

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

// TestListShowsDamage: what a look at the files' sizes finds.
func TestListShowsDamage(t *testing.T) {
	sandboxes, dir := projectPlace(t)
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	enginetest.Keep(t, d, "good", "disk")
	if err := os.Remove(enginetest.Keep(t, d, "nodisk", "disk").Disk()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(enginetest.Keep(t, d, "short", "disk").Disk(), 1); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"good": "", "nodisk": "the snapshot is damaged: no disk.raw", "short": "the snapshot is damaged: disk.raw has 1 bytes instead of 4",
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
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	look := func() *engine.Info {
		t.Helper()
		r, err := engine.New(sandboxes, engine.Options{}).Describe(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := look(); r.SnapshotsUsed != 0 || r.SuspendedUsed != 0 || strings.Contains(diskWords(r), "+") || r.State.Phase != sandbox.Stopped {
		t.Errorf("before: %+v", r)
	}
	s := enginetest.Keep(t, d, "one", strings.Repeat("disk", 1<<18))
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
	enginetest.Keep(t, d, "two", "disk")
	root := rootCommand()
	var out, errs strings.Builder
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs([]string{"rm", "shop"})
	if err := root.ExecuteContext(t.Context()); err != nil || out.String() != "shop\n" || errs.String() != "bawn: removed 2 snapshots of shop with it\n" {
		t.Errorf("%v, %q, %q", err, out.String(), errs.String())
	}
}
