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

// Table starts and reaps children. Its methods may be called concurrently.
//
// Theory of operation. Process 1 inherits every orphan and must reap it. It does not know
// their numbers, so it must use wait4(-1), which also returns the statuses of the children
// that it started itself. So there is exactly one place that waits, Reap, and the agent
// uses neither os/exec nor os.Process.Wait. Reap gives the status to the Process of that
// number, or drops it.
//
// A child may end before Start has noted its number. While a Start is under way, Reap keeps
// the statuses of unknown numbers, and Start looks for its child's there. The lock is not
// held over the fork: executing a file on a slow share takes long, and reaping and
// signalling continue meanwhile.
//
// A process is signalled only under the lock and before it was reaped, so its number cannot
// have become another process's.
type Table struct {
	mu       sync.Mutex
	running  map[int]*Process
	starting int
	early    map[int]syscall.WaitStatus // reaped while starting > 0
	group    *os.File                   // control group of all children; nil in tests
	// OwnOnly, when set, waits for each child by its number instead of by Reap: for
	// a process with other children, such as that of a test. Set it before Start.
	OwnOnly bool
}

// Self is the path of this program, for executing it again. It is valid also after the
// root was changed.
const Self = "/proc/self/exe"

// Process is a child.
type Process struct {
	PID    int
	Done   chan struct{} // closed when it was reaped
	Status syscall.WaitStatus
	// Stopped gives the signal each time that one has stopped the process. A stop is
	// dropped while the one before it was not received.
	Stopped chan syscall.Signal
}

// NewTable returns an empty table whose children start in the control group, an
// open directory; nil leaves them in the caller's group.
func NewTable(group *os.File) *Table {
	return &Table{group: group, running: map[int]*Process{}, early: map[int]syscall.WaitStatus{}}
}

// Start executes path in a new process. Its errors are the plain errnos of fork(2),
// execve(2) and what attr asks for.
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
	p := &Process{PID: pid, Done: make(chan struct{}), Stopped: make(chan syscall.Signal, 1)}
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

// inGroup returns attr with the control group: the child is born in it, so that freezing
// the group cannot miss it.
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

// Reap collects the statuses of all children that have ended or stopped, and reports
// whether any child is left.
func (ps *Table) Reap() (left bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for {
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &st, syscall.WNOHANG|syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return false // ECHILD
		case pid == 0:
			return true
		}
		ps.changed(pid, st)
	}
}

// changed notes the status of a child that has ended or stopped; ps.mu is held.
func (ps *Table) changed(pid int, st syscall.WaitStatus) {
	if !st.Stopped() {
		ps.ended(pid, st)
		return
	}
	if p, ok := ps.running[pid]; ok {
		select {
		case p.Stopped <- st.StopSignal():
		default:
		}
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
	for ended := false; !ended; {
		var info unix.Siginfo
		for errors.Is(unix.Waitid(unix.P_PID, p.PID, &info, unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT, nil), unix.EINTR) {
		}
		ps.mu.Lock()
		var st syscall.WaitStatus
		pid, err := syscall.Wait4(p.PID, &st, syscall.WNOHANG|syscall.WUNTRACED, nil)
		for errors.Is(err, syscall.EINTR) {
			pid, err = syscall.Wait4(p.PID, &st, syscall.WNOHANG|syscall.WUNTRACED, nil)
		}
		if pid == p.PID || err != nil {
			ps.changed(p.PID, st)
			ended = !st.Stopped()
		}
		ps.mu.Unlock()
	}
}

// SignalGroup sends sig to the process group that p leads, if p has not ended.
func (ps *Table) SignalGroup(p *Process, sig syscall.Signal) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.running[p.PID] == p {
		_ = syscall.Kill(-p.PID, sig) // the group may have ended
	}
}
