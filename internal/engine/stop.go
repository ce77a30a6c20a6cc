package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
)

const (
	// forceLimit is how long a supervisor may take to end its machine at once. One that
	// hangs never does.
	forceLimit = 10 * time.Second
	// stopLimit is how long a supervisor may take to stop a sandbox: twice what it
	// gives the guest.
	stopLimit = 2 * time.Minute
	// lockLimit is how long the removal of a sandbox by force waits for another bawn command
	// that starts or changes it. One that was stopped (Ctrl-Z) never ends.
	lockLimit = 10 * time.Second
	// stopPatience is how long a guest may take to shut down before a notice says what
	// the stop waits for.
	stopPatience = 5 * time.Second
)

// Stop stops a sandbox and returns when its supervisor is gone. A suspended one loses
// the memory that it was suspended with. With force its machine is ended at once, as by
// a power failure, and its supervisor too if it does not answer.
func (e *Engine) Stop(ctx context.Context, name string, force bool) error {
	d, err := e.folder(name)
	if err != nil {
		return err
	}
	st, err := d.State()
	if err != nil {
		return err
	}
	switch st.Phase {
	case sandbox.Dead:
		return d.WriteState(sandbox.State{Phase: sandbox.Stopped})
	case sandbox.Stopped:
		return forgetSuspended(d)
	}
	return because(StopFailed, name, e.halt(ctx, d, force))
}

// halt stops a sandbox that runs and returns when its supervisor is gone.
func (e *Engine) halt(ctx context.Context, d store.Dir, force bool) error {
	return e.during("Stopping "+nameOf(d), func() error {
		if force {
			return endAtOnce(ctx, d, forceLimit)
		}
		late := time.AfterFunc(stopPatience, func() {
			e.notify(Notice{Reason: StopSlow, Sandbox: nameOf(d), Text: "waiting up to a minute for the guest to shut down; then it is turned off"})
		})
		defer late.Stop()
		return shutDown(ctx, d, stopLimit)
	})
}

// shutDown lets a sandbox's guest shut down.
func shutDown(ctx context.Context, d store.Dir, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := errors.Join(control.NewClient(d.DialControl).Stop(limited, false), launch.AwaitExit(limited, d))
	if limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("the supervisor of %s does not answer", nameOf(d))
	}
	return err
}

// endAtOnce ends a sandbox at once: through its supervisor or, if that does not do it in
// time, together with it.
func endAtOnce(ctx context.Context, d store.Dir, limit time.Duration) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := control.NewClient(d.DialControl).Stop(limited, true)
	if err == nil {
		err = launch.AwaitExit(limited, d)
	}
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := launch.Kill(ctx, d); err != nil {
		return err
	}
	return d.WriteState(sandbox.State{Phase: sandbox.Stopped})
}

// lockRemoval takes the lock under which a sandbox is removed. If another bawn command holds the lock,
// lockRemoval with force ends the machine first, so that a command that waits for a guest that hangs
// goes on. That command then has up to limit to end.
func (e *Engine) lockRemoval(ctx context.Context, d store.Dir, force bool, limit time.Duration) (*lockfile.Lock, error) {
	if !force || !d.StartLocked() {
		return e.lockStart(ctx, d)
	}
	if st, err := d.State(); err == nil && st.Phase != sandbox.Stopped && st.Phase != sandbox.Dead {
		if err := e.halt(ctx, d, true); err != nil {
			return nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l, err := e.lockStart(limited, d)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, fmt.Errorf("sandbox %s is not removed: another bawn command that starts or changes it does not end%s", nameOf(d), describeHolders(d))
	}
	return l, err
}

// describeHolders names the processes that start or change a sandbox, as far as they are known.
func describeHolders(d store.Dir) string {
	var pids []string
	for _, pid := range launch.StartLockHolders(d) {
		pids = append(pids, strconv.Itoa(pid))
	}
	if len(pids) == 0 {
		return ""
	}
	return " (process " + strings.Join(pids, ", ") + "): it may be stopped, as by Ctrl-Z; continue or kill it"
}

// Remove deletes a sandbox with its disk and snapshots. One that runs is an error, or
// with force is ended first.
func (e *Engine) Remove(ctx context.Context, name string, force bool) error {
	d, err := e.folder(name)
	if err != nil {
		return err
	}
	l, err := e.lockRemoval(ctx, d, force, lockLimit)
	if err != nil {
		return err
	}
	defer l.Close()
	st, err := d.State()
	if err != nil && !force {
		return err
	}
	if st.Phase != sandbox.Stopped && st.Phase != sandbox.Dead {
		if !force {
			return failf(StillRunning, name, "sandbox %s is %s", name, st.Phase)
		}
		if err := e.halt(ctx, d, true); err != nil {
			return err
		}
	}
	return d.Remove()
}
