// Package regular opens and reads files that must be regular files. Nobody makes the caller wait by
// a FIFO or a device in their place, or fill its memory by their size.
package regular

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Errors of a file that is there. They come in a *fs.PathError with its path.
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrTooLarge   = errors.New("larger than it may be")
	ErrWritable   = errors.New("users other than its owner can change it: chmod 600 it")
)

// Flags are the flags of open(2) with which a file is opened for reading: the opening of a FIFO does
// not wait for a writer, and no terminal becomes the controlling one.
const Flags = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY

// NoFollow is a flag of Open and Read: a symbolic link as the last part of the path is not followed
// (the error is unix.ELOOP).
const NoFollow = unix.O_NOFOLLOW

// Open opens a regular file for reading. flags is 0 or NoFollow. The caller closes the file.
func Open(path string, flags int) (*os.File, error) {
	return Check(os.OpenFile(path, Flags|flags, 0))
}

// Check returns f if it is a regular file. Otherwise it closes f and returns ErrNotRegular. An error
// of the opening is returned as it is.
func Check(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: f.Name(), Err: ErrNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Read reads a regular file of at most limit bytes. Of a longer one it returns ErrTooLarge, with the
// first limit bytes. flags is as for Open.
func Read(path string, limit int64, flags int) ([]byte, error) {
	f, err := Open(path, flags)
	return readAll(f, err, limit)
}

// ReadOwn is Read of a file that nobody but its owner can change, and that is no symbolic link. Of another
// one it returns ErrWritable.
func ReadOwn(path string, limit int64) ([]byte, error) {
	f, err := Open(path, NoFollow)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode().Perm()&0o022 != 0 {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrWritable}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return readAll(f, nil, limit)
}

// ReadIn is Read of a file in a directory that no path leads out of. It follows links in there.
func ReadIn(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := Check(root.OpenFile(name, Flags, 0))
	return readAll(f, err, limit)
}

// ReadBeneath is ReadIn without any link: one on the way, or as the last part of the path, is unix.ELOOP.
func ReadBeneath(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := Check(OpenBeneath(root, name, 0))
	return readAll(f, err, limit)
}

// OpenBeneath opens what has a name in a directory, for reading, without any link on the way (ReadBeneath): one that
// comes while it is opened, too. It may be of any kind: Check refuses all but regular files. flags is 0 or
// unix.O_DIRECTORY. The caller closes the file.
func OpenBeneath(root *os.Root, name string, flags int) (*os.File, error) {
	return openBeneath(root, name, Flags|flags)
}

// OpenRootBeneath opens a directory in another one, without any link on the way (ReadBeneath). The caller closes it.
func OpenRootBeneath(root *os.Root, dir string) (*os.Root, error) {
	f, err := OpenBeneath(root, dir, unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) // proc_pid_fd(5): that directory, wherever it is by now
}

// LstatBeneath is os.Lstat of what has a name in a directory, without any link on the way to it.
func LstatBeneath(root *os.Root, name string) (fs.FileInfo, error) {
	f, err := openBeneath(root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

// ReadlinkBeneath returns the target of a symbolic link in a directory, without any other link on the way to it.
func ReadlinkBeneath(root *os.Root, name string) (string, error) {
	f, err := openBeneath(root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", err
	}
	defer f.Close()
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(f.Fd()), "", target)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return string(target[:n]), nil
}

func openBeneath(root *os.Root, name string, flags int) (*os.File, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// ReadAll reads an open file of at most limit bytes, as Read does, and closes it.
func ReadAll(f *os.File, limit int64) ([]byte, error) { return readAll(f, nil, limit) }

func readAll(f *os.File, err error, limit int64) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		return b[:limit], &fs.PathError{Op: "read", Path: f.Name(), Err: ErrTooLarge}
	}
	return b, err
}
