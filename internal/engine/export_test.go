package engine

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
)

// TempHome returns a new home directory of the user, free of symbolic links, until the test ends.
func TempHome(t *testing.T) string {
	t.Helper()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"} {
		t.Setenv(v, "")
	}
	t.Setenv("HOME", home)
	return home
}

// KeepSnapshot makes a snapshot of a sandbox, whose disk holds the text.
func KeepSnapshot(t *testing.T, d store.Dir, name, disk string) *snapshot.Snapshot {
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
