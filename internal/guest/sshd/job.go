package sshd

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/process"
)

// Theory of operation. A terminal's stop signals (SIGTSTP from Ctrl-Z, SIGTTIN, SIGTTOU)
// have no effect on an orphaned process group, which is one without a member whose parent
// is in the same session and in another group (POSIX XBD 3.264). The leader of a session
// that the agent starts is such a group of its own. So where a command with a terminal is
// to be stopped as in a person's shell, the agent executes itself as the session's leader
// (JobMode). That starts the command in a group of its own in the terminal's foreground, as
// a shell with job control does, and reports on descriptor 3 what becomes of it, one line
// each:
//
//	started PID       once, or else
//	failed ERRNO      from execve(2)
//	stopped SIGNAL
//	ended STATUS      as from wait(2)
//
// It runs with the user's rights. What it reports concerns that user's command only.

// JobMode is the name under which the agent executes itself as a job's session leader. Its
// arguments are the program's path and the program's own arguments, from its name on.
const JobMode = "bawn-job"

// jobReports is the descriptor for reports.
const jobReports = 3

// job is a command below a leader of its session.
type job struct {
	leader  int // the session's
	pid     int // the command's, and its process group's
	reports *os.File
	stopped chan syscall.Signal
	over    chan struct{} // closed after the last report
	status  atomic.Pointer[syscall.WaitStatus]
}

// startJob starts a command as a job. Its errors are those of process.Table.Start.
func (s *session) startJob(path string, argv []string, attr *syscall.ProcAttr) (*process.Process, *job, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	with := *attr
	with.Files = append(append([]uintptr{}, attr.Files...), w.Fd())
	p, err := s.server.processes.Start(process.Self, append([]string{JobMode, path}, argv...), &with)
	w.Close()
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	j := &job{leader: p.PID, reports: r, stopped: make(chan syscall.Signal, 1), over: make(chan struct{})}
	lines := bufio.NewReader(r)
	if err := j.started(lines); err != nil {
		r.Close()
		return nil, nil, err
	}
	go j.follow(lines)
	return p, j, nil
}

// started reads the first report.
func (j *job) started(lines *bufio.Reader) error {
	var what string
	var n int
	if _, err := fmt.Fscanf(lines, "%s %d\n", &what, &n); err != nil {
		return syscall.ECHILD // the leader was killed
	}
	if what != "started" || n <= 1 {
		return syscall.Errno(n)
	}
	j.pid = n
	return nil
}

// follow reads the other reports.
func (j *job) follow(lines *bufio.Reader) {
	defer close(j.over)
	defer j.reports.Close()
	for {
		var what string
		var n int
		if _, err := fmt.Fscanf(lines, "%s %d\n", &what, &n); err != nil {
			return
		}
		switch what {
		case "stopped":
			select {
			case j.stopped <- syscall.Signal(n):
			default:
			}
		case "ended":
			st := syscall.WaitStatus(n)
			j.status.Store(&st)
		}
	}
}

// signal sends a signal to the command's process group, unless the command has ended. The
// number comes from a process with the user's rights, so it must be one of the session's.
func (j *job) signal(sig syscall.Signal) {
	if sid, err := unix.Getsid(j.pid); err == nil && sid == j.leader {
		_ = syscall.Kill(-j.pid, sig) // the group may have ended
	}
}

// ending returns how the command ended, after its leader has. Where the leader was killed
// before it could report that, it is how the leader ended.
func (j *job) ending(leader syscall.WaitStatus) syscall.WaitStatus {
	<-j.over
	if st := j.status.Load(); st != nil {
		return *st
	}
	return leader
}

// LeadJob is the leader of a job's session. It returns when the job has ended.
func LeadJob(args []string) int {
	reports := os.NewFile(jobReports, "reports")
	syscall.CloseOnExec(jobReports)
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, JobMode+": is started by the agent")
		return statusNotExecutable
	}
	// The terminal's signals are for the command. Handlers, unlike ignored signals, do not
	// pass to the command.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM,
		syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGPIPE)
	pid, err := syscall.ForkExec(args[0], args[1:], &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{Foreground: true, Ctty: 0},
	})
	if err != nil {
		var errno syscall.Errno
		errors.As(err, &errno)
		fmt.Fprintf(reports, "failed %d\n", int(errno))
		return statusNotExecutable
	}
	// The command holds them; its background must not keep waiting for ours.
	for fd := range jobReports {
		_ = unix.Close(fd)
	}
	fmt.Fprintf(reports, "started %d\n", pid)
	for {
		var st syscall.WaitStatus
		_, err := syscall.Wait4(pid, &st, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return statusNotExecutable
		case st.Stopped():
			fmt.Fprintf(reports, "stopped %d\n", int(st.StopSignal()))
		default:
			fmt.Fprintf(reports, "ended %d\n", int(st))
			return 0
		}
	}
}
