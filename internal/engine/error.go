package engine

import (
	"errors"
	"fmt"

	"bawn.dev/bawn/internal/sandbox"
)

// Reason is why something failed, or what a Notice is about, for programs to branch on.
// Its value is stable: front ends put it into machine-readable output.
type Reason string

// The reasons. Which fields of Error each one fills is said beside it.
const (
	// NotFound: there is no such sandbox (Sandbox, or Path of the directory that has
	// none).
	NotFound Reason = "sandbox-not-found"
	// Exists: a sandbox of that name exists already (Sandbox).
	Exists Reason = "sandbox-exists"
)

// Error is a failure with what a front end needs to say the next step. Its text is the
// text of Err: what happened, in plain words, without a hint.
type Error struct {
	Reason   Reason
	Sandbox  string       // name
	Snapshot string       // name
	Path     string       // on the host
	Field    string       // of a spec, by its name in bawn.yaml
	Port     sandbox.Port // published
	Err      error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ReasonOf returns the reason of the outermost Error in err's tree, or "" if there is
// none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// failf is an Error about a sandbox with a text of its own; %w keeps a cause.
func failf(r Reason, name, format string, args ...any) *Error {
	return &Error{Reason: r, Sandbox: name, Err: fmt.Errorf(format, args...)}
}
