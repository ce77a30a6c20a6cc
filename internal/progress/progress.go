// Package progress lets slow work report how far it is. The work is given a Reporter; the
// caller decides whether that draws bars, writes a log or does nothing.
package progress

// Unit says what a Task counts.
type Unit int

const (
	// Steps are plain counts.
	Steps Unit = iota
	// Bytes are shown in MB.
	Bytes
)

// Reporter starts a Task. Implementations are safe for concurrent use.
type Reporter interface {
	// Start begins a piece of work with a short label in the present
	// participle ("Building the default image"). A total of 0 means unknown.
	Start(label string, total int64, unit Unit) Task
}

// Task is one piece of work under way.
type Task interface {
	// Add reports that n more units are done.
	Add(n int64)
	// Note replaces the detail shown beside the bar (the package being set up).
	Note(detail string)
	// Done ends the task; a nil error is success.
	Done(err error)
}

// Silent reports nothing.
var Silent Reporter = silent{}

type silent struct{}

func (silent) Start(string, int64, Unit) Task { return silent{} }
func (silent) Add(int64)                      {}
func (silent) Note(string)                    {}
func (silent) Done(error)                     {}
