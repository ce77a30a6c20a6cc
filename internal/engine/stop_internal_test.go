package engine

import (
	"strings"
	"testing"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// TestRemovalByForceWaitsForNoStoppedCommand: another bawn command has the right to start the
// sandbox, and was stopped by Ctrl-Z.
func TestRemovalByForceWaitsForNoStoppedCommand(t *testing.T) {
	e, _ := newEngine(t)
	d, err := e.sandboxes.Create(&sandbox.Spec{Name: "shop", ID: sandbox.NewID()})
	if err != nil {
		t.Fatal(err)
	}
	held, err := d.LockStart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := e.lockRemoval(t.Context(), d, true, 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "another bawn command") {
		t.Errorf("%v", err)
	}
	held.Close()
	l, err := e.lockRemoval(t.Context(), d, true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// TestSupervisorStandsStill: one that takes connections and answers none holds nobody
// up. Its end is tested with a real one (internal/vmtest).
func TestSupervisorStandsStill(t *testing.T) {
	sandboxes, err := store.OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := sandboxes.Create(&sandbox.Spec{Name: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.Listen(store.ControlSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lock, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := shutDown(t.Context(), d, 10*time.Millisecond); err == nil || !strings.Contains(err.Error(), "the supervisor of shop does not answer") {
		t.Errorf("stop: %v", err)
	}
	lock.Close() // it has ended by the time that it would be killed
	if err := endAtOnce(t.Context(), d, 10*time.Millisecond); err != nil {
		t.Errorf("stop --force: %v", err)
	}
	if st, err := d.State(); err != nil || st.Phase != sandbox.Stopped {
		t.Errorf("%+v, %v", st, err)
	}
}
