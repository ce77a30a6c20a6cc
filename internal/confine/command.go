package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Verb is the hidden command of the program whose body is Main.
const Verb = "__confine"

// order is passed from Command to Main, as one JSON argument.
type order struct {
	Profile Profile `json:"profile"`
	// Keep is the number of descriptors after standard error that the program
	// gets; all later ones are closed.
	Keep int `json:"keep"`
	// Parent is the process to die with.
	Parent int `json:"parent"`
}

// Command builds the command that runs argv under a Profile. self is the path
// of this program (os.Executable); argv[0] must be an absolute path that the
// profile lets execute. files become descriptors 3, 4, ... of the program. The
// environment has PATH and LANG only, and the working directory is the root, so that
// nothing of the caller's is passed on.
//
// The caller may set Stdin, Stdout and Stderr, and starts it with proc.Spawner.
func Command(self string, p Profile, argv []string, files ...*os.File) (*exec.Cmd, error) {
	if len(argv) == 0 {
		return nil, errors.New("confine: no program to run")
	}
	text, err := json.Marshal(order{Profile: p, Keep: len(files), Parent: os.Getpid()})
	if err != nil {
		return nil, fmt.Errorf("confine: write the profile: %w", err)
	}
	cmd := exec.Command(self, append([]string{Verb, string(text), "--"}, argv...)...) //nolint:noctx // the caller decides how long it lives
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = "/"
	cmd.ExtraFiles = files
	return cmd, nil
}

// Main is the body of the hidden verb: args are the profile, "--", and the
// program with its arguments. It does not return unless it failed.
func Main(args []string) error {
	if len(args) < 3 || args[1] != "--" {
		return errors.New("confine: expected PROFILE -- PROGRAM [ARGUMENT...]")
	}
	var o order
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return fmt.Errorf("confine: read the profile: %w", err)
	}
	if o.Keep < 0 {
		return errors.New("confine: negative number of descriptors")
	}
	argv := args[2:]
	runtime.LockOSThread() // never unlocked: exec follows, with the rights of this thread
	if err := keepCapabilities(0, thisThread); err != nil {
		return err
	}
	if _, err := Apply(o.Profile); err != nil {
		return err
	}
	if err := closeFrom(3 + o.Keep); err != nil {
		return err
	}
	if err := dieWith(o.Parent); err != nil {
		return err
	}
	if err := syscall.Exec(argv[0], argv, os.Environ()); err != nil {
		return fmt.Errorf("start %s confined: %w", argv[0], err)
	}
	return nil
}

// dieWith asks for SIGKILL at the parent's death once more. The kernel keeps
// that setting for each thread (prctl(2), PR_SET_PDEATHSIG), and exec keeps that of the
// calling thread, which need not be the one for which proc.Spawner set it. The caller has
// locked its thread.
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("die with the parent: %w", err)
	}
	if os.Getppid() != parent {
		return errors.New("the parent process has ended")
	}
	return nil
}

// closeFrom lets exec close every descriptor from first on, also those that the caller
// inherited without O_CLOEXEC.
func closeFrom(first int) error {
	err := unix.CloseRange(uint(first), ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Before Linux 5.11. Landlock (5.13) is then missing too, so /proc opens.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscanf(e.Name(), "%d", &fd); err == nil && fd >= first {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
