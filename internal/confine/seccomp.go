package confine

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter is a list of refusals, not of permissions: the calls that QEMU and Go use
// differ from one version to the next, and Landlock already protects the files. A
// refusal is an errno, so that a program that merely probes continues.

// refusal is one system call that the filter refuses.
type refusal struct {
	nr    uint32
	errno unix.Errno
}

// always is refused under every Profile: ways out of a confined process, and interfaces
// to much kernel code that an emulator or file server never needs.
var always = []refusal{
	{unix.SYS_PTRACE, unix.EPERM},
	{unix.SYS_PROCESS_VM_READV, unix.EPERM},
	{unix.SYS_PROCESS_VM_WRITEV, unix.EPERM},
	{unix.SYS_PROCESS_MADVISE, unix.EPERM},
	{unix.SYS_PIDFD_GETFD, unix.EPERM},
	{unix.SYS_KCMP, unix.EPERM},
	{unix.SYS_BPF, unix.EPERM},
	{unix.SYS_PERF_EVENT_OPEN, unix.EPERM},
	{unix.SYS_USERFAULTFD, unix.EPERM},
	{unix.SYS_ADD_KEY, unix.EPERM},
	{unix.SYS_REQUEST_KEY, unix.EPERM},
	{unix.SYS_KEYCTL, unix.EPERM},
	{unix.SYS_UNSHARE, unix.EPERM},
	{unix.SYS_SETNS, unix.EPERM},
	{unix.SYS_MOUNT, unix.EPERM},
	{unix.SYS_UMOUNT2, unix.EPERM},
	{unix.SYS_PIVOT_ROOT, unix.EPERM},
	{unix.SYS_CHROOT, unix.EPERM},
	{unix.SYS_MOUNT_SETATTR, unix.EPERM},
	{unix.SYS_OPEN_TREE, unix.EPERM},
	{unix.SYS_MOVE_MOUNT, unix.EPERM},
	{unix.SYS_FSOPEN, unix.EPERM},
	{unix.SYS_FSMOUNT, unix.EPERM},
	{unix.SYS_FSPICK, unix.EPERM},
	{unix.SYS_FSCONFIG, unix.EPERM},
	{unix.SYS_OPEN_BY_HANDLE_AT, unix.EPERM},
	{unix.SYS_INIT_MODULE, unix.EPERM},
	{unix.SYS_FINIT_MODULE, unix.EPERM},
	{unix.SYS_DELETE_MODULE, unix.EPERM},
	{unix.SYS_KEXEC_LOAD, unix.EPERM},
	{unix.SYS_REBOOT, unix.EPERM},
	{unix.SYS_SWAPON, unix.EPERM},
	{unix.SYS_SWAPOFF, unix.EPERM},
	{unix.SYS_ACCT, unix.EPERM},
	{unix.SYS_QUOTACTL, unix.EPERM},
	{unix.SYS_SETTIMEOFDAY, unix.EPERM},
	{unix.SYS_CLOCK_SETTIME, unix.EPERM},
	{unix.SYS_ADJTIMEX, unix.EPERM},
	{unix.SYS_CLOCK_ADJTIME, unix.EPERM},
	{unix.SYS_SETHOSTNAME, unix.EPERM},
	{unix.SYS_SETDOMAINNAME, unix.EPERM},
	// clone3 keeps its flags in memory, where the filter cannot see them.
	// ENOSYS makes the C library use clone, whose flags are checked.
	{unix.SYS_CLONE3, unix.ENOSYS},
	// io_uring makes sockets and opens files without system calls.
	{unix.SYS_IO_URING_SETUP, unix.ENOSYS},
	{unix.SYS_IO_URING_ENTER, unix.ENOSYS},
	{unix.SYS_IO_URING_REGISTER, unix.ENOSYS},
}

// network is refused with NoNetwork.
var network = []refusal{
	{unix.SYS_SOCKET, unix.EPERM},
	{unix.SYS_CONNECT, unix.EPERM},
	{unix.SYS_BIND, unix.EPERM},
	{unix.SYS_LISTEN, unix.EPERM},
}

// attributes is refused with NoAttributes. It has the calls of both architectures;
// oldAttributes (per architecture) adds the older forms.
var attributes = []refusal{
	{unix.SYS_FCHMOD, unix.EPERM},
	{unix.SYS_FCHMODAT, unix.EPERM},
	{unix.SYS_FCHMODAT2, unix.EPERM},
	{unix.SYS_FCHOWN, unix.EPERM},
	{unix.SYS_FCHOWNAT, unix.EPERM},
	{unix.SYS_UTIMENSAT, unix.EPERM},
	{unix.SYS_SETXATTR, unix.EPERM},
	{unix.SYS_LSETXATTR, unix.EPERM},
	{unix.SYS_FSETXATTR, unix.EPERM},
	{unix.SYS_REMOVEXATTR, unix.EPERM},
	{unix.SYS_LREMOVEXATTR, unix.EPERM},
	{unix.SYS_FREMOVEXATTR, unix.EPERM},
	{unix.SYS_SETXATTRAT, unix.EPERM},
	{unix.SYS_REMOVEXATTRAT, unix.EPERM},
	{sysFileSetattr, unix.EPERM},
}

// sysFileSetattr is file_setattr(2), Linux 6.17; the same number everywhere.
const sysFileSetattr = 469

// newNamespaces are the clone(2) flags that make a namespace. CLONE_NEWTIME is
// not among them: in clone its bit belongs to the exit signal.
const newNamespaces = unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWNS |
	unix.CLONE_NEWPID | unix.CLONE_NEWUSER | unix.CLONE_NEWUTS

// Offsets into struct seccomp_data (seccomp(2)), in bytes. The arguments are
// 64 bits wide and little-endian on both architectures: the low half comes
// first.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// The instructions of a filter (linux/bpf_common.h).

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// jump skips yes instructions if the comparison with k holds, else no.
func jump(comparison uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

// load reads 4 bytes of struct seccomp_data.
func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

func refuse(e unix.Errno) unix.SockFilter {
	return statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(e))
}

func allow() unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW) }

// program builds the filter of a Profile.
func program(p Profile) []unix.SockFilter {
	prog := foreignCalls()
	prog = append(prog, load(dataNr))
	if x32Bit != 0 {
		prog = append(prog,
			jump(unix.BPF_JGE, x32Bit, 0, 1),
			refuse(unix.ENOSYS))
	}
	for _, r := range p.refusals() {
		prog = append(prog, jump(unix.BPF_JEQ, r.nr, 0, 1), refuse(r.errno))
	}
	prog = append(prog, namespaceClones()...)
	if p.NoNetwork {
		prog = append(prog, datagramPairs()...)
	}
	return append(prog, allow())
}

// refusals are the system calls that a Profile refuses whatever their arguments.
func (p Profile) refusals() []refusal {
	list := slices.Clone(always)
	if p.NoNetwork {
		list = append(list, network...)
	}
	if p.NoAttributes {
		list = append(list, attributes...)
		list = append(list, oldAttributes...)
	}
	return list
}

// foreignCalls refuses calls of another architecture (32-bit on amd64), which have other
// numbers.
func foreignCalls() []unix.SockFilter {
	return []unix.SockFilter{
		load(dataArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		refuse(unix.ENOSYS),
	}
}

// namespaceClones refuses clone(2) with a new namespace, and allows it otherwise. The
// number of the call must be loaded.
func namespaceClones() []unix.SockFilter {
	return []unix.SockFilter{
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 4),
		load(dataArgs), // flags: the first argument on amd64 and arm64 (clone(2))
		jump(unix.BPF_JSET, newNamespaces, 0, 1),
		refuse(unix.EPERM),
		allow(),
	}
}

// datagramPairs refuses socketpair(2) but for streams, and allows those: a datagram pair
// could be aimed at any Unix socket by sendto. The number of the call must be loaded.
func datagramPairs() []unix.SockFilter {
	const typeMask = 0xf // without SOCK_CLOEXEC and SOCK_NONBLOCK (linux/net.h, SOCK_TYPE_MASK)
	return []unix.SockFilter{
		jump(unix.BPF_JEQ, unix.SYS_SOCKETPAIR, 0, 6),
		load(dataArgs + 8), // type
		statement(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, typeMask),
		jump(unix.BPF_JEQ, unix.SOCK_STREAM, 2, 0),
		jump(unix.BPF_JEQ, unix.SOCK_SEQPACKET, 1, 0),
		refuse(unix.EPERM),
		allow(),
	}
}

// filterSyscalls installs the filter of a Profile on every thread. No thread may have a
// filter of its own.
func filterSyscalls(p Profile) error {
	prog := program(p)
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
