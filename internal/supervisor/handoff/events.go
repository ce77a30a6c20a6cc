package handoff

import (
	"encoding/json"
	"os"
)

// StartEvent is one line on the pipe from a starting supervisor to its launcher. A start
// ends with one event that has Ready or Error set.
type StartEvent struct {
	Stage string `json:"stage,omitempty"` // the step that begins now
	// Reachable: the guest's SSH server answers, though not everything is ready yet.
	Reachable bool   `json:"reachable,omitempty"`
	Note      string `json:"note,omitempty"`    // a message for the user
	Error     string `json:"error,omitempty"`   // why the start failed
	Crashed   bool   `json:"crashed,omitempty"` // with Error: the guest's kernel or QEMU crashed
	Ready     bool   `json:"ready,omitempty"`
	Cold      bool   `json:"cold,omitempty"` // with Ready: it booted, because there was no template
}

// Report sends a start event. It never fails: a launcher that is gone misses events.
type Report func(StartEvent)

// EventWriter returns a Report that writes to f, and a function that closes f.
func EventWriter(f *os.File) (report Report, done func()) {
	e := json.NewEncoder(f)
	return func(event StartEvent) { _ = e.Encode(event) }, func() { f.Close() }
}
