package transfer

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/pkg/sftp"
)

// guestFiles is the guest's file system over SFTP.
type guestFiles struct {
	c       *sftp.Client
	sandbox string
}

func (g guestFiles) Name(p string) string                 { return g.sandbox + ":" + p }
func (g guestFiles) Lstat(p string) (fs.FileInfo, error)  { return g.c.Lstat(p) }
func (g guestFiles) Stat(p string) (fs.FileInfo, error)   { return g.c.Stat(p) }
func (g guestFiles) ReadLink(p string) (string, error)    { return g.c.ReadLink(p) }
func (g guestFiles) Open(p string) (io.ReadCloser, error) { return g.c.Open(p) }
func (g guestFiles) Chmod(p string, m fs.FileMode) error  { return g.c.Chmod(p, m) }

// Chtimes is exact to a second, as SFTP version 3 is (draft-ietf-secsh-filexfer-02, 5).
func (g guestFiles) Chtimes(p string, modified time.Time) error {
	return g.c.Chtimes(p, modified, modified)
}

func (g guestFiles) ReadDir(p string) ([]string, error) {
	list, err := g.c.ReadDir(p)
	names := make([]string, len(list))
	for i, fi := range list {
		names[i] = fi.Name()
	}
	return names, err
}

func (g guestFiles) Create(name string, like fs.FileInfo, write func(io.Writer) error) error {
	tmp := temporary(name)
	f, err := g.c.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Chmod(like.Mode().Perm())
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = g.Chtimes(tmp, like.ModTime()) // after the close, since a late write changes it
	}
	if err == nil {
		err = g.c.PosixRename(tmp, name)
	}
	if err != nil {
		_ = g.c.Remove(tmp)
	}
	return err
}

func (g guestFiles) Mkdir(name string) (bool, error) {
	if fi, err := g.c.Lstat(name); err == nil && fi.IsDir() {
		return false, nil
	}
	if err := g.c.Mkdir(name); err != nil {
		return false, err
	}
	return true, g.c.Chmod(name, 0o700)
}

func (g guestFiles) Symlink(target, name string) error {
	if fi, err := g.c.Lstat(name); err == nil && fi.Mode().Type() == fs.ModeSymlink {
		if err := g.c.Remove(name); err != nil {
			return err
		}
	}
	return g.c.Symlink(target, name)
}
