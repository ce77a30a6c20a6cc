package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// createEntry lets create make a name in a directory, by its descriptor, and answers with
// the new entry.
func (f *fileSystem) createEntry(dir uint64, name string, out *fuse.EntryOut, create func(fd int) error) fuse.Status {
	parent, made, err := f.dirToMake(createName, dir, name)
	if err != nil {
		return status(err)
	}
	defer made()
	p, err := f.tree.in(parent)
	if err != nil {
		return status(err)
	}
	defer p.close()
	if err := create(p.dir.fd); err != nil {
		return status(err)
	}
	return status(f.find(p, parent, name, out))
}

// Mknod implements fuse.RawFileSystem. It makes no devices: where bawn runs as root, a
// device node would lead to a device of the host.
func (f *fileSystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	typ := in.Mode & unix.S_IFMT
	switch typ {
	case 0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	default:
		return fuse.EPERM
	}
	return f.createEntry(in.NodeId, name, out, func(dir int) error {
		return unix.Mknodat(dir, name, typ|in.Mode&permissions, 0)
	})
}

// Mkdir implements fuse.RawFileSystem.
func (f *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.createEntry(in.NodeId, name, out, func(dir int) error {
		return unix.Mkdirat(dir, name, in.Mode&(permissions|unix.S_ISVTX))
	})
}

// Symlink implements fuse.RawFileSystem.
func (f *fileSystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.createEntry(h.NodeId, name, out, func(dir int) error { return unix.Symlinkat(target, dir, name) })
}

// Link implements fuse.RawFileSystem.
func (f *fileSystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, err := f.nodeFor(readNode, in.Oldnodeid)
	if err != nil {
		return status(err)
	}
	fd, _, err := f.open(n)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	return f.createEntry(in.NodeId, name, out, func(dir int) error {
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
	parent, err := f.dirFor(changeName, dir, name)
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

// renameFlags are the flags of renameat2(2) that a guest may use: not the one that makes
// whiteouts, which are devices.
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
	if a, err = f.dirFor(changeName, in.NodeId, from); err == nil {
		b, err = f.dirFor(changeName, in.Newdir, to)
	}
	return a, b, err
}
