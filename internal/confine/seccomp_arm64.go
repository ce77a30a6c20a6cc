package confine

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	fstatat   = unix.SYS_FSTATAT
)

// arm64 has the newer forms only.
var olderCalls, olderAttributeCalls []uint32

var olderFileCalls = []uint32{unix.SYS_RENAMEAT, unix.SYS_TRUNCATE}
