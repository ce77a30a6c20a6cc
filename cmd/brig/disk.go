package main

import (
	"os"
	"syscall"
)

// diskUsed is what a sparse file really takes, in bytes: st_blocks counts 512
// (stat(2)).
func diskUsed(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Size()
	}
	return st.Blocks * 512
}
