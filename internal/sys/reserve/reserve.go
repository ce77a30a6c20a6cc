// Package reserve tells how much of a file system of the host guests may use: all that is
// free but a reserve, at which they get ENOSPC, as an ordinary user does at root's
// reserve (mke2fs(8), -m).
package reserve

import "golang.org/x/sys/unix"

// The reserve: one part in so many of the file system, and at most so much.
const (
	part      = 20
	maxBytes  = 4 << 30
	maxInodes = 10000
)

// Left is the state of the file system that an open file lies in, with the reserve taken
// off what is available (Bavail, Ffree).
func Left(fd int) (unix.Statfs_t, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return st, err
	}
	return without(st), nil
}

// without takes the reserve off.
func without(st unix.Statfs_t) unix.Statfs_t {
	st.Bavail -= min(st.Bavail, min(st.Blocks/part, maxBytes/uint64(max(st.Bsize, 1))))
	if st.Files > 0 { // else the file system has no fixed number
		st.Ffree -= min(st.Ffree, min(st.Files/part, maxInodes))
	}
	return st
}

// Bytes returns the bytes available in a state.
func Bytes(st *unix.Statfs_t) uint64 { return st.Bavail * uint64(max(st.Bsize, 0)) }

// Inodes returns how many files may be made, at most limit.
func Inodes(st *unix.Statfs_t, limit uint64) uint64 {
	if st.Files == 0 {
		return limit
	}
	return min(st.Ffree, limit)
}
