// Package launch starts, finds, waits for and kills the supervisors of sandboxes. It is
// for the processes that use sandboxes; a supervisor itself does not import it.
package launch

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// Result describes a start that succeeded.
type Result struct {
	Cold  bool     // the machine booted, because there was no template (package templatebuild)
	Notes []string // messages for the user
}

// Progress has functions that are called during a start. Neither may block.
type Progress struct {
	Stage     func(string) // the name of the step that begins
	Reachable func()       // the guest's SSH server answers; commands must wait for the end
}

// Start starts a supervisor for the sandbox in d, in a session of its own, and returns
// when the sandbox is ready, or why it is not. When ctx ends first, Start tells the
// supervisor to give up, and returns when it has ended.
//
// Start owns lock, the sandbox's, and passes it on to the supervisor: others see
// a sandbox that starts from the first moment to the last, also when this process is killed.
func Start(ctx context.Context, d store.Dir, lock *lockfile.Lock, on Progress) (Result, error) {
	return StartVerb(ctx, handoff.SuperviseVerb, d, lock, on)
}

// giveUpLimit is how long a supervisor may take to give up a start. One that hangs never
// does.
const giveUpLimit = 30 * time.Second

// StartVerb is Start with another hidden verb: the supervisor of a pool member.
func StartVerb(ctx context.Context, verb string, d store.Dir, lock *lockfile.Lock, on Progress) (how Result, err error) {
	defer lock.Close()
	if err := d.WriteState(sandbox.State{Phase: sandbox.Starting}); err != nil {
		return how, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return how, err
	}
	defer r.Close()
	cmd, err := startProcess(verb, d, w, lock.File()) // as package handoff numbers them
	w.Close()
	if err != nil {
		return how, err
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	lock.Close() // the supervisor has it

	how, err = Follow(ctx, r, on)
	switch {
	case err == nil:
		return how, nil
	case ctx.Err() == nil:
		<-exited
		return how, err
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(giveUpLimit):
		_ = cmd.Process.Kill() // an error means that it is gone already
		<-exited
	}
	return Result{}, context.Cause(ctx)
}

// startProcess starts a process of this program with a hidden verb, for the sandbox in d,
// in a session of its own. It outlives this process, and gets files as descriptors from 3
// on. What it prints goes to the supervisor's log.
func startProcess(verb string, d store.Dir, files ...*os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(d.File(store.SupervisorLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(self, verb, d.Path) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = handoff.Env()
	if verb == handoff.CachesVerb {
		cmd.Env = append(cmd.Env, handoff.RegistryEnv()...)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", verb, err)
	}
	return cmd, nil
}

// Beside starts a process with a hidden verb that outlives this one, for the sandbox in d,
// and returns at once.
func Beside(d store.Dir, verb string) error {
	cmd, err := startProcess(verb, d)
	if err != nil {
		return err
	}
	return cmd.Process.Release()
}

// UpdateAgents starts a background process that installs newer versions of the agents of the
// sandbox in d, and returns at once.
func UpdateAgents(d store.Dir) error { return Beside(d, handoff.AgentsVerb) }

// FillCaches starts a background process that fetches the packages that the caches of the sandbox
// in d lack, and returns at once.
func FillCaches(d store.Dir) error { return Beside(d, handoff.CachesVerb) }

// Follow reads a starting supervisor's events from r until it is ready or has failed, or
// ctx ends; then it returns the cause. It calls on from the caller's goroutine.
func Follow(ctx context.Context, r *os.File, on Progress) (how Result, err error) {
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var e handoff.StartEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return how, fmt.Errorf("supervisor: %w", err)
		}
		switch {
		case e.Error != "" && e.Crashed:
			return how, crashError(e.Error)
		case e.Error != "":
			return how, errors.New(e.Error)
		case e.Ready:
			how.Cold = e.Cold
			return how, nil
		case e.Note != "":
			how.Notes = append(how.Notes, e.Note)
		case e.Reachable:
			on.Reachable()
		default:
			on.Stage(e.Stage)
		}
	}
	if ctx.Err() != nil {
		return how, context.Cause(ctx)
	}
	return how, ErrNoReason
}

// ErrNoReason means that a supervisor ended during a start and did not report why. Its log
// may say more.
var ErrNoReason = errors.New("the supervisor ended without giving a reason")

// crashError is the error of a start in which the guest's kernel or QEMU crashed.
type crashError string

func (e crashError) Error() string { return string(e) }

// Crashed reports whether a start failed because the guest's kernel panicked or QEMU
// crashed (qemu.ErrCrashed): under software emulation both were seen, once in some
// hundred boots, and the next went well.
func Crashed(err error) bool {
	var p crashError
	return errors.As(err, &p)
}
