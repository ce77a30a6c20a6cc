package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/sys/proc"
)

// Modes of mmdebstrap(1).
const (
	modeRoot    = "root"
	modeUnshare = "unshare"
)

// buildMode returns the mode of mmdebstrap that works for this user. The error tells
// the user what to do.
func buildMode() (string, error) {
	for _, n := range Needs() {
		if !n.OK {
			return "", fmt.Errorf("%s: %s: %s", n.What, n.Detail, n.Remedy)
		}
	}
	if os.Geteuid() == 0 && canMount() {
		return modeRoot, nil
	}
	return modeUnshare, nil
}

// Need is one requirement for building the default image.
type Need struct {
	What   string // its name
	OK     bool
	Detail string // what was found, or what is wrong
	Remedy string // what to do when it is not OK
}

// Needs returns the requirements for building the default image on this host as this
// user, and which of them are met. It runs short test programs.
func Needs() []Need {
	list := []Need{
		program("mmdebstrap", "mmdebstrap"),
		{"keyring", exists(debian.Keyring), debian.Keyring, "sudo apt-get install debian-archive-keyring"},
	}
	if !list[1].OK {
		list[1].Detail += " is missing"
	}
	if os.Geteuid() == 0 && canMount() {
		return list
	}
	list = append(list, program("newuidmap", "uidmap"))
	list = append(list, subordinates("/etc/subuid"), subordinates("/etc/subgid"))
	n := Need{What: "user namespaces", OK: true, Detail: "ordinary users may create them"}
	if err := tryUserNamespace(); err != nil {
		n.OK, n.Detail = false, fmt.Sprintf("ordinary users may not create them (%v)", err)
		n.Remedy = userNamespaceRemedy()
	}
	return append(list, n)
}

func program(name, pkg string) Need {
	path, err := proc.Find(name)
	var failed *proc.NotFoundError
	switch {
	case errors.As(err, &failed) && len(failed.Skipped) == 0:
		return Need{name, false, "not on the PATH", "sudo apt-get install " + pkg}
	case err != nil:
		return Need{name, false, err.Error(), "sudo apt-get install " + pkg}
	}
	return Need{What: name, OK: true, Detail: path}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// canMount reports whether root may make mount namespaces here, which is not so in most
// containers.
func canMount() bool {
	cmd := exec.Command("/bin/true") //nolint:noctx // over at once
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	return cmd.Run() == nil
}

// tryUserNamespace makes a user namespace, by mmdebstrap where that is installed:
// AppArmor may allow it to mmdebstrap and not to bawn (Ubuntu 24.04 and later).
func tryUserNamespace() error {
	helper := proc.Command(context.Background(), "mmdebstrap", "--unshare-helper", "/bin/true")
	if err := helper.Run(); !errors.Is(err, exec.ErrNotFound) {
		return err
	}
	cmd := exec.Command("/bin/true") //nolint:noctx // over at once
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS}
	return cmd.Run()
}

// userNamespaceRemedy returns how to allow user namespaces: what stands in the way of this
// process, or the switch that this kernel has, Ubuntu's or Debian's.
func userNamespaceRemedy() string {
	if noNewPrivileges() {
		return "no_new_privs is set for bawn, so newuidmap gets no rights: run bawn outside the service or container that sets it (systemd: NoNewPrivileges=no; Docker: no --security-opt no-new-privileges)"
	}
	for _, s := range []struct{ file, set string }{
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "kernel.unprivileged_userns_clone=1"},
	} {
		if exists(s.file) {
			return "sudo sysctl -w " + s.set + " (to keep the setting after a reboot, write it to a file in /etc/sysctl.d too)"
		}
	}
	return "raise user.max_user_namespaces (sysctl), or allow user namespaces in the container that bawn runs in"
}

// noNewPrivileges reports whether set-user-ID programs, such as newuidmap, get no rights
// when this thread runs them (prctl(2), PR_SET_NO_NEW_PRIVS).
func noNewPrivileges() bool {
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && set == 1
}
