package engine

import (
	"fmt"
	"os"
	"path/filepath"
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
