package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"

	"bawn.dev/bawn/internal/sandbox"
)

// Reason is the kind of a failure, for programs to branch on. Its values are stable.
type Reason string

// The reasons. An error without one has the empty Reason.
const (
	// ReasonNoAnswer: there is no supervisor, or it does not answer.
	ReasonNoAnswer Reason = "no-answer"
	// ReasonHangs: the supervisor takes requests and answers none.
	ReasonHangs Reason = "hangs"
	// ReasonVersion: the supervisor does not know the request; another version of bawn
	// started the sandbox.
	ReasonVersion Reason = "other-version"
	// ReasonRequest: the request is malformed.
	ReasonRequest Reason = "bad-request"
	// ReasonPhase: the sandbox is in a phase that does not allow the request.
	ReasonPhase Reason = "wrong-phase"
	// ReasonAttached: commands or shells are attached, which the request would end.
	ReasonAttached Reason = "attached"
	// ReasonSaving: the sandbox is being suspended, or a snapshot of it is being made.
	ReasonSaving Reason = "saving"
	// ReasonCannotSave: machines of this host's architecture can be neither suspended nor saved.
	ReasonCannotSave Reason = "cannot-save"
	// ReasonPortInUse: another program has the port of the host (Error.Port).
	ReasonPortInUse Reason = "port-in-use"
	// ReasonPortPrivileged: the port of the host is reserved for root (Error.Port).
	ReasonPortPrivileged Reason = "port-privileged"
	// ReasonPortPublished: the port of the host is published for another port of the guest
	// already (Error.Port is as asked for).
	ReasonPortPublished Reason = "port-published"
	// ReasonPortNotPublished: the port to be closed is not published (Error.Port).
	ReasonPortNotPublished Reason = "port-not-published"
	// ReasonPolicy: the rules on disk cannot be read, and all traffic is denied.
	ReasonPolicy Reason = "policy-broken"
	// ReasonRule: a rule is invalid.
	ReasonRule Reason = "bad-rule"
	// ReasonDiskFull: the host's disk is full.
	ReasonDiskFull Reason = "disk-full"
)

// Error is the failure of a request. Its text is the text of Err: what happened, without the
// next step, which depends on the front end.
type Error struct {
	Reason Reason
	Port   sandbox.Port // with the reasons about ports
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an error with a reason.
func Errorf(r Reason, format string, args ...any) error {
	return &Error{Reason: r, Err: fmt.Errorf(format, args...)}
}

// PortErrorf returns an error about a port.
func PortErrorf(r Reason, p sandbox.Port, format string, args ...any) error {
	return &Error{Reason: r, Port: p, Err: fmt.Errorf(format, args...)}
}

// ReasonOf returns the reason of the outermost Error in err's tree, or "" if there is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

// failure is an Error as it is sent to the client.
type failure struct {
	Error  string        `json:"error"`
	Reason Reason        `json:"reason,omitempty"`
	Port   *sandbox.Port `json:"port,omitempty"`
}

// failureOf returns an error as it is sent.
func failureOf(err error) failure {
	f := failure{Error: err.Error()}
	var e *Error
	switch {
	case errors.As(err, &e):
		f.Reason = e.Reason
		if e.Port != (sandbox.Port{}) {
			f.Port = &e.Port
		}
	case errors.Is(err, syscall.ENOSPC):
		f.Reason = ReasonDiskFull
	}
	return f
}

// err returns the error that was sent. With ReasonDiskFull it is ENOSPC (errors.Is).
func (f failure) err() error {
	e := &Error{Reason: f.Reason, Err: errors.New(f.Error)}
	if f.Port != nil {
		e.Port = *f.Port
	}
	if f.Reason == ReasonDiskFull {
		e.Err = &remoteError{f.Error, syscall.ENOSPC}
	}
	return e
}

// remoteError is an error with the text of another process and a cause that both know.
type remoteError struct {
	text  string
	cause error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.cause }

// parseFailure reads a failure that was received.
func parseFailure(b []byte) (failure, bool) {
	var f failure
	err := json.Unmarshal(b, &f)
	return f, err == nil && f.Error != ""
}

// NotListening reports whether a call failed before it began, because nothing listened at
// the control socket: the supervisor has ended (the socket is there, connect(2) gives
// ECONNREFUSED), or is about to end and has removed the socket (ENOENT). The call can be
// made again once the sandbox runs again.
func NotListening(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial" &&
		(errors.Is(dial, syscall.ECONNREFUSED) || errors.Is(dial, syscall.ENOENT))
}
