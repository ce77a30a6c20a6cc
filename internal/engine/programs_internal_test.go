package engine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/project"
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
		os.WriteFile(filepath.Join(dir, "planted-tool"), []byte("#!/bin/sh\n"), 0o755),
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

// TestAttackAPlantedApproval: bawn's configuration lies in, or by a link leads to, a directory
// that a guest could write to, so that it could approve a bawn.yaml itself.
func TestAttackAPlantedApproval(t *testing.T) {
	for name, lay := range map[string]func(dir string) error{
		"where XDG_CONFIG_HOME says": func(dir string) error {
			t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, ".config"))
			return nil
		},
		"by a link": func(dir string) error {
			config := filepath.Join(filepath.Dir(dir), ".config", "bawn")
			return errors.Join(os.MkdirAll(config, 0o700), os.Symlink(filepath.Join(dir, ".config/bawn/trust"), filepath.Join(config, "trust")))
		},
	} {
		e, dir := newProject(t)
		t.Cleanup(func() { proc.Distrust(nil) })
		d, err := e.sandboxes.Create(&sandbox.Spec{ID: sandbox.NewID(), Name: "shop", Dir: dir, Project: sandbox.Source{Host: dir, Guest: dir}})
		if err != nil {
			t.Fatal(err)
		}
		text := "allow: ['**']\n"
		propose(t, dir, text)
		planted := project.OpenAt(filepath.Join(dir, ".config/bawn/trust")).File(dir)
		if err := errors.Join(os.MkdirAll(filepath.Dir(planted), 0o700), os.WriteFile(planted, []byte(text), 0o600), lay(dir), d.Remove()); err != nil {
			t.Fatal(err)
		}
		if c, err := e.CheckProject(dir); err == nil || !strings.Contains(err.Error(), "is not believed") {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		if s, err := e.newSpec("shop", dir, &SpecChange{}); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
