package launch

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/supervisor/handoff"
)

// TestFollow: what a supervisor says as it starts is told, up to how it ends.
func TestFollow(t *testing.T) {
	for name, c := range map[string]struct {
		says          []handoff.StartEvent
		fails         string
		cold, crashed bool
	}{
		"ready":         {says: []handoff.StartEvent{{Stage: "one"}, {Note: "look"}, {Reachable: true}, {Ready: true, Cold: true}}, cold: true},
		"failed":        {says: []handoff.StartEvent{{Stage: "one"}, {Note: "look"}, {Error: "no disk"}}, fails: "no disk"},
		"panicked":      {says: []handoff.StartEvent{{Stage: "one"}, {Note: "look"}, {Error: "not syncing", Crashed: true}}, fails: "not syncing", crashed: true},
		"without words": {says: []handoff.StartEvent{{Stage: "one"}, {Note: "look"}}, fails: "without giving a reason"},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range c.says {
			if err := json.NewEncoder(w).Encode(n); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		var stages []string
		reachable := 0
		how, err := Follow(t.Context(), r, Progress{Stage: func(s string) { stages = append(stages, s) }, Reachable: func() { reachable++ }})
		r.Close()
		if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) || Crashed(err) != c.crashed {
			t.Errorf("%s: %v", name, err)
		}
		if how.Cold != c.cold || !slices.Equal(how.Notes, []string{"look"}) || !slices.Equal(stages, []string{"one"}) {
			t.Errorf("%s: %+v, %q", name, how, stages)
		}
		if (reachable == 1) != slices.Contains(c.says, handoff.StartEvent{Reachable: true}) {
			t.Errorf("%s: reachable %d times", name, reachable)
		}
	}
}

// TestFollowEndsWithItsContext: of a supervisor that reports nothing.
func TestFollowEndsWithItsContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cause := errors.New("no longer wanted")
	ctx, cancel := context.WithCancelCause(t.Context())
	on := Progress{Stage: func(string) { cancel(cause) }, Reachable: func() {}}
	if err := json.NewEncoder(w).Encode(handoff.StartEvent{Stage: "booting"}); err != nil {
		t.Fatal(err)
	}
	if _, err := Follow(ctx, r, on); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}
