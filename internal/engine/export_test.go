package engine

import (
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/sandbox"
)

// SetDockerSocket gives the guest's Docker another socket until the test ends.
func SetDockerSocket(t *testing.T, socket string) {
	t.Helper()
	was := dockerSocket
	t.Cleanup(func() { dockerSocket = was })
	dockerSocket = socket
}

// Additions returns what the approved files of a project add to a spec.
func (e *Engine) Additions(spec *sandbox.Spec) (sandbox.Added, error) {
	return approvedAdditions(e.sandboxes, spec)
}

// SetSetupFolders puts the notes of devcontainer commands below a directory until the test ends.
func SetSetupFolders(t *testing.T, dir string) (once, start string) {
	t.Helper()
	was1, was2 := setupOnceFolder, setupStartFolder
	t.Cleanup(func() { setupOnceFolder, setupStartFolder = was1, was2 })
	setupOnceFolder, setupStartFolder = filepath.Join(dir, "once"), filepath.Join(dir, "start")
	file := hostsFile
	t.Cleanup(func() { hostsFile = file })
	hostsFile = filepath.Join(dir, "hosts")
	return setupOnceFolder, setupStartFolder
}
