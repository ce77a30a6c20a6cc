package share

import "golang.org/x/sys/unix"

// raiseFileLimit lifts the soft limit of open files to the hard one.
func raiseFileLimit() {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return
	}
	l.Cur = l.Max
	_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &l) // after an error it stays as it was
}

// fileLimit returns how many files may be open.
func fileLimit() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur > 1<<20 {
		return 1 << 20
	}
	return int(l.Cur)
}

// keptCapabilities let root do what a file's owner may do, and no more: without
// CAP_FSETID the kernel takes setuid bits away when a file is written, and
// without CAP_MKNOD there are no devices (capabilities(7)).
const keptCapabilities = 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH | 1<<unix.CAP_FOWNER
