package engine

import (
	"fmt"
	"testing"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

func TestLimitsOfEnvironment(t *testing.T) {
	standard := store.Limits{Sandboxes: defaultMaxSandboxes, Memory: defaultMaxTimes * HostMemory()}
	for _, c := range []struct {
		sandboxes, memory string
		want              store.Limits
		ok                bool
	}{
		{"", "", standard, true},
		{"3", "8g", store.Limits{Sandboxes: 3, Memory: 8 << 30}, true},
		{"0", "", store.Limits{}, false},
		{"many", "", store.Limits{}, false},
		{"", "much", store.Limits{}, false},
	} {
		t.Setenv(MaxSandboxesEnv, c.sandboxes)
		t.Setenv(MaxMemoryEnv, c.memory)
		if got, err := limits(); (err == nil) != c.ok || c.ok && got != c.want {
			t.Errorf("%q, %q: %+v, %v", c.sandboxes, c.memory, got, err)
		}
	}
}

// TestAdmit: a sandbox starts only where the limits leave room beside those that run.
func TestAdmit(t *testing.T) {
	if memoryLow() {
		t.Skip("this host has too little memory left")
	}
	e, dir := newProject(t)
	var specs []*sandbox.Spec
	for i := range 2 {
		s := &sandbox.Spec{ID: sandbox.NewID(), Name: fmt.Sprintf("s%d", i), Dir: dir, CPUs: 1, Memory: sandbox.MinMemory, Disk: sandbox.MinDisk}
		if _, err := e.sandboxes.Create(s); err != nil {
			t.Fatal(err)
		}
		specs = append(specs, s)
	}
	lock, err := e.admit(t.Context(), specs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	t.Setenv(MaxSandboxesEnv, "1")
	if _, err := e.admit(t.Context(), specs[1]); ReasonOf(err) != LimitReached {
		t.Errorf("a second one: %v", err)
	}
	t.Setenv(MaxSandboxesEnv, "2")
	second, err := e.admit(t.Context(), specs[1])
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestLongestIdle(t *testing.T) {
	used := func(minutesAgo int) time.Time { return time.Now().Add(-time.Duration(minutesAgo) * time.Minute) }
	busy := control.Status{Phase: sandbox.Running, Attached: 1, LastUse: used(100)}
	for name, c := range map[string]struct {
		all  map[string]control.Status
		want string
	}{
		"none runs":              {nil, ""},
		"somebody is there":      {map[string]control.Status{"a": busy}, ""},
		"of an older build":      {map[string]control.Status{"a": {Phase: sandbox.Running}}, ""},
		"it is being stopped":    {map[string]control.Status{"a": {Phase: sandbox.Stopping, LastUse: used(9)}}, ""},
		"the longest of several": {map[string]control.Status{"a": {Phase: sandbox.Running, LastUse: used(2)}, "b": {Phase: sandbox.Running, LastUse: used(3)}, "c": busy}, "b"},
	} {
		if got, _ := longestIdle(c.all); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
