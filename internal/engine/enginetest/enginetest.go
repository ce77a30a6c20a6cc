// Package enginetest has homes, projects and sandboxes without a machine, for tests of the engine and its front ends.
package enginetest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
)

// TempHome returns a new home directory of the user, free of symbolic links, until the test ends. With it ends what
// an engine of the test has said about guests (proc.Distrust).
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
	t.Cleanup(func() { proc.Distrust(nil) }) // what the test's engine knows of guests is gone with the home
	return home
}

// Project returns the user's store in a new home directory, and a directory of a project there.
func Project(t *testing.T) (sandboxes *store.Store, dir string) {
	t.Helper()
	home := TempHome(t)
	dir = filepath.Join(home, "shop")
	for _, d := range []string{dir, filepath.Join(home, ".ssh"), filepath.Join(dir, "data")} {
		if err := os.Mkdir(d, 0o755); err != nil { //nolint:gosec // a directory as a person makes it
			t.Fatal(err)
		}
	}
	sandboxes, err := store.Open()
	if err != nil {
		t.Fatal(err)
	}
	return sandboxes, dir
}

// Serve makes a sandbox seem to run, with a service that answers for its supervisor, until
// the test ends or the lock is closed.
func Serve(t *testing.T, d store.Dir, s control.Service) *lockfile.Lock {
	t.Helper()
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := d.WriteState(sandbox.State{Phase: sandbox.Running, PID: os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen(store.ControlSocket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: control.Handler(s), ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Close(); serving.Wait() })
	return lock
}

// Keep makes a snapshot of a sandbox, whose disk holds the text.
func Keep(t *testing.T, d store.Dir, name, disk string) *snapshot.Snapshot {
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
	path := filepath.Join(d.File(store.SnapshotsFolder), name)
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
