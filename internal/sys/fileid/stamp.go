package fileid

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Stamp tells two versions of the file at a path apart, also of one that is written anew each time. It is
// comparable, and the zero value is that of no file.
type Stamp struct {
	device, inode     uint64
	size              int64
	modified, changed unix.Timespec
}

// StampOf returns the Stamp of what is at path now, by one system call. A symbolic link there is not
// followed.
func StampOf(path string) (Stamp, error) {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		return Stamp{}, nil
	}
	if err != nil {
		return Stamp{}, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	return Stamp{st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}
