// Package meminfo reads the host's memory statistics.
package meminfo

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// Available returns how many bytes programs can still use without swapping, as the
// kernel estimates it (proc_meminfo(5)), or -1 where that is not known.
func Available() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return -1
	}
	return parse(b)
}

func parse(b []byte) int64 {
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
