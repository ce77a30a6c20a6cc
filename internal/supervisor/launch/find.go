package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
)

// statePoll is how often the state file of a sandbox that starts is read.
const statePoll = 10 * time.Millisecond

// AwaitStart returns when a sandbox that another process starts has started or failed.
func AwaitStart(ctx context.Context, d store.Dir) error {
	for {
		st, err := d.State()
		if err != nil || st.Phase != sandbox.Starting {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(statePoll):
		}
	}
}

// AwaitExit returns when no supervisor holds the sandbox's lock any more.
func AwaitExit(ctx context.Context, d store.Dir) error {
	return d.AwaitUnlock(ctx)
}

// stateLimit is how long a supervisor may take to write its first state. After that, Kill looks for
// it among the processes: it may have been stopped (SIGSTOP) before it wrote one. It is a variable
// for tests.
var stateLimit = 5 * time.Second

// killedLimit is how long a killed supervisor may take to end. One that waits for a file system
// that does not answer cannot end.
const killedLimit = 30 * time.Second

// Kill ends the sandbox's supervisor, and with it the machine, by SIGKILL, and returns when
// it is gone. It does nothing where there is none.
func Kill(ctx context.Context, d store.Dir) error {
	pid, err := awaitPID(ctx, d)
	if err != nil || pid == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("supervisor %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !supervises(pid, d) { // the PID belongs to another process by now
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill supervisor %d: %w", pid, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, killedLimit, fmt.Errorf("supervisor %d was killed, and has not ended %v later", pid, killedLimit))
	defer cancel()
	return AwaitExit(ctx, d)
}

// awaitPID returns the process of the sandbox's supervisor; 0 if there is none. It waits up to
// stateLimit for one that has not written its state yet.
func awaitPID(ctx context.Context, d store.Dir) (int, error) {
	for began := time.Now(); ; {
		st, err := d.State()
		if err != nil || st.PID != 0 || st.Phase != sandbox.Starting {
			return st.PID, err
		}
		if time.Since(began) > stateLimit {
			return findSupervisor(d), nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(statePoll):
		}
	}
}

// findSupervisor returns the process that holds the sandbox's lock and was started as a
// supervisor; 0 if there is none.
func findSupervisor(d store.Dir) int {
	for _, pid := range withOpen(d.LockPath()) {
		args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		words := strings.Split(string(args), "\x00")
		if err == nil && len(words) > 1 && (words[1] == handoff.SuperviseVerb || words[1] == handoff.PoolMemberVerb) {
			return pid
		}
	}
	return 0
}

// StartLockHolders returns the other processes of the user that start, change or remove the
// sandbox, or wait for the right to.
func StartLockHolders(d store.Dir) []int { return withOpen(d.StartLockPath()) }

// withOpen returns the other processes of the user that have a file open.
func withOpen(path string) (pids []int) {
	file, err := os.Stat(path)
	if err != nil {
		return nil
	}
	name := filepath.Base(path)
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, p := range procs {
		if pid, err := strconv.Atoi(p.Name()); err == nil && pid != os.Getpid() && hasOpen(pid, name, file) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// supervises reports whether a process holds the sandbox's lock. Its command line does
// not tell: a pool member names another folder there.
func supervises(pid int, d store.Dir) bool {
	lock, err := os.Stat(d.LockPath())
	if err != nil {
		return false
	}
	return hasOpen(pid, filepath.Base(d.LockPath()), lock)
}

// hasOpen reports whether a process has a file of that name open. It looks at no other file, which
// could lie where nothing answers.
func hasOpen(pid int, name string, file os.FileInfo) bool {
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		at := filepath.Join(folder, fd.Name())
		if to, err := os.Readlink(at); err != nil || filepath.Base(to) != name {
			continue
		}
		if fi, err := os.Stat(at); err == nil && os.SameFile(fi, file) {
			return true
		}
	}
	return false
}
