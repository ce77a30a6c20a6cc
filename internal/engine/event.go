package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// Event is something that happens while a method of an Engine runs: one of TaskStarted,
// TaskAdvanced, TaskEnded and Notice.
type Event interface{ event() }

// TaskID identifies a task of an Engine.
type TaskID int64

// TaskStarted reports that a piece of work began. A front end shows it if it takes long.
type TaskStarted struct {
	Task  TaskID
	Label string        // in the present participle: "Building the default image"
	Total int64         // how much there is to do, in Unit; 0 if it is not known
	Unit  progress.Unit // of Total and of TaskAdvanced.Done
	At    time.Time
}

// TaskAdvanced reports how far a task is.
type TaskAdvanced struct {
	Task   TaskID
	Done   int64  // so far
	Detail string // what it is at, such as the package being unpacked; may be empty
}

// TaskEnded reports that a task is over. A nil Err is success.
type TaskEnded struct {
	Task TaskID
	Err  error
}

// Notice is information for the user that is not an error.
type Notice struct {
	Reason  Reason
	Sandbox string   // name; empty if the notice is not about one sandbox
	Path    string   // on the host; may be empty
	Fields  []string // names of fields of a spec; may be empty
	Text    string   // in plain words, without the next step
	Remedy  string   // what to do about it on the host, outside bawn; may be empty
	Detail  string   // the cause, as another program printed it; may be empty
	Err     error    // the cause, if there is one
}

// The reasons of notices. Those of errors (error.go) are reasons of notices too.
const (
	// SoftwareEmulation: guests run without KVM (Remedy, Detail).
	SoftwareEmulation Reason = "software-emulation"
	// KVMUnsettled: as SoftwareEmulation, for starts of the next minutes only, since KVM's
	// test got too little time.
	KVMUnsettled Reason = "kvm-unsettled"
	// PoolMemberFailed: a pool machine could not be used; a new machine is started.
	PoolMemberFailed Reason = "pool-member-failed"
	// StartRepeated: a start crashed, and is tried once more.
	StartRepeated Reason = "start-repeated"
	// StartNote: something that a supervisor reported while it started.
	StartNote Reason = "start-note"
	// StopSlow: a guest takes long to shut down.
	StopSlow Reason = "stop-slow"
	// RuleOverruled: a rule was added and has no effect, since deny wins.
	RuleOverruled Reason = "rule-overruled"
	// RuleWidened: a rule about requests was added, and another one allows every request to its host.
	RuleWidened Reason = "rule-widened"
	// RepositoryOutside: git will not work in a new sandbox, whose project's repository is in a
	// directory that is not shared (Path).
	RepositoryOutside Reason = "repository-outside"
	// GitDirOutside: git will not work in a new sandbox, whose project is a linked worktree or a
	// submodule with a git directory elsewhere (Path) that can be shared.
	GitDirOutside Reason = "git-dir-outside"
	// ObjectsOutside: git will miss objects in a new sandbox, whose project's repository borrows them
	// from one that is not shared (Path).
	ObjectsOutside Reason = "objects-outside"
	// PathsHidden: the guest does not see some files of the project (Path).
	PathsHidden Reason = "paths-hidden"
	// SecretMissing: bawn.yaml names a secret (Fields) that the person has not set.
	SecretMissing Reason = "secret-missing"
	// HostDiskFull: the sandbox is paused until the host's disk has free space (Path of
	// its folder).
	HostDiskFull Reason = "host-disk-full"
	// HostDiskFreed: the host's disk has free space again, and the sandbox continues.
	HostDiskFreed Reason = "host-disk-freed"
)

func (TaskStarted) event()  {}
func (TaskAdvanced) event() {}
func (TaskEnded) event()    {}
func (Notice) event()       {}

// serialize calls f for one event at a time; nil becomes a function that does nothing.
func serialize(f func(Event)) func(Event) {
	if f == nil {
		return func(Event) {}
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		f(e)
	}
}

// reporter is the Engine's events as a progress.Reporter, for the packages that do slow
// work.
type reporter struct{ emit func(Event) }

var lastTask atomic.Int64

// Start implements progress.Reporter.
func (r reporter) Start(label string, total int64, unit progress.Unit) progress.Task {
	t := &task{emit: r.emit, id: TaskID(lastTask.Add(1))}
	r.emit(TaskStarted{Task: t.id, Label: label, Total: total, Unit: unit, At: time.Now()})
	return t
}

// task is one task under way. Its methods may be called by several goroutines at once.
type task struct {
	emit func(Event)
	id   TaskID

	mu     sync.Mutex
	done   int64
	detail string
}

// Add implements progress.Task.
func (t *task) Add(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
	t.emit(TaskAdvanced{t.id, t.done, t.detail})
}

// Note implements progress.Task.
func (t *task) Note(detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.detail = detail
	t.emit(TaskAdvanced{t.id, t.done, t.detail})
}

// Done implements progress.Task.
func (t *task) Done(err error) { t.emit(TaskEnded{t.id, err}) }

// progress reports slow work as events.
func (e *Engine) progress() progress.Reporter { return reporter{e.events} }

// notify sends a notice to the user.
func (e *Engine) notify(n Notice) { e.events(n) }

// during reports f as a task with the label.
func (e *Engine) during(label string, f func() error) error {
	t := e.progress().Start(label, 0, progress.Steps)
	err := f()
	t.Done(err)
	return err
}
