package confine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// caller makes one system call, in this thread or in all threads: capabilities belong to
// threads, not to processes (capabilities(7)).
type caller func(nr, a, b, c uintptr) syscall.Errno

func thisThread(nr, a, b, c uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall(nr, a, b, c)
	return e
}

func allThreads(nr, a, b, c uintptr) syscall.Errno {
	_, _, e := syscall.AllThreadsSyscall(nr, a, b, c)
	return e
}

// KeepCapabilities gives up all capabilities of the process but those in the set keep (bits
// by capability number), in every set that the kernel has, so that it gets none back by
// executing a program as root. It does nothing in a process that is not root's and has no
// capabilities, and leaves the bounding set to a process that is not root's and may not change
// it. It does not work in a program with cgo.
func KeepCapabilities(keep uint64) error { return keepCapabilities(keep, allThreads) }

func keepCapabilities(keep uint64, call caller) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var now [2]unix.CapUserData
	if err := unix.Capget(&header, &now[0]); err != nil {
		return fmt.Errorf("read the capabilities: %w", err)
	}
	if now[0].Permitted|now[1].Permitted|now[0].Inheritable|now[1].Inheritable == 0 && os.Geteuid() != 0 {
		return nil
	}
	// Without CAP_SETPCAP only root is refused: to others the bounding set gives nothing but
	// by files with capabilities, as to an ordinary user, and not with no_new_privs.
	limited := os.Geteuid() != 0 && now[unix.CAP_SETPCAP/32].Effective&(1<<(unix.CAP_SETPCAP%32)) == 0
	if err := dropBounding(keep, call); err != nil && !limited {
		return fmt.Errorf("give up capabilities for programs to be executed: %w (as root, bawn needs CAP_SETPCAP for that: run it as an ordinary user)", err)
	}
	if e := call(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); e != 0 && e != unix.EINVAL {
		return fmt.Errorf("give up ambient capabilities: %w", e)
	}
	var data [2]unix.CapUserData
	for i := range data {
		data[i].Permitted = now[i].Permitted & uint32(keep>>(32*i))
		data[i].Effective = data[i].Permitted
	}
	e := call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	if e != 0 {
		return fmt.Errorf("give up capabilities: %w", e)
	}
	return nil
}

// dropBounding takes capabilities out of the bounding set, which limits what a program that
// root executes gets.
func dropBounding(keep uint64, call caller) error {
	for n := range uintptr(64) {
		if keep&(1<<n) != 0 {
			continue
		}
		has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, n, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel knows no more
		}
		if err != nil {
			return err
		}
		if has == 0 {
			continue
		}
		if e := call(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0); e != 0 {
			return e
		}
	}
	return nil
}
