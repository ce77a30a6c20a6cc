package engine

import (
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/engine/enginetest"
	"bawn.dev/bawn/internal/project"
)

// newProject is an engine in a home of its own, and a project directory there.
func newProject(t *testing.T) (e *Engine, dir string) {
	t.Helper()
	sandboxes, dir := enginetest.Project(t)
	return New(sandboxes, Options{}), dir
}

// propose writes a project's bawn.yaml.
func propose(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, project.Name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// approve approves a project's bawn.yaml as it is now.
func approve(t *testing.T, e *Engine, dir string) {
	t.Helper()
	c, err := e.CheckProject(dir)
	if err == nil {
		err = e.Approve(t.Context(), c)
	}
	if err != nil {
		t.Fatal(err)
	}
}
