package datadir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// limits bound what is copied.
type limits struct {
	bytes   int64
	entries int
}

// copyLimits bound the copy of one place, and so what a first start takes longer: a home
// directory with its dotfiles and the plug-ins of a shell has some megabytes, one with
// toolchains has gigabytes.
var copyLimits = limits{bytes: 64 << 20, entries: 8192}

// copyTree copies a directory and what it holds to a directory that does not exist, with
// owners, modes, times, extended attributes, and the hard links within it. It follows no
// link. It fails before it makes anything if the tree is beyond the limits.
func copyTree(from, to string, l limits) error {
	left := l
	if err := left.measure(from); err != nil {
		return err
	}
	c := copier{links: map[inode]string{}}
	return c.copy(from, to)
}

// measure takes a file and what is below it from the limits.
func (l *limits) measure(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if l.entries--; st.Mode&unix.S_IFMT == unix.S_IFREG {
		l.bytes -= st.Size
	}
	if l.entries < 0 || l.bytes < 0 {
		return fmt.Errorf("what the image has there is too large to copy (more than %d MiB or %d files)", copyLimits.bytes>>20, copyLimits.entries)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	names, err := namesIn(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := l.measure(path + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// namesIn returns the names in a directory.
func namesIn(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// inode identifies a file.
type inode struct{ dev, number uint64 }

// copier copies one tree.
type copier struct {
	links map[inode]string // copies of files that have more than one name
}

// copy copies a file of any type. to must not exist.
func (c *copier) copy(from, to string) error {
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: from, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := c.links[key]; ok {
			return os.Link(first, to)
		}
		c.links[key] = to
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = c.copyDir(from, to)
	case unix.S_IFREG:
		err = copyFile(from, to)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(from); err == nil {
			err = os.Symlink(target, to)
		}
	default: // a FIFO, a socket or a device
		if err = unix.Mknod(to, kind|0o600, int(st.Rdev)); err != nil {
			err = &os.PathError{Op: "mknod", Path: to, Err: err}
		}
	}
	if err != nil {
		return err
	}
	return copyAttributes(from, to, &st)
}

// copyDir copies a directory without its attributes.
func (c *copier) copyDir(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	names, err := namesIn(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := c.copy(from+"/"+name, to+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// copyFile copies a regular file without its attributes. It waits until the data is with the
// disk: ext4 commits a change of the directory tree only with the data that had blocks by
// then (Documentation/admin-guide/ext4.rst, data=ordered), and gives new data blocks only
// when it writes it. A file of a sandbox that was killed soon after would be empty.
// This costs less than fsync(2), which waits for the host's disk as well.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, in)
	if err == nil && n > 0 {
		const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		if err = unix.SyncFileRange(int(out.Fd()), 0, 0, all); err != nil {
			err = &os.PathError{Op: "sync_file_range", Path: to, Err: err}
		}
	}
	return errors.Join(err, out.Close())
}

// copyAttributes copies owner, mode, extended attributes and times, in this order: a change
// of owner clears set-user-ID bits and capabilities (chown(2)).
func copyAttributes(from, to string, st *unix.Stat_t) error {
	if err := os.Lchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(to, st.Mode&0o7777); err != nil {
			return &os.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: to, Err: err}
	}
	return nil
}

// copyXattrs copies extended attributes.
func copyXattrs(from, to string) error {
	names := make([]byte, 1<<16) // XATTR_LIST_MAX (xattr(7))
	n, err := unix.Llistxattr(from, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "llistxattr", Path: from, Err: err}
	}
	var value []byte
	for _, name := range strings.FieldsFunc(string(names[:n]), func(r rune) bool { return r == 0 }) {
		if value == nil {
			value = make([]byte, 1<<16) // XATTR_SIZE_MAX (xattr(7))
		}
		n, err := unix.Lgetxattr(from, name, value)
		if err == nil {
			err = unix.Lsetxattr(to, name, value[:n], 0)
		}
		if err != nil {
			return &os.PathError{Op: "copy attribute " + name, Path: from, Err: err}
		}
	}
	return nil
}
