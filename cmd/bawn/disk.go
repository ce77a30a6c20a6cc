package main

import (
	"io/fs"
	"path/filepath"
	"syscall"
)

// inode identifies a file of this host.
type inode struct{ dev, ino uint64 }

// usage counts what files take of the host's disk, each once, however many names it
// has: a sandbox that went back to a snapshot has the same memory file.
type usage map[inode]bool

// of counts a file or all in a folder, in bytes. It looks at blocks, of which sparse
// files have few: st_blocks counts 512 (stat(2)). What is not there takes nothing.
func (u usage) of(path string) int64 {
	var n int64
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // it is not there, or gone meanwhile
		}
		fi, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // gone meanwhile
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && !u[inode{st.Dev, st.Ino}] {
			u[inode{st.Dev, st.Ino}] = true
			n += st.Blocks * 512
		}
		return nil
	})
	return n
}
