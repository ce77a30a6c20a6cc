// Package meminfo reads the host's memory statistics.
package meminfo

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Available is what programs can still have without swapping, in bytes, as
// the kernel estimates it (proc_meminfo(5)); -1 when it does not say.
func Available() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return -1
	}
	for line := range bytes.Lines(b) {
		if rest, ok := strings.CutPrefix(string(line), "MemAvailable:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return -1
}
