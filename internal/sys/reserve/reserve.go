// Package reserve tells how much of a file system of the host guests may use: all that is
// free but a reserve, at which they get ENOSPC, as an ordinary user does at root's
// reserve (mke2fs(8), -m).
package reserve

import (
	"errors"
	"math"
	"strconv"

	"golang.org/x/sys/unix"
)

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

// # Theory of operation: data that the file system has not counted yet
//
// Btrfs takes data into account when it commits, which is up to a minute after write(2); network file
// systems do something of the kind. Until then statfs(2) shows room that is gone. So who writes more
// than a little counts in a Room what was written since the file system was last synced, and syncs it
// before that is a large part of what is left. Data of other processes is not counted; the part
// leaves room for a few of them.

// exact are the file systems (statfs(2), f_type) that count data when it is written.
var exact = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, // ext2 and ext3 too
	unix.XFS_SUPER_MAGIC:  true, unix.TMPFS_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
}

// When a Room syncs: after one part in so many of what is left, and at least after so many bytes.
const (
	uncountedPart  = 8
	uncountedBytes = 16 << 20
)

// Room is what a process may write to a file system. The zero value is ready. Its methods are
// for one goroutine at a time.
type Room struct {
	// Sync writes the file system to its disk; if it is nil, syncfs(2) is called.
	Sync func() error

	uncounted uint64 // bytes that were taken, and that statfs may not have counted
	taken     uint64 // bytes that may not be written yet
}

// Take says that bytes are about to be written, and Wrote that they were, or that they will not be.
func (r *Room) Take(bytes uint64) {
	r.taken += bytes
	r.uncounted += bytes
}

// Wrote ends a Take.
func (r *Room) Wrote(bytes uint64) { r.taken -= min(bytes, r.taken) }

// Left is the function Left, less what was taken and is not written or not counted. fd is one of a file or
// directory, or an O_PATH descriptor if Sync is set. Where the file system counts late, it
// may be synced, which can take seconds: if fewer than want bytes seem to be left, at least.
func (r *Room) Left(fd int, want uint64) (unix.Statfs_t, error) {
	st, err := Left(fd)
	if err != nil {
		return st, err
	}
	if exact[int64(st.Type)] { //nolint:unconvert // another type on other processors
		return less(st, r.taken), nil
	}
	left := Bytes(&st)
	if r.uncounted > r.taken && (left < want || left-want < r.uncounted || r.uncounted > max(left/uncountedPart, uncountedBytes)) {
		if err := r.sync(fd); err != nil {
			return st, err
		}
		if st, err = Left(fd); err != nil {
			return st, err
		}
	}
	return less(st, r.uncounted), nil
}

// Settle makes the next Left count what other processes have written before, too.
func (r *Room) Settle() { r.uncounted = math.MaxUint64 / 2 }

func (r *Room) sync(fd int) error {
	err := r.syncFile(fd)
	if err == nil {
		r.uncounted = r.taken
	}
	return err
}

func (r *Room) syncFile(fd int) error {
	if r.Sync != nil {
		return r.Sync()
	}
	err := unix.Syncfs(fd)
	if !errors.Is(err, unix.EBADF) {
		return err
	}
	again, err := unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) // it was O_PATH
	if err != nil {
		return err
	}
	defer unix.Close(again)
	return unix.Syncfs(again)
}

// less takes bytes off what is available.
func less(st unix.Statfs_t, bytes uint64) unix.Statfs_t {
	unit := uint64(max(st.Bsize, 1))
	st.Bavail -= min(st.Bavail, bytes/unit+min(bytes%unit, 1))
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
