package share

import "syscall"

// allThreads makes a system call in every thread: capabilities belong to
// threads, not to processes.
func allThreads(trap, a1, a2, a3 uintptr) (r1, r2 uintptr, err syscall.Errno) {
	return syscall.AllThreadsSyscall(trap, a1, a2, a3)
}
