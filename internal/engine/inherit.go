package engine

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/sys/proc"
)

// Umask returns this process's file mode creation mask; nil where the kernel does not tell it.
func Umask() *uint32 { return proc.Umask(os.Getpid()) }

// guestOpenFiles is the soft limit that every command in a guest has (internal/guest, boot.go).
const guestOpenFiles = 65536

// openFilesLimit bounds the wait for the child that tells the limit.
const openFilesLimit = 2 * time.Second

// OpenFiles returns the soft limit of open files that this process was started with; 0 where
// it is not above the guest's own, or not known. Go raises the limit of this process and
// restores it in children only, so a child tells it.
func OpenFiles() uint64 {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur <= guestOpenFiles {
		return 0
	}
	ctx, cancel := context.WithTimeout(context.Background(), openFilesLimit)
	defer cancel()
	out, err := proc.Command(ctx, "cat", "/proc/self/limits").Output()
	if n := maxOpenFiles(string(out)); err == nil && n > guestOpenFiles {
		return n
	}
	return 0
}

// maxOpenFiles returns the soft limit of open files in the text of a limits file
// (proc_pid_limits(5)); 0 where it has none.
func maxOpenFiles(limits string) uint64 {
	_, rest, _ := strings.Cut(limits, "Max open files")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(f[0], 10, 64)
	if err != nil {
		return 0 // "unlimited" cannot be: the kernel's bound is fs.nr_open
	}
	return n
}
