package guest

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long processes may take to end when asked to; Docker gives its
// containers ten seconds.
const (
	endGrace    = 5 * time.Second
	dockerGrace = 15 * time.Second
	killGrace   = 5 * time.Second
	endLook     = 20 * time.Millisecond
)

// shutdown answers at once and powers off soon.
func (a *agent) shutdown(struct{}) (any, error) {
	go a.powerOff()
	return nil, nil
}

// powerOff ends the machine. Whoever comes second waits for the first.
func (a *agent) powerOff() {
	a.off.Lock()
	a.docker.Stop(dockerGrace)
	_ = syscall.Kill(-1, syscall.SIGTERM) // everyone but process 1; ESRCH means nobody
	_ = syscall.Kill(-1, syscall.SIGCONT)
	_ = syscall.Kill(-1, syscall.SIGHUP) // shells heed it where they do not heed SIGTERM
	if !a.alone(endGrace) {
		_ = syscall.Kill(-1, syscall.SIGKILL)
		a.alone(killGrace)
	}
	unix.Sync()
	a.freeze()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		log.Fatalf("power off: %v", err)
	}
}

// endCommands puts the commands that end the machine where root finds them: this
// program, by other names. What the image or the person has there stays. They are a
// convenience; without them, life goes on.
func endCommands(dir string) {
	_ = os.MkdirAll(dir, 0o755)
	for _, name := range []string{modePowerOff, modeHalt, modeReboot, modeShutdown} {
		_ = os.Symlink("/proc/1/exe", filepath.Join(dir, name))
	}
}

// endMachine is such a command. All of them power the machine off: it is the host's to
// start it again.
func endMachine(name string, args []string) (status int) {
	if name == modeShutdown && !slices.Contains(args, "now") && !slices.Contains(args, "+0") {
		fmt.Fprintln(os.Stderr, "shutdown: only at once: shutdown -h now")
		return 1
	}
	if name == modeReboot || slices.Contains(args, "-r") {
		fmt.Fprintf(os.Stderr, "%s: powering off; the next bawn run starts the machine again\n", name)
	}
	if err := syscall.Kill(1, syscall.SIGUSR2); err != nil { // see offSignals
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// alone waits until process 1 has no children left.
func (a *agent) alone(limit time.Duration) bool {
	for end := time.Now().Add(limit); ; time.Sleep(endLook) {
		if !a.processes.Reap() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// fiFreeze is FIFREEZE (ioctl_fifreeze(2)).
const fiFreeze = 0xc0045877

// freeze writes everything to the sandbox's disk and lets nothing more change
// it: as good as unmounting, which what is still open would refuse.
func (a *agent) freeze() {
	if a.disk == nil {
		return
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, a.disk.Fd(), fiFreeze, 0); errno != 0 {
		log.Printf("freeze the disk: %v", os.NewSyscallError("ioctl", errno))
	}
}
