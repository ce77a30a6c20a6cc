// Package engine is the application: everything that a verb of bawn does, as a Go API.
// The command line is one front end of it; a dashboard or a daemon would be others.
//
// Theory of operation. An Engine works on the sandboxes of one user. Its methods take a
// context, do their work in the calling goroutine and return when it is done or the
// context ends. They print nothing, ask nothing and read no flags:
//
//   - Methods report progress of tasks, and notices for the user, as Events (event.go).
//   - What went wrong comes back as an *Error (error.go) with a Reason that a front end
//     can branch on. The next step to take is the front end's to word, since it depends
//     on how the user gives commands there.
//   - Where the user has to decide (an unapproved bawn.yaml, say), the method returns an
//     Error that says so; the front end asks and calls again with the decision.
//
// Where things are: find.go finds and makes sandboxes; spec.go changes what the user asks
// of them; project.go has the consent to a bawn.yaml; start.go and boot.go bring a sandbox
// up, and limits.go and pool.go have their share in that; session.go uses a running one;
// stop.go and suspend.go end it. list.go describes all. The other files have a verb each.
//
// Several engines, in one process or in many, may work on the same sandboxes at once:
// the locks of package store order them.
package engine

import (
	"fmt"
	"os"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/proc"
)

// Engine works on the sandboxes of one user. Its methods may be called
// by several goroutines at once.
type Engine struct {
	sandboxes *store.Store
	version   string
	sshProxy  func(name string) string
	events    func(Event)
}

// Options are the settings of an Engine. The zero value drops all events.
type Options struct {
	// Version is bawn's, which new sandboxes note.
	Version string
	// SSHProxy returns the shell command that joins its standard input and output to the
	// SSH server of a sandbox (DialSSH). Nil where no SSHConfig is made.
	SSHProxy func(name string) string
	// Events receives what happens while methods run, in order. It is called by one
	// goroutine at a time and must not block or call the Engine. Nil drops events.
	Events func(Event)
}

// Open returns an Engine for the user's own sandboxes (package xdg has the folder). It is an error if a guest can
// write there or to this program, or could.
func Open(o Options) (*Engine, error) {
	sandboxes, err := store.Open()
	if err != nil {
		return nil, err
	}
	e := New(sandboxes, o)
	if err := sandboxes.CheckPlace(sandboxes.Root()); err != nil {
		return nil, fmt.Errorf("bawn's own folder %w; or move it out of that directory (XDG_STATE_HOME)", err)
	}
	if self, err := os.Executable(); err != nil {
		return nil, err
	} else if err := sandboxes.CheckPlace(self); err != nil { // it starts supervisors and share servers, later on too
		return nil, fmt.Errorf("bawn itself %w; or install it elsewhere", err)
	}
	return e, nil
}

// New returns an Engine for the sandboxes in a store. The process runs no program of the
// host that their guests could have written.
func New(sandboxes *store.Store, o Options) *Engine {
	proc.Distrust(sandboxes.Changeable)
	return &Engine{sandboxes: sandboxes, version: o.Version, sshProxy: o.SSHProxy, events: serialize(o.Events)}
}

// Sandboxes returns the store that the Engine works on, for reading.
func (e *Engine) Sandboxes() *store.Store { return e.sandboxes }
