package transfer

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/pkg/sftp"
)

// Guest is a connection to a guest's SFTP server. It counts what the guest sends, because
// the library keeps a whole listing in memory.
type Guest struct {
	*sftp.Client
	received *meter
}

// NewGuest begins SFTP on a connection. The caller closes the Guest, and with it the
// connection.
func NewGuest(conn io.ReadWriteCloser) (*Guest, error) {
	received := &meter{r: conn}
	c, err := sftp.NewClientPipe(received, conn, sftp.UseConcurrentWrites(true))
	if err != nil {
		return nil, err
	}
	return &Guest{c, received}, nil
}

// meter calls a function when more than a number of bytes have been read since it was set.
type meter struct {
	r io.Reader

	mu     sync.Mutex
	left   int64
	exceed func() // nil: nothing is watched
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.left -= int64(n); m.exceed != nil && m.left < 0 {
		m.exceed()
	}
	return n, err
}

// watch sets the bound; without exceed there is none.
func (m *meter) watch(limit int64, exceed func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.left, m.exceed = limit, exceed
}

// guestFiles is the guest's file system over SFTP.
type guestFiles struct {
	c       *Guest
	sandbox string
	ctx     context.Context //nolint:containedctx // of the one copy that it is made for
	listing int64           // bytes of one directory's list
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
	ctx, cancel := context.WithCancelCause(g.ctx)
	defer cancel(nil)
	g.c.received.watch(g.listing, func() { cancel(beyond(g.listing, "bytes in the list of one directory")) })
	list, err := g.c.ReadDirContext(ctx, p)
	g.c.received.watch(0, nil)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
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
