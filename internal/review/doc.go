// Package review says what a guest's work means for the host: what the host may run or trust of
// what was changed, what the guest was kept from, and what it has in private versions.
//
// # Theory of operation
//
// What was changed comes from package undo: the server of the share has written down each path
// before the guest changed it, so a guest can neither leave one out nor make the old contents
// up. Find judges one change by its name (list.go) and by what was and is in the file (find.go).
// Names and contents are the guest's: everything is bounded, nothing is followed, and a front
// end shows no byte of it as it is.
//
// The list is help for a person, and no boundary: any source file that was changed does
// what it likes when the host runs it.
package review

import (
	"time"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/undo"
)

// Class is why the host may run or trust a path.
type Class string

// The classes.
const (
	Executable Class = "executable" // it can be run as a program
	Mode       Class = "mode"       // its permissions changed
	Script     Class = "script"     // scripts and dependencies of package.json
	Build      Class = "build"      // programs that build or test read it and run what it says
	CI         Class = "ci"         // a CI service runs it, with the secrets of the repository
	Lock       Class = "lock"       // says what packages the host installs
	LinkOut    Class = "link"       // a symbolic link that leads out of the project
	Secret     Class = "secret"     // looks like a key or a token
	Git        Class = "git"        // git on the host goes by it
	Moved      Class = "moved"      // a directory was moved
)

// Finding is a path that the host may run or trust.
type Finding struct {
	Path  string `json:"path"`
	Class Class  `json:"class"`
	Why   string `json:"why"`
	// Paths is how many paths below Path it stands for, if it stands for a directory.
	Paths int `json:"paths,omitempty"`
}

// Stat is one changed path.
type Stat struct {
	Path    string `json:"path"`
	From    string `json:"from,omitempty"` // where the directory was before
	Status  Status `json:"status"`
	Added   int    `json:"added"`            // lines
	Removed int    `json:"removed"`          // lines
	Binary  bool   `json:"binary,omitempty"` // or too large, or not kept: lines were not counted
}

// Status is what was done to a path.
type Status string

// The statuses, as git-diff(1) --name-status has them.
const (
	Added    Status = "A"
	Deleted  Status = "D"
	Modified Status = "M"
	Renamed  Status = "R"
	Type     Status = "T" // another kind of file
)

// Kept is a path of which the guest has a version of its own.
type Kept struct {
	Share  string `json:"share"` // the shared directory on the host
	Path   string `json:"path"`  // from there
	Status Status `json:"status"`
	Exec   bool   `json:"executable,omitempty"`
	Link   string `json:"link,omitempty"`   // target of a symbolic link
	Diff   string `json:"diff,omitempty"`   // unified, as it is: not fit for a terminal
	Cut    bool   `json:"cut,omitempty"`    // the diff is longer
	Note   string `json:"note,omitempty"`   // why there is no diff
	Hidden bool   `json:"hidden,omitempty"` // the guest does not see the host's
}

// Review is what there is to look at.
type Review struct {
	Sandbox  string        `json:"sandbox"`
	Project  string        `json:"project"`
	Point    int           `json:"point,omitempty"` // the restore point that is compared with
	Since    time.Time     `json:"since,omitzero"`
	Findings []Finding     `json:"findings"`
	Kept     []Kept        `json:"kept"`
	Refused  []guard.Event `json:"refused"`
	Changes  []Stat        `json:"changes"`
	InGit    int           `json:"inGit"` // paths below .git that were changed and are not in Changes
	Notes    []string      `json:"notes,omitempty"`
}

// Empty reports whether there is nothing to look at.
func (r *Review) Empty() bool {
	return len(r.Findings)+len(r.Kept)+len(r.Refused)+len(r.Changes)+r.InGit+len(r.Notes) == 0
}

// Source yields what was and what is at the paths of changes. Package undo has it.
type Source interface {
	// Before and Now return up to limit bytes of a file. ok is false if it cannot be read.
	Before(c *undo.Change, limit int64) (data []byte, ok bool)
	Now(c *undo.Change, limit int64) (data []byte, ok bool)
}
