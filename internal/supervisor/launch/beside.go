package launch

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
)

// Beside starts a process with a hidden verb that outlives this one, for the sandbox in d,
// and returns at once. What the process prints goes to the supervisor's log.
func Beside(d store.Dir, verb string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(d.File(store.SupervisorLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(self, verb, d.Path) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = handoff.Env()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return cmd.Process.Release()
}
