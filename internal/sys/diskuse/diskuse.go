// Package diskuse tells what files take of a disk: the blocks that are allocated, which
// are few for a sparse file.
package diskuse

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// blockSize is the unit of st_blocks in bytes (stat(2)).
const blockSize = 512

// Of returns what the file at path, or all below a folder and the folders themselves,
// take in bytes. A file with several names below path counts once. What does not exist
// or cannot be read takes nothing. Symbolic links are not followed.
func Of(path string) int64 { return new(Counter).Add(path) }

// OfFile returns what an open file takes, in bytes; 0 where that cannot be known.
func OfFile(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * blockSize
}

// Counter counts each file once, also over several calls and however many names it
// has: several sandboxes may share a file. The zero value is ready to use. A Counter is
// for one goroutine at a time.
type Counter struct{ seen map[inode]bool }

type inode struct{ dev, ino uint64 }

// Add returns, in bytes, what Of(path) would, without the files that were counted
// before.
func (c *Counter) Add(path string) int64 {
	if c.seen == nil {
		c.seen = map[inode]bool{}
	}
	var sum int64
	_ = filepath.WalkDir(path, func(p string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || unix.Lstat(p, &st) != nil {
			return nil //nolint:nilerr // unreadable, or removed meanwhile
		}
		if i := (inode{st.Dev, st.Ino}); !c.seen[i] {
			c.seen[i] = true
			sum += st.Blocks * blockSize
		}
		return nil
	})
	return sum
}
