package transfer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/fileid"
	"bawn.dev/bawn/internal/sys/pathwalk"
	"bawn.dev/bawn/internal/sys/regular"
)

// hostFiles is this host's file system beneath one directory. A path that leads out of it,
// by a symbolic link or "..", is refused, also when a guest that shares the directory
// changes it while files are copied.
type hostFiles struct {
	root *os.Root
	show string // path of the directory, for error texts
}

// sourceFiles is what is copied from: one entry of a directory of this host, and what lies below it. No symbolic link
// is followed there. The directory may be one that a guest can change, and a link that comes while files are copied may
// lead to what is hidden from the guest.
type sourceFiles struct{ hostFiles }

// openSource opens the directory that a path to copy from is in. name is the path from
// there. Links on the way to it are followed, but none in a share (ErrLink). The caller closes the root.
func openSource(shares []fileid.ID, p string) (s sourceFiles, name string, err error) {
	root, name, err := inShare(shares, p)
	if err != nil {
		return sourceFiles{}, "", err
	}
	if root == "" {
		abs, err := filepath.Abs(p)
		if err != nil {
			return sourceFiles{}, "", err
		}
		h, name, err := openHost(filepath.Dir(abs), filepath.Base(abs))
		return sourceFiles{h}, name, err
	}
	h, name, err := openHost(root, name)
	if err != nil {
		return sourceFiles{}, "", err
	}
	defer h.close()
	dir, base := path.Dir(name), path.Base(name)
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		dir = name[:i] // not in the form of path.Clean: what is before ".." may be a link
	}
	if base == "." || base == ".." {
		dir, base = name, "."
	}
	in, err := regular.OpenRootBeneath(h.root, dir)
	if err != nil {
		return sourceFiles{}, "", failure(h, name, inShareFailure(err))
	}
	return sourceFiles{hostFiles{in, filepath.Join(h.show, dir)}}, base, nil
}

// inShareFailure returns ErrLink or ErrEscapes for the error of an open beneath a share that met a link, or a ".." that
// leads out of it, and any other as it is.
func inShareFailure(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP):
		return ErrLink
	case errors.Is(err, unix.EXDEV): // openat2(2)
		return ErrEscapes
	}
	return err
}

// errLink means that what was a file or a directory is a link by now.
var errLink = errors.New("a symbolic link takes its place while it is copied")

// notByLink returns errLink for the error of an open that met a link, and any other as it is.
func notByLink(err error) error {
	if errors.Is(err, unix.ELOOP) {
		return errLink
	}
	return err
}

func (s sourceFiles) Lstat(p string) (fs.FileInfo, error) {
	fi, err := regular.LstatBeneath(s.root, p)
	return fi, notByLink(err)
}

func (s sourceFiles) ReadLink(p string) (string, error) {
	target, err := regular.ReadlinkBeneath(s.root, p)
	return target, notByLink(err)
}

// Open opens a regular file. It does not block on a pipe that a guest has put in its
// place. The reader has no WriteTo, which would bypass the count of bytes.
func (s sourceFiles) Open(p string) (io.ReadCloser, error) {
	f, err := regular.Check(regular.OpenBeneath(s.root, p, 0))
	if err != nil {
		return nil, notByLink(err) // also of a FIFO or a device: it has replaced the file that was listed
	}
	return struct{ io.ReadCloser }{f}, nil
}

func (s sourceFiles) ReadDir(p string) ([]string, error) {
	f, err := regular.OpenBeneath(s.root, p, unix.O_DIRECTORY)
	if err != nil {
		return nil, notByLink(err)
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// OpenSource opens a regular file of the host for reading. If it lies in one of the shares, no symbolic link is followed
// there (ErrLink): a guest can have put it there, and it may lead to what is hidden from the guest. The caller closes
// the file.
func OpenSource(shares []fileid.ID, p string) (*os.File, error) {
	share, name, err := inShare(shares, p)
	if err == nil && share == "" {
		return regular.Open(p, 0)
	}
	h, name, err := openShare(share, name, err)
	if err != nil {
		return nil, err
	}
	defer h.close()
	f, err := regular.Check(regular.OpenBeneath(h.root, name, 0))
	return f, failure(h, name, inShareFailure(err))
}

// openDestination opens a directory to copy to, or the one that the copy will be in. name
// is the path from there. The caller closes the root.
func openDestination(shares []fileid.ID, p string) (h hostFiles, name string, err error) {
	if root, name, err := inShare(shares, p); err != nil || root != "" {
		return openShare(root, name, err)
	}
	if fi, err := os.Stat(p); err == nil && fi.IsDir() {
		return openHost(p, ".")
	}
	p = filepath.Clean(p)
	if real, err := filepath.EvalSymlinks(p); err == nil {
		p = real // a link to a file, outside the shares and thus the user's own
	}
	return openHost(filepath.Dir(p), filepath.Base(p))
}

// openShare opens what inShare has found, or returns its error.
func openShare(root, name string, err error) (hostFiles, string, error) {
	if err != nil {
		return hostFiles{}, "", err
	}
	return openHost(root, name)
}

func openHost(dir, name string) (hostFiles, string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return hostFiles{}, "", failure(hostFiles{show: dir}, "", err)
	}
	if name == "/" {
		name = "."
	}
	return hostFiles{root, dir}, name, nil
}

// inShare finds the share that p leads into, and what is left of p to follow from there. root is "" if it
// leads into none. Links on the way to the share are the person's own. From the share on nothing is
// followed here: a guest may have put any of the links there.
func inShare(shares []fileid.ID, p string) (root, name string, err error) {
	abs, err := filepath.Abs(p)
	if err != nil {
		return "", "", err
	}
	root, name, _, err = pathwalk.Enter(abs, func(at string, fi fs.FileInfo) bool {
		return slices.ContainsFunc(shares, func(id fileid.ID) bool { return id.At(at, fi) })
	})
	return root, name, err
}

func (h hostFiles) close() { h.root.Close() }

func (h hostFiles) Name(p string) string                { return filepath.Join(h.show, p) }
func (h hostFiles) Lstat(p string) (fs.FileInfo, error) { return h.root.Lstat(p) }
func (h hostFiles) Stat(p string) (fs.FileInfo, error)  { return h.root.Stat(p) }
func (h hostFiles) ReadLink(p string) (string, error)   { return h.root.Readlink(p) }
func (h hostFiles) Chmod(p string, m fs.FileMode) error { return h.root.Chmod(p, m) }

func (h hostFiles) Chtimes(p string, modified time.Time) error {
	return h.root.Chtimes(p, time.Time{}, modified) // the zero time leaves the time of access
}

// Open opens a regular file. It does not block on a pipe that a guest has put in its
// place. The reader has no WriteTo, which would bypass the count of bytes.
func (h hostFiles) Open(p string) (io.ReadCloser, error) {
	f, err := regular.Check(h.root.OpenFile(p, regular.Flags, 0))
	if err != nil {
		return nil, err // of a FIFO or a device: it has replaced the file that was listed
	}
	return struct{ io.ReadCloser }{f}, nil
}

func (h hostFiles) ReadDir(p string) ([]string, error) {
	f, err := h.root.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (h hostFiles) Create(name string, like fs.FileInfo, write func(io.Writer) error) error {
	tmp := temporary(name)
	f, err := h.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = errors.Join(f.Chmod(like.Mode().Perm()), h.Chtimes(tmp, like.ModTime()))
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = h.root.Rename(tmp, name)
	}
	if err != nil {
		_ = h.root.Remove(tmp)
	}
	return err
}

// temporary is a name in the directory of name, for a file that will be renamed to it.
func temporary(name string) string {
	return path.Join(path.Dir(name), ".bawn-cp-"+sandbox.NewID())
}

// Mkdir does not accept a symbolic link to a directory: the guest may have sent one of
// that name a moment ago.
func (h hostFiles) Mkdir(name string) (bool, error) {
	err := h.root.Mkdir(name, 0o700)
	if err == nil {
		return true, nil
	}
	if fi, lerr := h.root.Lstat(name); errors.Is(err, fs.ErrExist) && lerr == nil && fi.IsDir() {
		return false, nil
	}
	return false, err
}

func (h hostFiles) Symlink(target, name string) error {
	if fi, err := h.root.Lstat(name); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if err := h.root.Remove(name); err != nil {
			return err
		}
	}
	return h.root.Symlink(target, name)
}
