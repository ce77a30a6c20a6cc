package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// TestLocalDirSuggested: once, for a large directory of a usual name, and not through a link.
func TestLocalDirSuggested(t *testing.T) {
	large := t.TempDir()
	for i := range manyFiles + 1 {
		if err := os.WriteFile(filepath.Join(large, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	small := t.TempDir()
	for name, c := range map[string]struct {
		spec sandbox.Spec
		link string
		dir  string
		says int
	}{
		"large":         {sandbox.Spec{Fresh: true}, "", large, 1},
		"small":         {sandbox.Spec{Fresh: true}, "", small, 0},
		"none":          {sandbox.Spec{Fresh: true}, "", "", 0},
		"a link":        {sandbox.Spec{Fresh: true}, large, "", 0},
		"a later start": {sandbox.Spec{}, "", large, 0},
		"a throwaway":   {sandbox.Spec{Fresh: true, Throwaway: true}, "", large, 0},
		"local ones":    {sandbox.Spec{Fresh: true, LocalDirs: []string{"x"}}, "", large, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e, events := newEngine(t)
			project := t.TempDir()
			at := filepath.Join(project, ".venv")
			var err error
			switch {
			case c.link != "":
				err = os.Symlink(c.link, at)
			case c.dir != "":
				err = os.Rename(c.dir, at)
				defer func() { _ = os.Rename(at, c.dir) }()
			}
			if err != nil {
				t.Fatal(err)
			}
			c.spec.Project = sandbox.Source{Host: project, Guest: project}
			e.sayLocalDirs(&c.spec)
			if got := events(); len(got) != c.says {
				t.Errorf("it says %v", got)
			}
		})
	}
}

// TestAttackAFullDirectory: no more is read of a directory that a guest has filled than is counted, and none behind a
// link.
func TestAttackAFullDirectory(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	if err := errors.Join(os.Mkdir(full, 0o700), os.Symlink("full", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for i := range 20 * manyFiles {
		if err := os.WriteFile(filepath.Join(full, strings.Repeat("n", 200)+strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	many := hasManyFiles(full)
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; !many || took > manyFiles*1000 {
		t.Errorf("%v; it takes %d bytes of memory", many, took)
	}
	if hasManyFiles(filepath.Join(dir, "link")) {
		t.Error("a link was followed")
	}
}
