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

// How long processes may take to end. Docker gives its containers ten seconds.
const (
	endGrace    = 5 * time.Second
	dockerGrace = 15 * time.Second
	killGrace   = 5 * time.Second
	offLimit    = 30 * time.Second // more than all of these together
	endPoll     = 20 * time.Millisecond
)

// shutdown answers at once; powering off continues in the background.
func (a *agent) shutdown(struct{}) (any, error) {
	go a.powerOff()
	return nil, nil
}

// powerOff ends all processes, writes the disk out and powers the machine off. It does not
// return; a second call waits for ever.
func (a *agent) powerOff() {
	a.off.Lock()
	a.ssh.Retire()
	a.docker.Stop(dockerGrace)
	_ = syscall.Kill(-1, syscall.SIGTERM) // all but process 1; ESRCH means that there are none
	_ = syscall.Kill(-1, syscall.SIGCONT)
	_ = syscall.Kill(-1, syscall.SIGHUP) // interactive shells ignore SIGTERM
	if !a.alone(endGrace) {
		_ = syscall.Kill(-1, syscall.SIGKILL)
		a.alone(killGrace)
	}
	unix.Sync()
	a.freezeDisk()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		log.Fatalf("power off: %v", err)
	}
}

// linkEndCommands makes the commands poweroff, halt, reboot and shutdown in dir: links to
// this program, which runs endMachine by these names. Files of these names stay as they
// are. A failure is ignored, since nothing else needs them.
func linkEndCommands(dir string) {
	_ = os.MkdirAll(dir, 0o755)
	for _, name := range []string{modePowerOff, modeHalt, modeReboot, modeShutdown} {
		_ = os.Symlink(self, filepath.Join(dir, name))
	}
}

// endMachine is one of the commands poweroff, halt, reboot and shutdown. All of them power
// the machine off; only the host can start it again. It waits to be killed with all other processes,
// so that the host's next command comes after the machine has begun to power off. It returns an
// exit status if it cannot ask for that, or is not killed within offLimit.
func endMachine(name string, args []string) (status int) {
	if name == modeShutdown && !slices.Contains(args, "now") && !slices.Contains(args, "+0") {
		fmt.Fprintln(os.Stderr, "a delayed shutdown is not supported: use shutdown -h now")
		return 1
	}
	if name == modeReboot || slices.Contains(args, "-r") {
		fmt.Fprintf(os.Stderr, "%s: powering off; bawn run on the host starts the sandbox again\n", name)
	}
	if err := syscall.Kill(1, syscall.SIGUSR2); err != nil { // see offSignals
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	time.Sleep(offLimit)
	return 0
}

// alone waits until process 1 has no children left, up to the limit, and reports whether
// that is so.
func (a *agent) alone(limit time.Duration) bool {
	for end := time.Now().Add(limit); ; time.Sleep(endPoll) {
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

// freezeDisk writes everything to the sandbox's disk and blocks further changes. It does
// what unmounting would do, which fails while files are open.
func (a *agent) freezeDisk() {
	if a.disk == nil {
		return
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, a.disk.Fd(), fiFreeze, 0); errno != 0 {
		log.Printf("freeze the disk: %v", os.NewSyscallError("ioctl", errno))
	}
}
