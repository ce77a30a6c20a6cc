package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// copyTree copies a directory to a place where nothing is, sharing contents where
// the file system can. Half a copy is removed.
//
// It is what cp -a does, but for two things: the guest goes on changing the
// directory. What is gone by the time it is copied is left out, and no symbolic link
// that comes in the place of a directory leads out of the project.
func copyTree(ctx context.Context, from, to string) (err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("copy the project: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("copy the project: %w", err), removeTree(to))
		}
	}()
	src, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer src.Close()
	top, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer top.Close()
	c := treeCopier{ctx: ctx, from: hostFiles{src, from}, top: top, linked: map[inode]string{}}
	return c.dir(src, top, ".")
}

// removeTree removes a copy, also of directories in which nothing may be removed.
func removeTree(root string) error {
	if os.RemoveAll(root) == nil {
		return nil
	}
	_ = filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(p, 0o700) //nolint:gosec // a folder
		}
		return err
	})
	return os.RemoveAll(root)
}

// inode tells files of this host apart.
type inode struct{ dev, ino uint64 }

type treeCopier struct {
	ctx    context.Context
	from   hostFiles        // the directory, for its name
	top    *os.Root         // of the copy
	linked map[inode]string // where the copy has what has several names
}

func (c *treeCopier) fail(rel string, err error) error { return failure(c.from, rel, err) }

// dir copies what is in a directory, and then what the directory is. rel is its path
// from the top.
func (c *treeCopier) dir(src, dst *os.Root, rel string) error {
	from, names, err := namesIn(src)
	if errors.Is(err, fs.ErrNotExist) && rel != "." {
		return nil // it was removed
	}
	if err != nil {
		return c.fail(rel, err)
	}
	defer from.Close()
	for _, n := range names {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.entry(src, dst, n, path.Join(rel, n)); err != nil {
			return err
		}
	}
	to, err := dst.Open(".")
	if err != nil {
		return c.fail(rel, err)
	}
	defer to.Close()
	return c.fail(rel, likeness(to, from))
}

// namesIn opens a directory and lists it.
func namesIn(dir *os.Root) (f *os.File, names []string, err error) {
	if f, err = dir.Open("."); err != nil {
		return nil, nil, err
	}
	if names, err = f.Readdirnames(-1); err != nil {
		f.Close()
	}
	return f, names, err
}

// entry copies one name of a directory, unless it is gone.
func (c *treeCopier) entry(src, dst *os.Root, name, rel string) error {
	fi, err := src.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return c.fail(rel, err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return c.fail(rel, errors.ErrUnsupported)
	}
	if fi.IsDir() {
		return c.subdir(src, dst, name, rel)
	}
	id := inode{st.Dev, st.Ino}
	if was, ok := c.linked[id]; ok && st.Nlink > 1 {
		return c.fail(rel, c.top.Link(was, rel))
	}
	made, err := leaf(src, dst, name, fi.Mode(), st)
	if made && st.Nlink > 1 {
		c.linked[id] = rel
	}
	return c.fail(rel, err)
}

func (c *treeCopier) subdir(src, dst *os.Root, name, rel string) error {
	from, err := src.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return c.fail(rel, err)
	}
	defer from.Close()
	if err := dst.Mkdir(name, 0o700); err != nil {
		return c.fail(rel, err)
	}
	to, err := dst.OpenRoot(name)
	if err != nil {
		return c.fail(rel, err)
	}
	defer to.Close()
	return c.dir(from, to, rel)
}

// leaf copies what is no directory, and says whether it was still there.
func leaf(src, dst *os.Root, name string, mode fs.FileMode, st *syscall.Stat_t) (made bool, err error) {
	if mode.IsRegular() {
		return regular(src, dst, name)
	}
	at, err := dst.Open(".")
	if err != nil {
		return false, err
	}
	defer at.Close()
	to := int(at.Fd())
	if mode.Type() == fs.ModeSymlink {
		var target string
		if target, err = src.Readlink(name); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err == nil {
			err = unix.Symlinkat(target, to, name)
		}
	} else { // a pipe or a socket
		err = unix.Mknodat(to, name, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return false, err
	}
	err = unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return true, err
	}
	times := []unix.Timespec{unix.NsecToTimespec(st.Atim.Nano()), unix.NsecToTimespec(st.Mtim.Nano())}
	return true, unix.UtimesNanoAt(to, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

// regular copies a file.
func regular(src, dst *os.Root, name string) (made bool, err error) {
	from, err := src.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer from.Close()
	if fi, err := from.Stat(); err != nil || !fi.Mode().IsRegular() { // it is something else by now
		return false, err
	}
	to, err := dst.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	err = copyContents(to, from)
	if err == nil {
		err = likeness(to, from)
	}
	return true, errors.Join(err, to.Close())
}

// copyContents copies a file that may grow and shrink meanwhile, with its holes.
func copyContents(to, from *os.File) error {
	if unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil {
		return nil
	}
	for at := int64(0); ; {
		data, err := from.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // no more
			break
		}
		if err != nil {
			return err
		}
		if at, err = from.Seek(data, unix.SEEK_HOLE); errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := from.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(data, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(to, io.LimitReader(from, at-data)); err != nil {
			return err
		}
	}
	size, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	return to.Truncate(size)
}

// likeness gives a copy the owner, attributes, mode and times of a file or directory.
// What only root may give is left out for others; then nobody else's rights go with
// it.
func likeness(to, from *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	err := to.Chown(int(st.Uid), int(st.Gid))
	if errors.Is(err, fs.ErrPermission) {
		mode, err = mode&0o777, nil
	}
	if err != nil {
		return err
	}
	copyAttributes(to, from)
	if err := unix.Fchmod(int(to.Fd()), mode); err != nil {
		return err
	}
	// There is no futimens(3) in Go, and by its name the file may be another.
	name := fmt.Sprintf("/proc/self/fd/%d", to.Fd())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyAttributes copies extended attributes, as far as it may.
func copyAttributes(to, from *os.File) {
	if n, err := unix.Flistxattr(int(from.Fd()), nil); err != nil || n == 0 {
		return // most have none
	}
	names := make([]byte, 64<<10) // XATTR_LIST_MAX and XATTR_SIZE_MAX (xattr(7))
	value := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(from.Fd()), names)
	if err != nil {
		return
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if v, err := unix.Fgetxattr(int(from.Fd()), name, value); err == nil && name != "" {
			_ = unix.Fsetxattr(int(to.Fd()), name, value[:v], 0)
		}
	}
}
