package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter is a list of refusals, not of permissions: QEMU and Go change the
// calls they use from one version to the next, and Landlock already holds the
// files. A refusal is an errno, so that a program which merely probes goes on.

// refusal is one system call that the filter turns down.
type refusal struct {
	nr    uint32
	errno unix.Errno
}

// always are refused under every Profile: doors out of a confined process, or
// much kernel code that an emulator or file server never needs.
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
	// io_uring makes sockets and opens files behind the filter's back.
	{unix.SYS_IO_URING_SETUP, unix.ENOSYS},
	{unix.SYS_IO_URING_ENTER, unix.ENOSYS},
	{unix.SYS_IO_URING_REGISTER, unix.ENOSYS},
}

var network = []refusal{
	{unix.SYS_SOCKET, unix.EPERM},
	{unix.SYS_CONNECT, unix.EPERM},
	{unix.SYS_BIND, unix.EPERM},
	{unix.SYS_LISTEN, unix.EPERM},
}

// attributes are those that both architectures have; oldAttributes (per
// architecture) adds the older forms.
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

// program builds the filter of a Profile.
func program(p Profile) []unix.SockFilter {
	stmt := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	jump := func(code uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | code | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	load := func(off uint32) unix.SockFilter { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, off) }
	refuse := func(e unix.Errno) unix.SockFilter {
		return stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(e))
	}
	allow := stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW)

	prog := []unix.SockFilter{
		// Calls of another architecture (32-bit on amd64) have other numbers.
		load(dataArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		refuse(unix.ENOSYS),
		load(dataNr),
	}
	if x32Bit != 0 {
		prog = append(prog,
			jump(unix.BPF_JGE, x32Bit, 0, 1),
			refuse(unix.ENOSYS))
	}
	list := always
	if p.NoNetwork {
		list = append(list[:len(list):len(list)], network...)
	}
	if p.NoAttributes {
		list = append(list[:len(list):len(list)], attributes...)
		list = append(list, oldAttributes...)
	}
	for _, r := range list {
		prog = append(prog, jump(unix.BPF_JEQ, r.nr, 0, 1), refuse(r.errno))
	}
	prog = append(prog,
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 4),
		load(dataArgs), // flags: the first argument on amd64 and arm64 (clone(2))
		jump(unix.BPF_JSET, newNamespaces, 0, 1),
		refuse(unix.EPERM),
		allow,
	)
	if p.NoNetwork {
		// A datagram pair could be aimed at any Unix socket by sendto.
		prog = append(prog,
			jump(unix.BPF_JEQ, unix.SYS_SOCKETPAIR, 0, 6),
			load(dataArgs+8), // type
			stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xf),
			jump(unix.BPF_JEQ, unix.SOCK_STREAM, 2, 0),
			jump(unix.BPF_JEQ, unix.SOCK_SEQPACKET, 1, 0),
			refuse(unix.EPERM),
			allow,
		)
	}
	return append(prog, allow)
}

// filterSyscalls installs the filter on every thread. The threads must not have
// filters of their own that differ.
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
		return fmt.Errorf("install the system call filter: thread %d has a filter of its own", r)
	}
	return nil
}
