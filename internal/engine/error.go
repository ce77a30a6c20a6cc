package engine

import (
	"errors"
	"fmt"
	"path/filepath"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/project"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
)

// Reason is the kind of a failure or of a Notice, for programs to branch on.
// Its value is stable: front ends put it into machine-readable output.
type Reason string

// The reasons of errors, with the fields of Error that each one fills in parentheses.
// Those about rules, images, snapshots, forks and copies are beside their methods, and
// those of notices in event.go.
const (
	// NotFound: there is no such sandbox (Sandbox, or Path of the directory that has
	// none).
	NotFound Reason = "sandbox-not-found"
	// Exists: a sandbox of that name exists already (Sandbox).
	Exists Reason = "sandbox-exists"
	// OtherDirectory: the sandbox belongs to another directory than the one that was
	// named (Sandbox, Path of the one that was named).
	OtherDirectory Reason = "sandbox-of-another-directory"
	// Damaged: a file of the sandbox is invalid; the sandbox can only be removed (Sandbox, Path
	// of the file).
	Damaged Reason = "sandbox-damaged"
	// StillRunning: the operation needs a sandbox that does not run (Sandbox).
	StillRunning Reason = "sandbox-running"
	// WrongPhase: the operation is not possible in the phase of the sandbox (Sandbox).
	WrongPhase Reason = "sandbox-in-wrong-phase"
	// NotSuspended: the sandbox does not run and is not suspended (Sandbox).
	NotSuspended Reason = "sandbox-not-suspended"

	// NoDirectory: the project directory does not exist (Path).
	NoDirectory Reason = "project-directory-not-found"
	// NotADirectory: the project directory is something else (Path).
	NotADirectory Reason = "project-not-a-directory"
	// DirectoryGone: a directory that the sandbox or its bawn.yaml shares does not exist
	// any more (Sandbox, Path).
	DirectoryGone Reason = "directory-gone"
	// MountGone: the source of a mount that an earlier change gave does not exist any
	// more (Sandbox, Path).
	MountGone Reason = "mount-gone"
	// NoMountSource: the source of a mount that is asked for does not exist (Path).
	NoMountSource Reason = "mount-source-not-found"

	// ShareOfBawn, ShareOfHome, ShareOfKernel and ShareNotReadOnly: a directory that is to
	// be shared must not be (Path; store.ShareRefusal).
	ShareOfBawn      = Reason(store.OwnShare)
	ShareOfHome      = Reason(store.HomeShare)
	ShareOfKernel    = Reason(store.KernelShare)
	ShareNotReadOnly = Reason(store.ReadOnlyShare)

	// InvalidSpec: a value of a spec is invalid (Fields has its name).
	InvalidSpec Reason = "invalid-spec"
	// NeedsRestart: the sandbox runs, and what is asked for takes effect at a start
	// (Sandbox, Fields). As a notice: the approved bawn.yaml changes these at a start.
	NeedsRestart Reason = "needs-restart"
	// ImageFixed: the sandbox's disk is laid over its image, which cannot change
	// (Sandbox). As a notice: bawn.yaml names another image.
	ImageFixed Reason = "image-fixed"
	// DiskCannotShrink: the sandbox's disk is larger than what is asked for (Sandbox).
	DiskCannotShrink Reason = "disk-cannot-shrink"

	// PortInUse: another program has the port of the host (Port; Origin and Sandbox at a
	// start).
	PortInUse = Reason(control.ReasonPortInUse)
	// PortPrivileged: the port of the host is reserved for root (as PortInUse).
	PortPrivileged = Reason(control.ReasonPortPrivileged)
	// PortPublished: the port of the host leads to another port of the guest (Port, the
	// one that is published).
	PortPublished = Reason(control.ReasonPortPublished)
	// PortNotPublished: the sandbox does not publish that port (Port.Host, Sandbox).
	PortNotPublished = Reason(control.ReasonPortNotPublished)

	// Attached: commands or shells are attached, which would be ended.
	Attached = Reason(control.ReasonAttached)
	// CannotSave: sandboxes on this host can be neither suspended nor saved.
	CannotSave = Reason(control.ReasonCannotSave)
	// OtherVersion: the sandbox was started by another version of bawn.
	OtherVersion = Reason(control.ReasonVersion)

	// NotApproved: the project's bawn.yaml is not as the user approved it (Path of its
	// directory, Check). As a notice: it has no effect.
	NotApproved Reason = "project-not-approved"
	// ProjectInvalid: the project's bawn.yaml cannot be used (Path of its directory,
	// Check where it was just read).
	ProjectInvalid Reason = "project-invalid"
	// ApprovalInvalid: what was approved cannot be used any more (Path of the project
	// directory; Fields: the file, if it is not bawn.yaml).
	ApprovalInvalid Reason = "approval-invalid"
	// ApprovalUnreadable: the file that holds the approval cannot be read (Path and Fields
	// as for ApprovalInvalid).
	ApprovalUnreadable Reason = "approval-unreadable"

	// NoQEMU: no usable QEMU is installed.
	NoQEMU Reason = "qemu-missing"
	// NoMemory: the host has too little memory left for a start.
	NoMemory Reason = "host-memory-low"
	// LimitReached: the limits on all sandboxes together leave no room.
	LimitReached Reason = "limit-reached"
	// StartFailed: the sandbox did not start (Sandbox, if it is still there; Throwaway).
	StartFailed Reason = "start-failed"
	// SupervisorDied: as StartFailed, and the reason can only be in the supervisor's log.
	SupervisorDied Reason = "supervisor-died"
	// StopFailed: the sandbox did not stop (Sandbox).
	StopFailed Reason = "stop-failed"
	// SuspendFailed: the sandbox was not suspended (Sandbox).
	SuspendFailed Reason = "suspend-failed"

	// NoGuestUser: the guest has no user of that name (Sandbox).
	NoGuestUser Reason = "guest-user-unknown"
	// Hangs: the sandbox's supervisor takes requests and answers none (control.ReasonHangs).
	Hangs Reason = Reason(control.ReasonHangs)
	// NotAnswering: the guest does not answer (Sandbox, if it is there to be looked at).
	NotAnswering Reason = "guest-not-answering"
	// CommandFailed: the command was not run to its end, because of bawn or of the
	// sandbox (Sandbox, if it is still there; Throwaway).
	CommandFailed Reason = "command-not-run"

	// InvalidPoolSize: the size of the pool is out of range.
	InvalidPoolSize Reason = "invalid-pool-size"
	// PoolSizeDamaged: the file with the size of the pool is invalid (Path).
	PoolSizeDamaged Reason = "pool-size-damaged"
)

// Origin is the place that a part of a spec comes from.
type Origin string

// The origins.
const (
	FromRequest Origin = "request" // what is being asked for now
	FromSandbox Origin = "sandbox" // an earlier request, kept in the sandbox's spec
	FromProject Origin = "project" // the approved bawn.yaml
)

// Error is a failure with the fields that a front end needs to suggest the next step. Its
// text is that of Err: what happened, without a hint.
type Error struct {
	Reason    Reason
	Sandbox   string       // name
	Throwaway bool         // the sandbox is removed with its command
	Snapshot  string       // name
	Volume    string       // name
	Path      string       // on the host
	Fields    []string     // of a spec, by their names in bawn.yaml or SpecChange
	Port      sandbox.Port // published
	Origin    Origin       // of what failed
	Check     *project.Check
	Err       error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// As returns the outermost Error in err's tree. An error of a package below that has a
// meaning here becomes one: a sandbox that does not exist or is damaged, an invalid value of
// a spec, a refusal to share, an answer of a supervisor (with its control.Reason). It is nil
// if there is none.
func As(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var damaged *store.DamagedError
	var field *sandbox.FieldError
	var answer *control.Error
	var share *store.ShareError
	var notMade *image.NotMadeError
	switch {
	case errors.As(err, &notMade):
		return &Error{Reason: ImageNotMade, Path: notMade.Name, Err: err}
	case errors.As(err, &share):
		return &Error{Reason: Reason(share.Reason), Path: share.Path, Err: err}
	case errors.As(err, &answer):
		return &Error{Reason: Reason(answer.Reason), Port: answer.Port, Err: err}
	case errors.As(err, &field):
		return &Error{Reason: InvalidSpec, Fields: []string{field.Field}, Err: err}
	case errors.As(err, &damaged):
		return &Error{Reason: Damaged, Sandbox: filepath.Base(filepath.Dir(damaged.File)), Path: damaged.File, Err: err}
	case store.IsNotFound(err):
		return &Error{Reason: NotFound, Err: err}
	}
	return nil
}

// ReasonOf returns the reason of As(err), or "" if there is none.
func ReasonOf(err error) Reason {
	if e := As(err); e != nil {
		return e.Reason
	}
	return ""
}

// failf returns an Error about a sandbox with a text of its own; %w keeps a cause.
func failf(r Reason, name, format string, args ...any) *Error {
	return &Error{Reason: r, Sandbox: name, Err: fmt.Errorf(format, args...)}
}

// because gives an error about a sandbox a reason; nil stays nil.
func because(r Reason, name string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Reason: r, Sandbox: name, Err: err}
}
