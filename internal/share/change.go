package share

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// enter makes a name in a directory and answers with what is there then.
func (f *fileSystem) enter(dir uint64, name string, out *fuse.EntryOut, how func(fd int) error) fuse.Status {
	parent, err := f.tree.dir(dir)
	if err == nil {
		err = f.grow(parent, name)
	}
	if err != nil {
		return status(err)
	}
	p, err := f.tree.in(parent)
	if err != nil {
		return status(err)
	}
	defer p.close()
	if err := how(p.dir.fd); err != nil {
		return status(err)
	}
	return status(f.find(p, parent, name, out))
}

// Mknod implements fuse.RawFileSystem. There are no devices: a node that root
// on the host would make is one of the host's.
func (f *fileSystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	typ := in.Mode & unix.S_IFMT
	switch typ {
	case 0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return fuse.EPERM
	}
	return f.enter(in.NodeId, name, out, func(dir int) error {
		return unix.Mknodat(dir, name, typ|in.Mode&permissions, 0)
	})
}

// Mkdir implements fuse.RawFileSystem.
func (f *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.enter(in.NodeId, name, out, func(dir int) error {
		return unix.Mkdirat(dir, name, in.Mode&(permissions|unix.S_ISVTX))
	})
}

// Symlink implements fuse.RawFileSystem.
func (f *fileSystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.enter(h.NodeId, name, out, func(dir int) error { return unix.Symlinkat(target, dir, name) })
}

// Link implements fuse.RawFileSystem.
func (f *fileSystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, err := f.tree.get(in.Oldnodeid)
	if err != nil {
		return status(err)
	}
	fd, _, err := f.open(n)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	return f.enter(in.NodeId, name, out, func(dir int) error {
		return unix.Linkat(unix.AT_FDCWD, magic(fd), dir, name, unix.AT_SYMLINK_FOLLOW)
	})
}

// Unlink implements fuse.RawFileSystem.
func (f *fileSystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h.NodeId, name, 0)
}

// Rmdir implements fuse.RawFileSystem.
func (f *fileSystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h.NodeId, name, unix.AT_REMOVEDIR)
}

func (f *fileSystem) remove(dir uint64, name string, flags int) fuse.Status {
	parent, err := f.tree.dir(dir)
	if err == nil {
		err = f.change(parent, name)
	}
	if err != nil {
		return status(err)
	}
	p, err := f.tree.in(parent)
	if err != nil {
		return status(err)
	}
	defer p.close()
	st, err := statAt(p.dir.fd, name)
	if err != nil {
		return status(err)
	}
	if err := unix.Unlinkat(p.dir.fd, name, flags); err != nil {
		return status(err)
	}
	f.tree.gone(parent, name, keyOf(st))
	return fuse.OK
}

// renameFlags are what renameat2(2) may be asked: not to make whiteouts, which
// are devices.
const renameFlags = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE

// Rename implements fuse.RawFileSystem.
func (f *fileSystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&^uint32(renameFlags) != 0 {
		return fuse.EINVAL
	}
	a, b, err := f.renameDirs(in, from, to)
	if err != nil {
		return status(err)
	}
	pa, err := f.tree.in(a)
	if err != nil {
		return status(err)
	}
	defer pa.close()
	pb, err := f.tree.in(b)
	if err != nil {
		return status(err)
	}
	defer pb.close()
	moved, err := statAt(pa.dir.fd, from)
	if err != nil {
		return status(err)
	}
	other, oerr := statAt(pb.dir.fd, to)
	if err := unix.Renameat2(pa.dir.fd, from, pb.dir.fd, to, uint(in.Flags)); err != nil {
		return status(err)
	}
	switch {
	case oerr != nil || keyOf(other) == keyOf(moved):
	case in.Flags&unix.RENAME_EXCHANGE != 0:
		f.tree.moved(b, to, a, from, keyOf(other))
	default:
		f.tree.gone(b, to, keyOf(other))
	}
	f.tree.moved(a, from, b, to, keyOf(moved))
	return fuse.OK
}

func (f *fileSystem) renameDirs(in *fuse.RenameIn, from, to string) (a, b *node, err error) {
	if a, err = f.tree.dir(in.NodeId); err != nil {
		return nil, nil, err
	}
	if b, err = f.tree.dir(in.Newdir); err != nil {
		return nil, nil, err
	}
	if err = f.change(a, from); err == nil {
		err = f.change(b, to)
	}
	return a, b, err
}

// userAttributes is the name space that a guest may use. The others have a
// meaning for the host: capabilities, labels, access lists.
const userAttributes = "user."

// maxAttributeList is XATTR_LIST_MAX (linux/limits.h), in bytes.
const maxAttributeList = 65536

// onAttributes opens a node for a system call on its extended attributes.
func (f *fileSystem) onAttributes(id uint64, how func(path string) (int, error)) (int, fuse.Status) {
	n, err := f.tree.get(id)
	if err != nil {
		return 0, status(err)
	}
	fd, _, err := f.open(n)
	if err != nil {
		return 0, status(err)
	}
	defer unix.Close(fd)
	got, err := how(magic(fd))
	return max(got, 0), status(err)
}

// GetXAttr implements fuse.RawFileSystem.
func (f *fileSystem) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if !strings.HasPrefix(name, userAttributes) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	n, st := f.onAttributes(h.NodeId, func(path string) (int, error) { return unix.Getxattr(path, name, dest) })
	return uint32(n), st
}

// ListXAttr implements fuse.RawFileSystem.
func (f *fileSystem) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	buf := make([]byte, maxAttributeList)
	n, st := f.onAttributes(h.NodeId, func(path string) (int, error) { return unix.Listxattr(path, buf) })
	if st != fuse.OK {
		return 0, st
	}
	var list []byte
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if strings.HasPrefix(name, userAttributes) {
			list = append(append(list, name...), 0)
		}
	}
	if len(dest) > 0 && len(list) > len(dest) {
		return uint32(len(list)), fuse.ERANGE
	}
	copy(dest, list)
	return uint32(len(list)), fuse.OK
}

// SetXAttr implements fuse.RawFileSystem.
func (f *fileSystem) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	switch {
	case f.readOnly:
		return fuse.EROFS
	case !strings.HasPrefix(name, userAttributes):
		return fuse.Status(unix.EOPNOTSUPP)
	}
	if err := f.space.take(len(data)); err != nil {
		return status(err)
	}
	_, st := f.onAttributes(in.NodeId, func(path string) (int, error) {
		return 0, unix.Setxattr(path, name, data, int(in.Flags))
	})
	return st
}

// RemoveXAttr implements fuse.RawFileSystem.
func (f *fileSystem) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	switch {
	case f.readOnly:
		return fuse.EROFS
	case !strings.HasPrefix(name, userAttributes):
		return fuse.Status(unix.EOPNOTSUPP)
	}
	_, st := f.onAttributes(h.NodeId, func(path string) (int, error) { return 0, unix.Removexattr(path, name) })
	return st
}
