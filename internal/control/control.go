// Package control is the whole API of a running sandbox: HTTP with JSON bodies. The
// supervisor implements Service, Handler serves one, and Client calls one over any
// connection. On the host the connection is the sandbox's control socket, which only the
// sandbox's owner can open.
//
// A request that fails is answered with an Error: a text for users and a Reason for
// programs. Events are a stream of their own (Client.Events), so that no client has to
// poll the status.
package control

import (
	"context"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/budget"
)

// Status is the present state of a running sandbox.
type Status struct {
	Name       string           `json:"name"`
	Phase      sandbox.Phase    `json:"phase"`
	PID        int              `json:"pid"`        // of the supervisor
	MachinePID int              `json:"machinePid"` // of the machine's process
	Since      time.Time        `json:"since"`      // when it became ready
	Accel      string           `json:"accel"`
	Kernel     string           `json:"kernel"`
	Ports      []sandbox.Port   `json:"ports"` // published now, by their number on the host
	Mounts     []sandbox.Source `json:"mounts"`
	// Attached is the number of commands, shells and SSH clients that are attached.
	Attached int `json:"attached"`
	// LastUse is when the sandbox was last in use, within some seconds. It is zero where that is
	// not known: with QEMUs that cannot suspend, and supervisors of older builds.
	LastUse time.Time `json:"lastUse,omitzero"`
	// Resumed: it was resumed from its suspended state, and did not boot.
	Resumed bool `json:"resumed,omitempty"`
	// Starved: the machine is paused until the host's disk has free space again.
	Starved bool `json:"starved,omitempty"`
	// Access are the requests of the guest that wait for the person, the oldest first.
	Access []Access `json:"accessRequests,omitempty"`
	// Goroutines is the number of goroutines of the supervisor, to find those that are left
	// behind. It is 0 from supervisors of older builds.
	Goroutines int `json:"goroutines,omitempty"`
	// Limits is how much of each limit of the sandbox is in use (docs/limits.md).
	Limits []budget.Use `json:"limits,omitempty"`
}

// Service is the set of requests that a supervisor serves. Its methods may be called by several
// goroutines at once. An error that is, or wraps, an *Error reaches the client with its
// reason.
type Service interface {
	Status() Status
	// Stop ends the sandbox and returns when its machine has powered off. With force the
	// machine is ended at once, as by a power failure. When ctx ends first, Stop
	// returns its cause and the shutdown continues.
	Stop(ctx context.Context, force bool) error
	// Suspend saves the sandbox's machine in its folder and ends it. Without force it fails
	// with ReasonAttached while somebody is attached.
	Suspend(ctx context.Context, force bool) error
	// Snapshot saves the sandbox's machine and disk in a folder at path, which is beside
	// other snapshots, and resumes the sandbox.
	Snapshot(ctx context.Context, path string) error
	// ChangePorts closes the ports of the host in remove and publishes those in add on the
	// host's loopback: all, or after an error none. A Host of 0 in add picks a free port.
	// A port that is published so already stays. It returns the ports of add as they are
	// published, in order.
	ChangePorts(add []sandbox.Port, remove []uint16) ([]sandbox.Port, error)
	// SettleLog returns when all earlier decisions are in the network log, or ctx ends.
	SettleLog(ctx context.Context) error
	// ReloadPolicy puts the rules on disk in force. It fails with ReasonPolicy if they
	// cannot be read; all traffic is denied then.
	ReloadPolicy() error
	// AllowOnce adds a rule that is forgotten when the sandbox stops.
	AllowOnce(rule string) error
	// AllowedOnce lists the rules of AllowOnce.
	AllowedOnce() ([]string, error)
	// ForgetOnce removes the rules of AllowOnce and puts the rules on disk in force.
	ForgetOnce() error
	// Usage measures what the sandbox takes of the host.
	Usage() (Usage, error)
	// RefuseAccess tells the guest that the person refused the rule that it asked for. It is no
	// error if the guest did not ask.
	RefuseAccess(rule string) error
	// FollowShares makes the guest see what lies at the paths of the shares now, if the host
	// has put another directory or file there. It fails if nothing that can be shared does.
	FollowShares(ctx context.Context) error
	// AddAgent gives the running guest the programs and the home of an agent. It is no error
	// if it has them. The caller keeps the spec.
	AddAgent(ctx context.Context, a sandbox.Agent) error
	// BeginRestorePoint makes what the guest changes in the project from now on part of a new
	// restore point (package undo).
	BeginRestorePoint(ctx context.Context) error
	// Subscribe begins a stream of events. The caller closes it.
	Subscribe() *Subscription
}
