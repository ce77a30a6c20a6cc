package confine

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	fstatat   = unix.SYS_NEWFSTATAT
)

// olderCalls are older forms of calls in everyRole and emulatorCalls, which C libraries use
// on this architecture. They are for both roles.
var olderCalls = []uint32{
	unix.SYS_POLL, unix.SYS_SELECT, unix.SYS_EPOLL_WAIT, unix.SYS_EPOLL_CREATE, unix.SYS_EVENTFD, unix.SYS_SIGNALFD,
	unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_ACCESS, unix.SYS_READLINK,
	unix.SYS_DUP2, unix.SYS_PIPE, unix.SYS_TIME, unix.SYS_PAUSE, unix.SYS_GETRLIMIT,
	unix.SYS_ARCH_PRCTL, // the thread's own registers
}

// olderFileCalls are older forms of fileServerCalls.
var olderFileCalls = []uint32{
	unix.SYS_MKDIR, unix.SYS_MKNOD, unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_SYMLINK, unix.SYS_LINK, unix.SYS_RENAME, unix.SYS_RENAMEAT,
	unix.SYS_TRUNCATE,
}

// olderAttributeCalls are older forms of attributeCalls.
var olderAttributeCalls = []uint32{
	unix.SYS_CHMOD, unix.SYS_CHOWN, unix.SYS_LCHOWN, unix.SYS_UTIME, unix.SYS_UTIMES, unix.SYS_FUTIMESAT,
}
