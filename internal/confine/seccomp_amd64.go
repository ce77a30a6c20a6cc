package confine

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	// x32Bit marks calls of the x32 ABI, which have the same architecture value
	// (seccomp(2), "Caveats").
	x32Bit = 0x40000000
)

var oldAttributes = []refusal{
	{unix.SYS_CHMOD, unix.EPERM},
	{unix.SYS_CHOWN, unix.EPERM},
	{unix.SYS_LCHOWN, unix.EPERM},
	{unix.SYS_UTIME, unix.EPERM},
	{unix.SYS_UTIMES, unix.EPERM},
	{unix.SYS_FUTIMESAT, unix.EPERM},
}
