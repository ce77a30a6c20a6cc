package confine

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Spawner starts processes that the kernel kills when this process dies, even
// by SIGKILL.
//
// The kernel's parent-death signal is sent when the *thread* that forked ends
// (prctl(2), PR_SET_PDEATHSIG), and the Go runtime ends threads as it likes. So
// a Spawner keeps one thread for itself, for good, and forks from it.
type Spawner struct {
	work chan func()
}

// NewSpawner takes a thread. It is never given back: make one per process.
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

// Start starts cmd as the leader of a session and process group of its own, so
// that no terminal signal reaches it, and with SIGKILL at the death of this
// process. It may be called from any goroutine. Wait and Process.Kill are used
// as usual.
//
// Not safe: the signal does not reach grandchildren, and a child that gains
// privileges by exec would lose it. Programs under a Profile cannot gain any.
func (s *Spawner) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	done := make(chan error, 1)
	s.work <- func() { done <- cmd.Start() }
	return <-done
}
