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

// Result is how a start went.
type Result struct {
	Cold  bool     // the machine booted, because there was no template (package templatebuild)
	Notes []string // messages for the user
}

// Progress is called while a start goes on, from another goroutine. Neither function may
// block.
type Progress struct {
	Stage     func(string) // the name of the step that begins
	Reachable func()       // the guest's SSH server answers; commands must wait for the end
}

// Start starts a supervisor for the sandbox in d, in a session of its own, and returns
// when the sandbox is ready, or why it is not. When ctx ends first, the supervisor is told
// to give up, and Start returns when it has ended.
//
// Start owns lock, the sandbox's, and passes it on to the supervisor: from the first
// moment to the last, others see a sandbox that starts, also when this process is killed.
func Start(ctx context.Context, d store.Dir, lock *lockfile.Lock, on Progress) (Result, error) {
	return StartVerb(ctx, handoff.SuperviseVerb, d, lock, on)
}

// giveUpLimit is how long a supervisor may take to give up a start. One that hangs never
// does.
const giveUpLimit = 30 * time.Second

// StartVerb is Start with another hidden verb: the supervisor of a pool member.
func StartVerb(ctx context.Context, verb string, d store.Dir, lock *lockfile.Lock, on Progress) (how Result, err error) {
	defer lock.Close()
	self, err := os.Executable()
	if err != nil {
		return how, err
	}
	if err := d.WriteState(sandbox.State{Phase: sandbox.Starting}); err != nil {
		return how, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return how, err
	}
	defer r.Close()
	out, err := os.OpenFile(d.File(store.SupervisorLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		w.Close()
		return how, err
	}
	defer out.Close()
	cmd := exec.Command(self, verb, d.Path) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = handoff.Env()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{w, lock.File()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return how, fmt.Errorf("start the supervisor: %w", err)
	}
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	lock.Close() // the supervisor has it

	result := make(chan error, 1)
	go func() {
		var err error
		how, err = Follow(r, on)
		result <- err
	}()
	select {
	case err = <-result:
		if err != nil {
			<-exited
		}
		return how, err
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(giveUpLimit):
			_ = cmd.Process.Kill() // an error means that it is gone already
			<-exited
		}
		return Result{}, context.Cause(ctx)
	}
}

// Follow reads a starting supervisor's events until it is ready or has failed.
func Follow(r *os.File, on Progress) (how Result, err error) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		var n handoff.StartEvent
		if err := json.Unmarshal(sc.Bytes(), &n); err != nil {
			return how, fmt.Errorf("supervisor: %w", err)
		}
		switch {
		case n.Error != "" && n.Crashed:
			return how, crashError(n.Error)
		case n.Error != "":
			return how, errors.New(n.Error)
		case n.Note != "":
			how.Notes = append(how.Notes, n.Note)
			continue
		case n.Ready:
			how.Cold = n.Cold
			return how, nil
		}
		if n.Reachable {
			on.Reachable()
			continue
		}
		on.Stage(n.Stage)
	}
	return how, ErrNoReason
}

// ErrNoReason means that a supervisor ended during a start and did not report why. Its log
// may say more.
var ErrNoReason = errors.New("the supervisor ended without giving a reason")

// crashError is why a start failed in which the guest's kernel or QEMU crashed.
type crashError string

func (e crashError) Error() string { return string(e) }

// Crashed says whether a start failed because the guest's kernel panicked or QEMU
// crashed (qemu.ErrCrashed): under software emulation both were seen, once in some
// hundred boots, and the next went well.
func Crashed(err error) bool {
	var p crashError
	return errors.As(err, &p)
}
