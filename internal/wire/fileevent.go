package wire

import "time"

// FileEventKind is what happened to a file of a share on the host.
type FileEventKind string

// The kinds of file events.
const (
	FileCreated FileEventKind = "create"
	FileRemoved FileEventKind = "remove"
	FileRenamed FileEventKind = "rename"
	FileWritten FileEventKind = "modify" // its contents changed
	FileClosed  FileEventKind = "close"  // it was open for writing
	FileChanged FileEventKind = "attrib" // its attributes changed
)

// FileEvent is a change on the host that watchers in the guest are to see. The agent makes the
// system call that would have caused it; the share's server carries none of them out (package
// share, fileevents.go).
type FileEvent struct {
	Kind FileEventKind `json:"kind"`
	Dir  []byte        `json:"dir,omitempty"` // path below the share's root, which is empty
	Name []byte        `json:"name"`
	Type uint32        `json:"type"` // of the file: S_IFMT of its mode, inode(7)
	// ToDir and ToName are the new place of a file that was renamed.
	ToDir  []byte `json:"toDir,omitempty"`
	ToName []byte `json:"toName,omitempty"`
}

// FileEventAttribute is the prefix of the extended attribute that the agent asks for before an
// event, with the event's number in the batch at the end: so the server knows which event the
// thread plays.
const FileEventAttribute = "trusted.bawn.event."

// FileEventValue is the value of the attribute. Without it the agent does not play the event: what it
// would do might be carried out.
const FileEventValue = "play"

// WatchedShare lists the files and directories of a share that programs in the guest watch, by
// their numbers in FUSE (nodeid in linux/fuse.h).
type WatchedShare struct {
	Tag   string   `json:"tag"`
	Nodes []uint64 `json:"nodes"`
}

// WatchReply is a line from the guest on a StreamWatch stream: what is watched, or with Done
// that a batch of events was played.
type WatchReply struct {
	// Thread is the agent's thread that plays events.
	Thread uint32 `json:"thread,omitempty"`
	Done   bool   `json:"done,omitempty"`
	// Shares are those of which something is watched.
	Shares []WatchedShare `json:"shares,omitempty"`
	// Since is how long ago the agent looked before, in milliseconds, and Looked when that was
	// by the guest's clock: what is watched now and was not then may be watched since.
	Since  int64     `json:"since,omitempty"`
	Looked time.Time `json:"looked,omitzero"`
}

// WatchBatch is a line from the host on a StreamWatch stream.
type WatchBatch struct {
	Tag    string      `json:"tag"`
	Events []FileEvent `json:"events"`
}
