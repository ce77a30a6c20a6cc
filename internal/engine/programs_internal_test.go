package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/proc"
)

// TestAttackAProgramPlantedBeforeRemoval: a guest leaves a program where PATH leads, and its
// sandbox is removed and the directory renamed.
func TestAttackAProgramPlantedBeforeRemoval(t *testing.T) {
	e, dir := newProject(t)
	t.Cleanup(func() { proc.Distrust(nil) })
	d, err := e.sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(filepath.Dir(dir), "tools")
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "planted-tool"), []byte("#!/bin/sh\n"), 0o755), //nolint:gosec // a program
		d.Remove(), os.Rename(dir, moved),
	); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", moved)
	path, err := proc.Find("planted-tool")
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "take the lines with this path out of ") {
		t.Errorf("%q, %v", path, err)
	}
}
