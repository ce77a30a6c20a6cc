package share

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// getRecord reads a file's ownerAttribute, of a link rather than of its target.
func getRecord(at file, buf *[maxRecord + 1]byte) (int, error) {
	if at.name == "" {
		return unix.Getxattr(at.path(), ownerAttribute, buf[:])
	}
	if !noGetxattrat.Load() {
		n, err := getxattrat(at, buf)
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) { // a container's filter says either
			return n, err
		}
		noGetxattrat.Store(true)
	}
	return unix.Lgetxattr(at.path(), ownerAttribute, buf[:])
}

// noGetxattrat is set when the host's kernel turns out not to have getxattrat (before
// Linux 6.13). It saves the walk through /proc, which takes longer than the rest.
var noGetxattrat atomic.Bool

// xattrArgs is struct xattr_args (linux/xattr.h).
type xattrArgs struct {
	value unsafe.Pointer
	size  uint32
	flags uint32
}

// ownerAttributeC is ownerAttribute for a system call.
var ownerAttributeC = []byte(ownerAttribute + "\x00")

// getxattrat is the system call of that name, on a name in an open directory.
func getxattrat(at file, buf *[maxRecord + 1]byte) (int, error) {
	var path [unix.NAME_MAX + 1]byte
	if len(at.name) >= len(path) {
		return 0, unix.ENAMETOOLONG
	}
	copy(path[:], at.name)
	args := xattrArgs{value: unsafe.Pointer(buf), size: uint32(len(buf))}
	n, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(at.fd), uintptr(unsafe.Pointer(&path[0])), unix.AT_SYMLINK_NOFOLLOW, //nolint:gosec // arrays of constant length
		uintptr(unsafe.Pointer(&ownerAttributeC[0])), uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
