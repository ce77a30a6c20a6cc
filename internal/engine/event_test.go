package engine

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sandbox/store"
)

// newEngine is an engine on a store of the test's own, and what it reported.
func newEngine(t *testing.T) (*Engine, func() []Event) {
	t.Helper()
	sandboxes, err := store.OpenAt(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []Event
	e := New(sandboxes, Options{Events: func(ev Event) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, ev)
	}})
	return e, func() []Event {
		mu.Lock()
		defer mu.Unlock()
		return append([]Event(nil), got...)
	}
}

func TestProgressBecomesEvents(t *testing.T) {
	e, events := newEngine(t)
	failed := errors.New("no room")
	task := e.progress().Start("Copying", 10, progress.Bytes)
	task.Add(4)
	task.Note("a file")
	task.Add(6)
	task.Done(failed)
	got := events()
	first, ok := got[0].(TaskStarted)
	if !ok || first.Label != "Copying" || first.Total != 10 || first.Unit != progress.Bytes {
		t.Fatalf("%+v", got[0])
	}
	want := []Event{
		TaskAdvanced{first.Task, 4, ""}, TaskAdvanced{first.Task, 4, "a file"},
		TaskAdvanced{first.Task, 10, "a file"}, TaskEnded{first.Task, failed},
	}
	if !reflect.DeepEqual(got[1:], want) {
		t.Errorf("got %+v, want %+v", got[1:], want)
	}
}

func TestReasonOf(t *testing.T) {
	err := fmt.Errorf("start: %w", failf(Exists, "shop", "a sandbox named %s exists already", "shop"))
	if r := ReasonOf(err); r != Exists {
		t.Errorf("got %q", r)
	}
	if r := ReasonOf(errors.New("other")); r != "" {
		t.Errorf("got %q for an error without a reason", r)
	}
}
