package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bawn.dev/bawn/internal/engine"
)

// shownOf is what is printed to a file for events.
func shownOf(t *testing.T, f func(*bars)) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	f(newBars(out))
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBarsInAFile(t *testing.T) {
	long := time.Now().Add(-2 * time.Second)
	for name, c := range map[string]struct {
		events []engine.Event
		want   string
	}{
		"a short task":     {[]engine.Event{engine.TaskStarted{Task: 1, Label: "Working", At: time.Now()}, engine.TaskEnded{Task: 1}}, ""},
		"a long task":      {[]engine.Event{engine.TaskStarted{Task: 1, Label: "Working", At: long}, engine.TaskEnded{Task: 1}}, "bawn: Working: done in 2s\n"},
		"hostile names":    {[]engine.Event{engine.TaskStarted{Task: 1, Label: "Waiting for another build of /p/\x1b]0;x\x07\n", At: long}, engine.TaskEnded{Task: 1}}, `bawn: Waiting for another build of /p/\x1b]0;x\x07\n: done in 2s` + "\n"},
		"one that failed":  {[]engine.Event{engine.TaskStarted{Task: 1, Label: "Working", At: long}, engine.TaskEnded{Task: 1, Err: errors.New("no")}}, ""},
		"a notice":         {[]engine.Event{engine.Notice{Text: "look"}}, "bawn: look\n"},
		"with a next step": {[]engine.Event{engine.Notice{Reason: engine.StopSlow, Sandbox: "shop", Text: "look"}}, "bawn: look\n  try: bawn stop --force shop turns it off at once\n"},
		"of two, one":      {[]engine.Event{engine.TaskStarted{Task: 1, Label: "Other", At: long}, engine.TaskStarted{Task: 2, Label: "Working", At: long}, engine.TaskEnded{Task: 2}}, "bawn: Working: done in 2s\n"},
	} {
		got := shownOf(t, func(b *bars) {
			for _, ev := range c.events {
				b.show(ev)
			}
			for len(b.tasks) > 0 { // or the drawing goes on
				b.show(engine.TaskEnded{Task: b.tasks[0].Task, Err: errors.New("over")})
			}
			if b.stop != nil {
				t.Errorf("%s: it is drawn on", name)
			}
		})
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestBarsWhileRaw: a terminal that a command of the guest's has does not return by itself.
func TestBarsWhileRaw(t *testing.T) {
	got := shownOf(t, func(b *bars) {
		b.setRaw(true)
		b.show(engine.Notice{Reason: engine.HostDiskFull, Sandbox: "shop", Path: "/s", Text: "full"})
		b.setRaw(false)
		b.show(engine.Notice{Text: "free"})
	})
	if want := "bawn: full\r\n  try: free space on the file system of /s, or bawn stop --force shop\r\nbawn: free\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestBarsOnATerminal: a task that takes long is drawn, and wiped when it is over.
func TestBarsOnATerminal(t *testing.T) {
	person, slave := newTerminal(t)
	b := newBars(slave)
	b.show(engine.TaskStarted{Task: 1, Label: "Working", Total: 4, At: time.Now().Add(-time.Second)})
	b.show(engine.TaskAdvanced{Task: 1, Done: 1, Detail: "a\x1b[2J"})
	person.until("Working  ━━━━━━──────────────────  25%")
	person.until(`a\x1b[2J`)
	b.show(engine.TaskEnded{Task: 1, Err: errors.New("no")})
	person.until("\r\x1b[K")
}
