package fileid

import (
	"fmt"
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// ID identifies a file or directory for as long as it exists, under whatever name it has,
// also after a restart of the host. The zero value identifies none.
type ID struct {
	Inode uint64 `json:"inode"`
	// Born is when it was made, in nanoseconds of the Unix epoch; 0 where the file system
	// does not tell. No program can set it, so it tells a file from a later one to which the
	// file system gave the same inode number.
	Born int64 `json:"born,omitempty"`
	// Device is the number of its file system. It may differ after a restart of the host, so
	// it counts only where Born is not known.
	Device uint64 `json:"device,omitempty"`
}

// Of returns the identity of what lies at path, through symbolic links.
func Of(path string) (ID, error) { return identify(path, 0) }

func identify(path string, flags int) (ID, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return ID{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Mask&unix.STATX_INO == 0 {
		return ID{}, fmt.Errorf("%s has no inode number", path)
	}
	id := ID{Inode: st.Ino, Device: unix.Mkdev(st.Dev_major, st.Dev_minor)}
	if st.Mask&unix.STATX_BTIME != 0 {
		id.Born = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return id, nil
}

// Same reports whether two identities are of one file.
func (id ID) Same(other ID) bool {
	switch {
	case id == ID{} || id.Inode != other.Inode:
		return false
	case id.Born == 0 || other.Born == 0:
		return id.Device == other.Device
	}
	return id.Born == other.Born
}

// At reports whether the identity is of what lies at path, of which fi is the result of
// lstat(2). A symbolic link is not followed. It makes a system call only if the inode number
// is the same; if that fails, the answer is yes.
func (id ID) At(path string, fi fs.FileInfo) bool {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Ino != id.Inode {
		return false
	}
	now, err := identify(path, unix.AT_SYMLINK_NOFOLLOW)
	return err != nil || id.Same(now)
}
