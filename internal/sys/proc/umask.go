package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Umask returns the file mode creation mask of a process; nil where the kernel does not tell it
// (proc_pid_status(5), Umask, since Linux 4.7). umask(2) itself cannot read without writing.
func Umask(pid int) *uint32 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Umask:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(value), 8, 9); err == nil {
				mask := uint32(n)
				return &mask
			}
		}
	}
	return nil
}
