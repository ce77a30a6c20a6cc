package proc

import "strconv"

// Umask returns the file mode creation mask of a process; nil where the kernel does not tell it
// (proc_pid_status(5), Umask, since Linux 4.7). umask(2) itself cannot read without writing.
func Umask(pid int) *uint32 {
	value, err := Field(pid, "status", "Umask")
	if err != nil {
		return nil
	}
	n, err := strconv.ParseUint(value, 8, 9)
	if err != nil {
		return nil
	}
	mask := uint32(n)
	return &mask
}
