package undo

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// magic returns a path that leads to the file of an open descriptor.
func magic(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

// place opens what a Source leads to, without following a link and without opening a FIFO or
// a device. fd is -1 for a source that is open already. Otherwise the caller closes it.
func place(src Source) (fd int, st *unix.Statx_t, err error) {
	st = &unix.Statx_t{}
	if src.Name == "" {
		return -1, st, unix.Statx(src.FD, "", unix.AT_EMPTY_PATH, statMask, st)
	}
	if src.New { // it costs less than to open nothing
		if err := unix.Statx(src.FD, src.Name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, st); err != nil {
			return -1, nil, err
		}
	}
	fd, err = unix.Openat(src.FD, src.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, statMask, st); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}

// stateOf returns the state with these attributes, without contents.
func stateOf(st *unix.Statx_t) *State {
	s := &State{Mode: uint32(st.Mode) & permissions, UID: st.Uid, GID: st.Gid, Mtime: nanoseconds(st.Mtime)}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.Kind, s.Size = File, int64(st.Size)
	case unix.S_IFLNK:
		s.Kind = Link
	case unix.S_IFDIR:
		s.Kind, s.Mode = Dir, uint32(st.Mode)&(permissions|unix.S_ISVTX)
	default:
		s.Kind = Other
	}
	return s
}

// permissions are the bits of owner, group and others.
const permissions = 0o777

// target returns the target of the link at an O_PATH descriptor.
func target(fd int) ([]byte, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return nil, err
	}
	if n == 0 || n == len(buf) {
		return nil, unix.ENAMETOOLONG
	}
	return buf[:n], nil
}

// owner returns the ownerAttribute of a file, or nil.
func owner(fd int) []byte {
	buf := make([]byte, 128) // a record has 64 bytes at most
	n, err := unix.Getxattr(magic(fd), ownerAttribute, buf)
	if err != nil {
		return nil
	}
	return buf[:n]
}

// CopyContents copies all bytes of one open file to another, empty one, and leaves holes
// where the first has them.
func CopyContents(out, in int) error {
	size, err := unix.Seek(in, 0, io.SeekEnd)
	if err != nil {
		return err
	}
	for at := int64(0); at < size; {
		start, err := unix.Seek(in, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // the rest is a hole
		}
		end := size
		if err == nil {
			end, err = unix.Seek(in, start, unix.SEEK_HOLE)
		} else {
			start = at // the file system knows no holes
			err = nil
		}
		if err != nil {
			return err
		}
		if at, err = copyRange(out, in, start, end); err != nil {
			return err
		}
		if at == start {
			break // it became shorter meanwhile
		}
	}
	return unix.Ftruncate(out, size)
}

// copyRange copies the bytes from one offset to another, and returns how far it got.
func copyRange(out, in int, at, end int64) (int64, error) {
	var buf []byte
	for at < end {
		from, to := at, at
		n, err := unix.CopyFileRange(in, &from, out, &to, int(min(end-at, 1<<30)), 0)
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || err == nil && n == 0 {
			if buf == nil {
				buf = make([]byte, 256<<10)
			}
			if n, err = unix.Pread(in, buf[:min(int64(len(buf)), end-at)], at); n > 0 {
				n, err = unix.Pwrite(out, buf[:n], at)
			}
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return at, err
		}
		at += int64(n)
	}
	return at, nil
}

// CopyAttributes gives an open file the user's extended attributes of another, of those that
// keep accepts.
func CopyAttributes(out, in int, keep func(name string) bool) error {
	buf := make([]byte, 64<<10) // XATTR_LIST_MAX (linux/limits.h)
	n, err := unix.Flistxattr(in, buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") || !keep(name) {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(in, name, value)
		if err == nil {
			err = unix.Fsetxattr(out, name, value[:n], 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ofTheUser reports whether an extended attribute is not one of bawn's own, which are kept
// in State and are not taken from a store that a guest may have forged.
func ofTheUser(name string) bool { return !strings.HasPrefix(name, "user.bawn.") }
