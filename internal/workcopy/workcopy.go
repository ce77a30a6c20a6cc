// Package workcopy copies a directory of files for a fork: what cp -a does, for a source
// that a hostile guest changes meanwhile.
//
// Theory of operation. The copy walks the source through handles (os.Root), never by
// path, so that a symbolic link that the guest puts in the place of a directory cannot
// lead out of the source, nor to another file in it. An entry that has gone by the time it is copied is left out.
// Each entry keeps its contents with their holes, its owner, mode, times and extended
// attributes, and names of one file stay names of one file. Where the file system can
// share the contents of two files (reflink), the copy takes no room.
package workcopy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/sparse"
)

// Copy copies the directory from to the path to, where nothing may exist yet: the error
// is fs.ErrExist if something does. After any other failure, also when ctx ends, nothing
// of the copy is left.
//
// A file that cannot be read is an error that names it. What only root may give (other
// owners, some attributes) is left out for other users; set-user-ID and set-group-ID
// bits are then left out too.
func Copy(ctx context.Context, from, to string) (err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("copy the project: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("copy the project: %w", err), Remove(to))
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
	c := copier{ctx: ctx, from: from, top: top, linked: map[inode]string{}}
	return c.dir(src, top, ".")
}

// Remove removes a copy, also one with directories that are not writable.
func Remove(root string) error {
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

// inode identifies a file of this host.
type inode struct{ dev, ino uint64 }

// copier is one copy under way.
type copier struct {
	ctx    context.Context
	from   string           // path of the source, for error texts
	top    *os.Root         // of the copy
	linked map[inode]string // files with several names, and where the copy has them
}

// fail is an error about the entry at rel, by its path in the source. The names that
// system calls use are relative to handles and would mislead.
func (c *copier) fail(rel string, err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pe):
		err = pe.Err
	case errors.As(err, &le):
		err = le.Err
	}
	return fmt.Errorf("%s: %w", filepath.Join(c.from, rel), err)
}

// dir copies the entries of a directory, and then its metadata. rel is its path from the
// top.
func (c *copier) dir(src, dst *os.Root, rel string) error {
	from, names, err := namesIn(src)
	if errors.Is(err, fs.ErrNotExist) && rel != "." {
		return nil // removed meanwhile
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
	return c.fail(rel, copyMetadata(to, from))
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

// errReplaced means that something else has an entry's name by now, and that nothing was copied.
var errReplaced = errors.New("replaced")

// errUnsteady means that this was so maxReplaced times.
var errUnsteady = errors.New("something else takes its place again and again")

// maxReplaced bounds how often an entry is looked at that something else replaces before it is opened.
const maxReplaced = 100

// entry copies one entry of a directory, unless it has gone. What is opened is what was looked at: a link that took
// its place meanwhile would be followed, and may lead to what is hidden from the guest.
func (c *copier) entry(src, dst *os.Root, name, rel string) error {
	for range maxReplaced {
		if err := c.entryNow(src, dst, name, rel); !errors.Is(err, errReplaced) {
			return err
		}
		if err := c.ctx.Err(); err != nil {
			return err
		}
	}
	return c.fail(rel, errUnsteady)
}

// entryNow is entry, as it is now, or errReplaced.
func (c *copier) entryNow(src, dst *os.Root, name, rel string) error {
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
		return c.subdir(src, dst, name, rel, fi)
	}
	id := inode{st.Dev, st.Ino}
	if was, ok := c.linked[id]; ok && st.Nlink > 1 {
		return c.fail(rel, c.top.Link(was, rel))
	}
	made, err := leaf(c.ctx, src, dst, name, fi, st)
	if made && st.Nlink > 1 {
		c.linked[id] = rel
	}
	return c.fail(rel, err)
}

// subdir copies a directory, which Lstat has described.
func (c *copier) subdir(src, dst *os.Root, name, rel string, fi fs.FileInfo) error {
	from, err := src.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return errReplaced
	}
	if err != nil {
		return c.fail(rel, err)
	}
	defer from.Close()
	if now, err := from.Stat("."); err != nil || !os.SameFile(fi, now) {
		return cmp.Or(c.fail(rel, err), errReplaced)
	}
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

// leaf copies an entry other than a directory, which Lstat has described. made reports whether it still existed.
func leaf(ctx context.Context, src, dst *os.Root, name string, fi fs.FileInfo, st *syscall.Stat_t) (made bool, err error) {
	if fi.Mode().IsRegular() {
		return regular(ctx, src, dst, name, fi)
	}
	at, err := dst.Open(".")
	if err != nil {
		return false, err
	}
	defer at.Close()
	to := int(at.Fd())
	if fi.Mode().Type() == fs.ModeSymlink {
		var target string
		if target, err = src.Readlink(name); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if errors.Is(err, syscall.EINVAL) { // no link any more
			return false, errReplaced
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

// regular copies a regular file, which Lstat has described, and which may grow and shrink meanwhile. made reports
// whether it still existed.
func regular(ctx context.Context, src, dst *os.Root, name string, fi fs.FileInfo) (made bool, err error) {
	from, err := src.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer from.Close()
	if now, err := from.Stat(); err != nil || !os.SameFile(fi, now) {
		return false, cmp.Or(err, errReplaced)
	}
	to, err := dst.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return false, err
	}
	err = sparse.Copy(ctx, to, from)
	if err == nil {
		err = copyMetadata(to, from)
	}
	return true, errors.Join(err, to.Close())
}

// copyMetadata gives a copy the owner, extended attributes, mode and times of a file or
// directory. Without the right to give files away the copy stays the caller's, and the
// set-user-ID, set-group-ID and sticky bits are dropped.
func copyMetadata(to, from *os.File) error {
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
	// Go has no futimens(3), and the file's path may lead to another file by now.
	name := fmt.Sprintf("/proc/self/fd/%d", to.Fd())
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// copyAttributes copies the extended attributes that the caller may set.
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
