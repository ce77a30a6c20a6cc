package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// createEntry lets create make a file with a name in a directory, by its descriptor, and
// answers with the new entry.
func (f *fileSystem) createEntry(h *fuse.InHeader, n newFile, name string, out *fuse.EntryOut, create func(fd int) error) fuse.Status {
	n.caller = h.Owner
	return f.inDir(h.NodeId, name, func(p place, parent *node) error {
		if err := create(p.dir.fd); err != nil {
			return err
		}
		st, err := statAt(p.dir.fd, name)
		if err == nil {
			err = f.checkMount(p.dir.fd, name, st)
		}
		if err == nil && st.Mode&unix.S_IFMT != n.typ {
			err = unix.ESTALE // replaced on the host
		}
		if err != nil {
			return err
		}
		record, err := f.ownAt(parent, n, p.dir.fd, name, st)
		if err != nil {
			return err
		}
		return f.entryOfNew(parent, name, record, st, out)
	})
}

// inDir lets make make a name in a directory.
func (f *fileSystem) inDir(dir uint64, name string, make func(p place, parent *node) error) fuse.Status {
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
	return status(make(p, parent))
}

// Mknod implements fuse.RawFileSystem. It makes no devices on the host: where bawn runs as
// root, they would lead to the host's. An empty file with a record stands in for one. The
// guest mounts shares without devices (mount(2), MS_NODEV), so it can list and copy them,
// not open them.
func (f *fileSystem) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	n := newFile{typ: uint16(in.Mode & unix.S_IFMT), mode: uint16(in.Mode & modeBits)}
	switch n.typ {
	case 0:
		n.typ = unix.S_IFREG
	case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
	case unix.S_IFBLK, unix.S_IFCHR:
		n.typ, n.device, n.rdev = unix.S_IFREG, n.typ, in.Rdev
	default:
		return fuse.EPERM
	}
	return f.createEntry(&in.InHeader, n, name, out, func(dir int) error {
		return unix.Mknodat(dir, name, uint32(n.typ)|n.hostMode(), 0)
	})
}

// Mkdir implements fuse.RawFileSystem.
func (f *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	n := newFile{typ: unix.S_IFDIR, mode: uint16(in.Mode & (permissions | unix.S_ISVTX))}
	return f.createEntry(&in.InHeader, n, name, out, func(dir int) error {
		return unix.Mkdirat(dir, name, n.hostMode())
	})
}

// Symlink implements fuse.RawFileSystem.
func (f *fileSystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	n := newFile{typ: unix.S_IFLNK, mode: permissions}
	return f.createEntry(h, n, name, out, func(dir int) error { return unix.Symlinkat(target, dir, name) })
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
	return f.inDir(in.NodeId, name, func(p place, parent *node) error {
		if err := unix.Linkat(unix.AT_FDCWD, magic(fd), p.dir.fd, name, unix.AT_SYMLINK_FOLLOW); err != nil {
			return err
		}
		return f.find(p, parent, name, out)
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
	f.tree.pinKnown(p.dir.fd, name, keyOf(st)) // who holds it goes on using it
	if err := unix.Unlinkat(p.dir.fd, name, flags); err != nil {
		return status(err)
	}
	f.gone(parent, name, st)
	return fuse.OK
}

// gone notes that a name was removed, of a file with these attributes before that.
func (f *fileSystem) gone(parent *node, name string, st *unix.Statx_t) {
	if st.Nlink == 1 && !f.owners.hasAttributes(st) {
		f.owners.table.set(keyOf(st), nil)
	}
	f.tree.gone(parent, name, keyOf(st))
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
	if oerr == nil {
		f.tree.pinKnown(pb.dir.fd, to, keyOf(other))
	}
	if err := unix.Renameat2(pa.dir.fd, from, pb.dir.fd, to, uint(in.Flags)); err != nil {
		return status(err)
	}
	switch {
	case oerr != nil || keyOf(other) == keyOf(moved):
	case in.Flags&unix.RENAME_EXCHANGE != 0:
		f.tree.moved(b, to, a, from, keyOf(other))
	default:
		f.gone(b, to, other)
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
