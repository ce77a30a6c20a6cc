// Package process starts, reaps and signals the children of process 1, and lists the
// processes of a session.
package process

import (
	"errors"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Table starts and reaps children.
//
// Theory of operation. Process 1 inherits every orphan and must reap it, which
// only wait4(-1) can do for children that it does not know; and wait4(-1) takes
// the statuses of its own children as well. So there is exactly one place that
// waits, reap, and os/exec and os.Process.Wait are not used in this package.
// reap hands the status to who started the child, or drops it.
//
// A child may be gone before start has noted its number. While any start is
// under way, reap keeps the statuses of the unknown, and start looks there. The
// lock is not held over the fork: executing a file on a slow share takes long,
// and reaping and killing go on meanwhile.
//
// A number is killed only under the lock and before it was reaped, so it cannot
// have become another process's.
type Table struct {
	mu       sync.Mutex
	running  map[int]*Process
	starting int
	early    map[int]syscall.WaitStatus // reaped while starting > 0
	group    *os.File                   // control group of all children; nil in tests
	// each, when set, waits for each child by its number: for tests, whose
	// process has other children that are not ours.
	OwnOnly bool
}

// Self is this program, to be executed anew. It stays valid after the root
// was changed.
const Self = "/proc/self/exe"

// Process is one child.
type Process struct {
	PID    int
	Done   chan struct{} // closed when it was reaped
	Status syscall.WaitStatus
}

// NewTable returns an empty table whose children start in the control group, an
// open directory; nil leaves them in the caller's group.
func NewTable(group *os.File) *Table {
	return &Table{group: group, running: map[int]*Process{}, early: map[int]syscall.WaitStatus{}}
}

// Start executes path. Errors are plain errnos of the failed step.
func (ps *Table) Start(path string, argv []string, attr *syscall.ProcAttr) (*Process, error) {
	ps.mu.Lock()
	ps.starting++
	ps.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, ps.inGroup(attr))
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.starting--
	defer func() {
		if ps.starting == 0 {
			clear(ps.early)
		}
	}()
	if err != nil {
		return nil, err
	}
	p := &Process{PID: pid, Done: make(chan struct{})}
	if st, ok := ps.early[pid]; ok {
		delete(ps.early, pid)
		p.Status = st
		close(p.Done)
		return p, nil
	}
	ps.running[pid] = p
	if ps.OwnOnly {
		go ps.waitOne(p)
	}
	return p, nil
}

// inGroup has a child begin in the group, so that nothing of it is ever outside.
func (ps *Table) inGroup(attr *syscall.ProcAttr) *syscall.ProcAttr {
	if ps.group == nil {
		return attr
	}
	inside, sys := *attr, syscall.SysProcAttr{}
	if attr.Sys != nil {
		sys = *attr.Sys
	}
	sys.UseCgroupFD, sys.CgroupFD = true, int(ps.group.Fd())
	inside.Sys = &sys
	return &inside
}

// Reap collects all children that have ended; it reports whether any child is
// left.
func (ps *Table) Reap() (left bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return false // ECHILD
		case pid == 0:
			return true
		}
		ps.ended(pid, st)
	}
}

func (ps *Table) ended(pid int, st syscall.WaitStatus) {
	if p, ok := ps.running[pid]; ok {
		delete(ps.running, pid)
		p.Status = st
		close(p.Done)
		return
	}
	if ps.starting > 0 {
		ps.early[pid] = st
	}
}

func (ps *Table) waitOne(p *Process) {
	var info unix.Siginfo
	for errors.Is(unix.Waitid(unix.P_PID, p.PID, &info, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var st syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(p.PID, &st, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	ps.ended(p.PID, st)
}

// SignalGroup sends sig to the process group that p leads, if p still runs.
func (ps *Table) SignalGroup(p *Process, sig syscall.Signal) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.running[p.PID] == p {
		_ = syscall.Kill(-p.PID, sig) // the group may be gone this moment
	}
}
