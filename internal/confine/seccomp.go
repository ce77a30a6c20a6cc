package confine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Theory of operation. The filter is a list of permissions (calls.go): one for each role,
// made from traces of real machines. The kernel runs the filter at each system call, so the
// program is a binary search over ranges of numbers with one answer: some eight comparisons
// for any call, frequent or not. (Newer kernels keep the answer for numbers that are always
// allowed, and run nothing.)
//
// A refusal is an errno, so that a program that merely probes goes on. It is EPERM for calls
// that the lists leave out on purpose, and ENOSYS for those in absent and for calls newer
// than the lists.
//
// Where an argument decides, the call's answer is a check: a piece of program that loads the
// argument. The filter cannot follow pointers.

// Role is what a confined process does for a living; it decides which system calls it may
// make.
type Role string

// The roles.
const (
	Emulator   Role = "emulator"    // QEMU
	FileServer Role = "file-server" // the server of one share, a Go program that starts nothing
)

// newNamespaces are the clone(2) flags that make a namespace. CLONE_NEWTIME is
// not among them: in clone its bit belongs to the exit signal.
const newNamespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
	unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// calls returns the filter's answer to each system call that is not refused. pid is the
// process that is confined: it may send signals to itself alone.
func (p Profile) calls(pid uint32) (map[uint32]answer, error) {
	list := slices.Concat(everyRole, olderCalls)
	checks := map[uint32]answer{
		unix.SYS_CLONE:     {check: threads()},
		unix.SYS_KILL:      {check: oneOf(pid)},
		unix.SYS_TGKILL:    {check: oneOf(pid)},
		unix.SYS_PRLIMIT64: {check: oneOf(0, pid)},
		unix.SYS_PRCTL:     {check: oneOf(prctls...)},
		unix.SYS_FCNTL:     {check: noneOf(signalFcntls...)},
	}
	switch p.Role {
	case Emulator:
		list = slices.Concat(list, emulatorCalls)
		checks[unix.SYS_IOCTL] = answer{check: ioctls()}
	case FileServer:
		list = slices.Concat(list, fileServerCalls, olderFileCalls)
		if !p.NoAttributes {
			list = slices.Concat(list, attributeCalls, olderAttributeCalls)
		}
		checks[unix.SYS_IOCTL] = answer{check: clones()}
		// It is one static program: nothing that it maps later is code.
		checks[unix.SYS_MMAP] = answer{check: noCode()}
		checks[unix.SYS_MPROTECT] = answer{check: noCode()}
	default:
		return nil, fmt.Errorf("confine: unknown role %q", p.Role)
	}
	for _, nr := range list {
		checks[nr] = answer{action: unix.SECCOMP_RET_ALLOW}
	}
	for _, nr := range absent {
		checks[nr] = answer{action: errno(unix.ENOSYS)}
	}
	return checks, nil
}

// threads allows clone(2) for a thread of the same process: no other process, and no
// namespace. The flags are the first argument on amd64 and arm64.
func threads() []unix.SockFilter {
	return []unix.SockFilter{
		load(dataArgs),
		jump(unix.BPF_JSET, newNamespaces, 1, 0),
		jump(unix.BPF_JSET, unix.CLONE_THREAD, 1, 0),
		give(errno(unix.EPERM)),
		give(unix.SECCOMP_RET_ALLOW),
	}
}

// prctls are the operations of prctl(2) that a role may use: names, its own timers, memory
// and death, and to give up more.
var prctls = []uint32{
	unix.PR_SET_PDEATHSIG, unix.PR_GET_PDEATHSIG, unix.PR_GET_DUMPABLE, unix.PR_SET_NAME, unix.PR_GET_NAME,
	unix.PR_SET_SECCOMP, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ, unix.PR_SET_TIMERSLACK, unix.PR_MCE_KILL,
	unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS, unix.PR_SET_VMA,
}

// signalFcntls are the commands of fcntl(2) that make the kernel send signals, to whatever
// process, and that watch directories.
var signalFcntls = []uint32{
	unix.F_SETOWN, fSetOwnEx, unix.F_SETSIG, unix.F_NOTIFY, unix.F_SETLEASE,
}

const fSetOwnEx = 15 // F_SETOWN_EX (asm-generic/fcntl.h)

// ioctls allows the requests of KVM, and three that the C library and GLib make of any
// descriptor. Others get ENOTTY, as from a file that does not know them: TIOCSTI would type
// into a terminal.
func ioctls() []unix.SockFilter {
	const kvmType = 0xae00 // KVMIO in bits 8 to 15 (linux/kvm.h, ioctl(2))
	return []unix.SockFilter{
		load(dataArgs + 8),
		jump(unix.BPF_JEQ, fionread, 5, 0),
		jump(unix.BPF_JEQ, fionbio, 4, 0),
		jump(unix.BPF_JEQ, unix.TCGETS, 3, 0),
		statement(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xff00),
		jump(unix.BPF_JEQ, kvmType, 1, 0),
		give(errno(unix.ENOTTY)),
		give(unix.SECCOMP_RET_ALLOW),
	}
}

// clones allows FICLONE, by which a file shares the blocks of another that is open too.
func clones() []unix.SockFilter {
	return []unix.SockFilter{
		load(dataArgs + 8),
		jump(unix.BPF_JEQ, unix.FICLONE, 1, 0),
		give(errno(unix.ENOTTY)),
		give(unix.SECCOMP_RET_ALLOW),
	}
}

// From asm-generic/ioctls.h.
const (
	fionread = 0x541b // FIONREAD
	fionbio  = 0x5421 // FIONBIO
)

// filterSyscalls installs the filter of a Profile on every thread. No thread may have a
// filter of its own.
func filterSyscalls(p Profile) error {
	calls, err := p.calls(uint32(os.Getpid()))
	if err != nil {
		return err
	}
	prog, err := program(calls)
	if err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// The calling thread needs no_new_privs; TSYNC passes it to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	r, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return fmt.Errorf("install the system call filter: %w", errno)
	}
	if r != 0 {
		return fmt.Errorf("install the system call filter: thread %d already has another filter", r)
	}
	return nil
}
