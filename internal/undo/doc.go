// Package undo keeps what a guest changes in a project, so that a person can take it back.
//
// # Theory of operation
//
// The store is a directory beside the sandbox's state, never in the project. It holds
// restore points, one folder each, numbered upwards. A Recorder belongs to the server of the
// project's share. Before the guest changes a path for the first time since a restore point,
// the Recorder writes down what was there: nothing, a file with its attributes and a copy of
// its contents, a symbolic link with its target, or a directory. A path that was written down
// costs nothing more until the next point. A point in which nothing changes has no folder.
//
// A folder holds
//
//	journal   the records, a JSON document a line, only ever appended to (record.go)
//	after     for each record, how the guest left the path (slot.go), replaced in place
//	fN, cN    contents from before a change: copied, or cloned (sharing the blocks)
//
// Directories are not copied when they are renamed: the journal has a record of the rename,
// and plan.go replays the journal backwards.
//
// A Plan compares what was with what is. A path that is not as the guest left it was changed
// on the host since; it is left alone unless the caller names it. Apply first writes the
// whole plan to the store, and then replaces one file at a time by rename(2). After a kill at
// any moment each path is as before or as asked, and the next undo finishes the plan.
//
// What Apply replaces is recorded in a restore point of its own, so an undo can be undone. A file
// that something takes the place of, or that goes, is first moved to a temporary name and compared
// with what the plan says of it (place.go): what the host has saved there a moment before is put back.
//
// Old points make room for new ones. While an undo is applied no Recorder removes any (hold.go), but
// the undo's own, which keeps those that it goes back to.
//
// Records are written before the change that they are about, into the page cache: they
// outlive the process, not the host. Sync writes them to disk. After a crash of the host the
// last records may be missing or damaged; reading stops at the first damaged one, and what
// that one was about counts as changed on the host.
//
// # Hostile input
//
// A guest that broke out into the server of its share can write anything into the store. So
// paths are checked component by component, nothing is followed through a symbolic link, and
// set-user-ID and set-group-ID are never restored. A forged store can change the project
// when a person asks for an undo, as the guest could without it, and nothing else.
package undo

import "time"

// Limits of a store.
const (
	// MaxBytes bounds the copied contents of all restore points. The oldest points make
	// room; when the newest alone is larger, further contents are not kept.
	MaxBytes = 4 << 30
	// MaxFile bounds one file that is copied, in bytes. A clone has no bound.
	MaxFile = 1 << 30
	// MaxRecords bounds the records of a restore point.
	MaxRecords = 250_000
	// MaxPoints bounds the restore points.
	MaxPoints = 64
	// MaxAge is how long a restore point is kept.
	MaxAge = 14 * 24 * 60 * time.Minute
)

// maxBytes is MaxBytes, but for tests.
var maxBytes int64 = MaxBytes

// maxLine bounds a line of the journal, in bytes: two paths of PATH_MAX in base64, a target
// and an attribute.
const maxLine = 32 << 10

// maxDepth bounds the components of a path: PATH_MAX has room for no more.
const maxDepth = 2048
