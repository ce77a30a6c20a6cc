// Package proc finds the programs of the host that may be trusted (find.go, trust.go), and
// runs child processes that do not outlive this one.
//
// The kernel sends a child its parent-death signal when the *thread* that forked it
// ends (prctl(2), PR_SET_PDEATHSIG), and the Go runtime ends threads as it likes. So
// Run keeps its thread until the child ends, and a Spawner keeps one for good. The
// signal does not reach grandchildren, and a child loses it by executing a program
// that is set-user-ID or has file capabilities.
package proc

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Run is cmd.Run, and the kernel kills the command when this process dies, even by
// SIGKILL. The signal is cmd.SysProcAttr.Pdeathsig where that is set, else SIGKILL.
func Run(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	diesWithUs(cmd)
	return cmd.Run()
}

// RunFor is Run of a command that the kernel kills with SIGKILL when it has used so much
// processor time, in whole seconds, rounded up (setrlimit(2), RLIMIT_CPU).
func RunFor(cmd *exec.Cmd, cpu time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	diesWithUs(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	seconds := uint64((cpu + time.Second - 1) / time.Second)
	limit := unix.Rlimit{Cur: seconds, Max: seconds}
	// The process is not waited for yet, so its id is its own. ESRCH: it has ended.
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CPU, &limit, nil); err != nil && !errors.Is(err, unix.ESRCH) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: nothing to learn
		return fmt.Errorf("limit the processor time of %s: %w", cmd.Path, err)
	}
	return cmd.Wait()
}

// InSession makes a command run in a session of its own, without this process's terminal: a program that asks there
// for a passphrase gets an error and does not wait. Its process group is killed when its context ends. A
// process that keeps its output open afterwards is waited for no longer than a second.
func InSession(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
}

// CombinedOutput is cmd.CombinedOutput of a command that dies with this process, as
// under Run.
func CombinedOutput(cmd *exec.Cmd) ([]byte, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	diesWithUs(cmd)
	return cmd.CombinedOutput()
}

func diesWithUs(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
}

// A Spawner starts processes that the kernel kills when this process dies, even by
// SIGKILL. Its methods may be called by several goroutines at once.
type Spawner struct{ work chan func() }

// NewSpawner takes a thread, which is never given back: make one per process.
func NewSpawner() *Spawner {
	s := &Spawner{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked
		for f := range s.work {
			f()
		}
	}()
	return s
}

// Start is cmd.Start for a leader of a session and process group of its own, so that
// no signal of a terminal reaches it. It dies with this process as under Run. Wait and
// Process.Kill are used as usual.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	diesWithUs(cmd)
	cmd.SysProcAttr.Setsid = true
	done := make(chan error, 1)
	s.work <- func() { done <- cmd.Start() }
	return <-done
}
