package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"bawn.dev/bawn/internal/progress"
)

// files is a file system on one side of a copy.
type files interface {
	Name(string) string // of a file, for error texts
	Lstat(string) (fs.FileInfo, error)
	Stat(string) (fs.FileInfo, error)
	ReadDir(string) (names []string, err error)
	ReadLink(string) (string, error)
	Open(string) (io.ReadCloser, error)
	// Create writes a file beside the one that name has, and renames it to name, with
	// the mode and time of like, when write has returned nil.
	Create(name string, like fs.FileInfo, write func(io.Writer) error) error
	// Mkdir makes a directory that only its owner can use, unless there is a directory.
	Mkdir(string) (made bool, err error)
	Chmod(string, fs.FileMode) error
	Chtimes(name string, modified time.Time) error
	Symlink(target, name string) error
}

// copier is one copy under way.
type copier struct {
	ctx      context.Context
	src, dst files
	task     progress.Task
	skip     func(error) // called for an entry of a directory that cannot be copied
	bound    *bound      // of what comes from a guest; nil for what goes to one
}

// into copies src to dst, or to dst/base if dst is a directory, as cp(1) does. With
// mustBeDir it fails unless dst is one.
func (c *copier) into(src, base, dst string, mustBeDir bool) error {
	fi, err := c.dst.Stat(dst)
	switch {
	case err == nil && fi.IsDir():
		dst = path.Join(dst, base)
	case err != nil && (mustBeDir || !errors.Is(err, fs.ErrNotExist)):
		return failure(c.dst, dst, err)
	case mustBeDir:
		return failure(c.dst, dst, syscall.ENOTDIR)
	}
	return c.tree(src, dst, 0)
}

// failure is an error about a file by the name that the user knows. The names that system
// calls use are relative to handles and would mislead.
func failure(where files, name string, err error) error {
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
	if strings.Contains(err.Error(), "escapes from parent") { // os.Root has no sentinel for it
		err = fmt.Errorf("%w (%w)", ErrEscapes, err)
	}
	return fmt.Errorf("%s: %w", where.Name(name), err)
}

// tree copies a file, a symbolic link or a whole directory. Anything else is ErrKind.
func (c *copier) tree(src, dst string, depth int) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if err := c.bound.entry(depth); err != nil {
		return failure(c.src, src, err)
	}
	fi, err := c.src.Lstat(src)
	if err != nil {
		return failure(c.src, src, err)
	}
	c.task.Note(path.Base(src))
	switch fi.Mode().Type() {
	case 0:
		return c.file(src, dst, fi)
	case fs.ModeDir:
		return c.dir(src, dst, fi, depth)
	case fs.ModeSymlink:
		target, err := c.src.ReadLink(src)
		if err != nil {
			return failure(c.src, src, err)
		}
		return failure(c.dst, dst, c.dst.Symlink(target, dst))
	}
	return failure(c.src, src, ErrKind)
}

func (c *copier) file(src, dst string, fi fs.FileInfo) error {
	r, err := c.src.Open(src)
	if err != nil {
		return failure(c.src, src, err)
	}
	defer r.Close()
	err = c.dst.Create(dst, fi, func(w io.Writer) error { return c.bytes(w, r, fi.Size()) })
	return failure(c.dst, dst, err)
}

// bytes copies a file's contents. The SFTP library keeps many requests under way only if
// its file is read by WriteTo, or written from a reader that knows its size.
func (c *copier) bytes(w io.Writer, r io.Reader, size int64) error {
	if from, ok := r.(io.WriterTo); ok {
		_, err := from.WriteTo(countWriter{w, c.task, c.bound})
		return err
	}
	_, err := io.Copy(w, countReader{r, size, c.task})
	return err
}

// countWriter adds what is written to a task.
type countWriter struct {
	io.Writer
	task  progress.Task
	bound *bound
}

func (c countWriter) Write(b []byte) (int, error) {
	if err := c.bound.bytes(len(b)); err != nil {
		return 0, err
	}
	n, err := c.Writer.Write(b)
	c.task.Add(int64(n))
	return n, err
}

// countReader adds what is read to a task, and knows the size of all of it.
type countReader struct {
	io.Reader
	size int64
	task progress.Task
}

func (c countReader) Size() int64 { return c.size }

func (c countReader) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.task.Add(int64(n))
	return n, err
}

// dir copies a directory. One that exists at dst keeps its mode and time.
func (c *copier) dir(src, dst string, fi fs.FileInfo, depth int) error {
	made, err := c.dst.Mkdir(dst)
	if err != nil {
		return failure(c.dst, dst, err)
	}
	err = c.entries(src, dst, depth+1)
	if !made {
		return err
	}
	// Also after a failure: until now the directory has the private mode of Mkdir.
	settled := errors.Join(c.dst.Chtimes(dst, fi.ModTime()), c.dst.Chmod(dst, fi.Mode().Perm()))
	if err == nil {
		err = failure(c.dst, dst, settled)
	}
	return err
}

// entries copies what is in a directory, and skips what cannot be copied.
func (c *copier) entries(src, dst string, depth int) error {
	list, err := c.src.ReadDir(src)
	if err != nil {
		return failure(c.src, src, err)
	}
	release, err := c.bound.hold(list)
	if err != nil {
		return failure(c.src, src, err)
	}
	defer release()
	for _, n := range list {
		if n == "." || n == ".." || n == "" || strings.Contains(n, "/") {
			return failure(c.src, src, fmt.Errorf("has an entry with the invalid name %q", n))
		}
		err := c.tree(path.Join(src, n), path.Join(dst, n), depth)
		if errors.Is(err, ErrKind) {
			c.skip(err)
		} else if err != nil {
			return err
		}
	}
	return nil
}
