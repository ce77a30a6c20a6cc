package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
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

// Kill ends the sandbox's supervisor, and with it the machine, by SIGKILL, and returns when
// it is gone. It does nothing where there is none.
func Kill(ctx context.Context, d store.Dir) error {
	st, err := d.State()
	for err == nil && st.PID == 0 && st.Phase == sandbox.Starting { // it has not written its state yet
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(statePoll):
		}
		st, err = d.State()
	}
	if err != nil || st.PID == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(st.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("supervisor %d: %w", st.PID, err)
	}
	defer unix.Close(fd)
	if !supervises(st.PID, d) { // the PID belongs to another process by now
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill supervisor %d: %w", st.PID, err)
	}
	return AwaitExit(ctx, d)
}

// supervises reports whether a process holds the sandbox's lock. Its command line does
// not tell: a pool member names another folder there.
func supervises(pid int, d store.Dir) bool {
	lock, err := os.Stat(d.LockPath())
	if err != nil {
		return false
	}
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	fds, err := os.ReadDir(folder)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if fi, err := os.Stat(filepath.Join(folder, fd.Name())); err == nil && os.SameFile(fi, lock) {
			return true
		}
	}
	return false
}
