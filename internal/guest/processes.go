package guest

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// processes starts and reaps children.
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
type processes struct {
	mu       sync.Mutex
	running  map[int]*process
	starting int
	early    map[int]syscall.WaitStatus // reaped while starting > 0
	group    *os.File                   // control group of all children; nil in tests
	// each, when set, waits for each child by its number: for tests, whose
	// process has other children that are not ours.
	each bool
}

// process is one child.
type process struct {
	pid    int
	done   chan struct{} // closed when it was reaped
	status syscall.WaitStatus
}

func newProcesses() *processes {
	return &processes{running: map[int]*process{}, early: map[int]syscall.WaitStatus{}}
}

// start executes path. Errors are plain errnos of the failed step.
func (ps *processes) start(path string, argv []string, attr *syscall.ProcAttr) (*process, error) {
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
	p := &process{pid: pid, done: make(chan struct{})}
	if st, ok := ps.early[pid]; ok {
		delete(ps.early, pid)
		p.status = st
		close(p.done)
		return p, nil
	}
	ps.running[pid] = p
	if ps.each {
		go ps.waitOne(p)
	}
	return p, nil
}

// inGroup has a child begin in the group, so that nothing of it is ever outside.
func (ps *processes) inGroup(attr *syscall.ProcAttr) *syscall.ProcAttr {
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

// reap collects all children that have ended; it reports whether any child is
// left.
func (ps *processes) reap() (left bool) {
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

func (ps *processes) ended(pid int, st syscall.WaitStatus) {
	if p, ok := ps.running[pid]; ok {
		delete(ps.running, pid)
		p.status = st
		close(p.done)
		return
	}
	if ps.starting > 0 {
		ps.early[pid] = st
	}
}

func (ps *processes) waitOne(p *process) {
	var info unix.Siginfo
	for errors.Is(unix.Waitid(unix.P_PID, p.pid, &info, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var st syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(p.pid, &st, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	ps.ended(p.pid, st)
}

// signalGroup sends sig to the process group that p leads, if p still runs.
func (ps *processes) signalGroup(p *process, sig syscall.Signal) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.running[p.pid] == p {
		_ = syscall.Kill(-p.pid, sig) // the group may be gone this moment
	}
}

// member is a process found by its session.
type member struct {
	pid     int
	ignores uint64 // signals, bit n-1 for signal n
}

// ignoresHangup reports whether it was told to outlive its terminal (nohup).
func (m member) ignoresHangup() bool { return m.ignores&(1<<(uint(syscall.SIGHUP)-1)) != 0 }

// session lists the living processes of a session, by walking /proc. A session
// number stays taken while one process is in it.
func session(sid int) []member {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what was read counts
	var list []member
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		if s, state := statSession(string(b)); s != sid || state == "Z" || state == "X" {
			continue
		}
		status, _ := os.ReadFile("/proc/" + n + "/status") // without it, it ignores nothing
		list = append(list, member{pid, ignored(string(status))})
	}
	return list
}

// statSession takes session and state from /proc/PID/stat (proc_pid_stat(5)):
// after the name in parentheses come state, parent, group, session.
func statSession(stat string) (sid int, state string) {
	i := strings.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, ""
	}
	f := strings.Fields(stat[i+1:])
	if len(f) < 4 {
		return 0, ""
	}
	sid, err := strconv.Atoi(f[3])
	if err != nil {
		return 0, ""
	}
	return sid, f[0]
}

func ignored(status string) uint64 {
	_, rest, ok := strings.Cut(status, "\nSigIgn:")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return 0
	}
	return n
}
