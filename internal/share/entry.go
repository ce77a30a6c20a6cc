package share

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// createEntry lets create make a file with a name in a directory, by its descriptor, and
// answers with the new entry.
func (f *fileSystem) createEntry(h *fuse.InHeader, n newFile, name string, out *fuse.EntryOut, create func(fd int, name string) error) fuse.Status {
	n.caller = h.Owner
	return f.inDir(h, name, n.typ, n.target, func(s *spotAt, parent *node) error {
		if err := create(s.dir.fd, s.name); err != nil {
			return err
		}
		st, err := statAt(s.dir.fd, s.name)
		if err == nil {
			err = f.checkMount(s.dir.fd, s.name, st)
		}
		if err == nil && st.Mode&unix.S_IFMT != n.typ {
			err = unix.ESTALE // replaced on the host
		}
		if err != nil {
			return err
		}
		record, err := f.ownAt(parent, n, s.dir.fd, s.name, st)
		if err != nil {
			return err
		}
		f.leftNameAs(s, st)
		f.noteMade(s, name)
		return f.entryOfNew(parent, name, s.slot, record, st, out)
	})
}

// inDir lets make make a name of a type (S_IFMT) in a directory. target is that of a symbolic link.
func (f *fileSystem) inDir(h *fuse.InHeader, name string, typ uint16, target string, make func(s *spotAt, parent *node) error) fuse.Status {
	parent, made, err := f.dirToMake(createName, h.NodeId, name)
	if err != nil {
		return status(err)
	}
	defer made()
	f.moves.RLock()
	defer f.moves.RUnlock()
	s, err := f.toChange(who{h.Pid}, parent, name, true, typ == unix.S_IFDIR)
	if err != nil {
		return status(err)
	}
	defer s.close()
	if err := f.checkNew(who{h.Pid}, &s, name, typ, target); err != nil {
		return status(err)
	}
	done := s.makeRoom()
	defer f.lockNames(spot{parent, name})()
	f.keepName(parent, &s, name, nil)
	err = make(&s, parent)
	f.leftName(&s)
	done(err)
	return status(err)
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
	return f.createEntry(&in.InHeader, n, name, out, func(dir int, name string) error {
		return unix.Mknodat(dir, name, uint32(n.typ)|n.hostMode(), 0)
	})
}

// Mkdir implements fuse.RawFileSystem.
func (f *fileSystem) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	n := newFile{typ: unix.S_IFDIR, mode: uint16(in.Mode & (permissions | unix.S_ISVTX))}
	return f.createEntry(&in.InHeader, n, name, out, func(dir int, name string) error {
		return f.makeDir(dir, name, n.hostMode())
	})
}

// Symlink implements fuse.RawFileSystem.
func (f *fileSystem) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	n := newFile{typ: unix.S_IFLNK, mode: permissions, target: target}
	return f.createEntry(h, n, name, out, func(dir int, name string) error { return unix.Symlinkat(target, dir, name) })
}

// Link implements fuse.RawFileSystem.
func (f *fileSystem) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	n, err := f.nodeFor(readNode, &fuse.InHeader{NodeId: in.Oldnodeid, Caller: in.Caller})
	if err != nil {
		return status(err)
	}
	private, err := f.mayLink(who{in.Pid}, n)
	if err != nil {
		return status(err)
	}
	fd, st, err := f.open(n)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	if _, err := f.checkHere(modifyNode, n, fd); err != nil {
		return status(err)
	}
	target := ""
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target = targetOf(fd, "")
	}
	return f.inDir(&in.InHeader, name, st.Mode&unix.S_IFMT, target, func(s *spotAt, parent *node) error {
		if s.private != private {
			return unix.EXDEV
		}
		f.separator.names.RLock()
		err := unix.Linkat(unix.AT_FDCWD, magic(fd), s.dir.fd, s.name, unix.AT_SYMLINK_FOLLOW)
		f.separator.names.RUnlock()
		if err != nil {
			return err
		}
		if st.Nlink == 0 {
			f.nameHandles(n, s.dir.fd, s.name)
		}
		return f.find(s, parent, name, out)
	})
}

// Unlink implements fuse.RawFileSystem.
func (f *fileSystem) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h, name, 0)
}

// Rmdir implements fuse.RawFileSystem.
func (f *fileSystem) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h, name, unix.AT_REMOVEDIR)
}

func (f *fileSystem) remove(h *fuse.InHeader, name string, flags int) fuse.Status {
	parent, err := f.dirFor(changeName, h.NodeId, name)
	if err != nil {
		return status(err)
	}
	f.moves.RLock()
	defer f.moves.RUnlock()
	s, err := f.toChange(who{h.Pid}, parent, name, false, flags != 0)
	if err != nil {
		return status(err)
	}
	defer s.close()
	st, err := statAt(s.dir.fd, s.name)
	if err == nil && flags != 0 && f.holdsVersions(&s, name) {
		err = unix.ENOTEMPTY
	}
	if err != nil {
		return status(err)
	}
	f.tree.pinKnown(s.dir.fd, s.name, keyOf(st)) // who holds it goes on using it
	defer f.lockNames(spot{parent, name})()
	f.keepName(parent, &s, name, st)
	f.separator.names.RLock()
	err = unix.Unlinkat(s.dir.fd, s.name, flags)
	f.separator.names.RUnlock()
	if err == nil {
		f.leftNameAs(&s, nil)
	}
	f.leftName(&s)
	if errors.Is(err, unix.ENOTEMPTY) && f.vanish(parent, &s, name, st) {
		return fuse.OK
	}
	if err != nil {
		return status(err)
	}
	f.gone(parent, name, st)
	if flags != 0 {
		f.vanished.back(keyOf(st))
		f.dropVersions(&s, name)
	}
	return status(f.left(&s, name))
}

// gone notes that a name was removed, of a file with these attributes before that.
func (f *fileSystem) gone(parent *node, name string, st *unix.Statx_t) {
	if st.Nlink == 1 && !f.owners.hasAttributes(st) {
		f.owners.table.set(keyOf(st), nil)
	}
	f.tree.gone(parent, name, keyOf(st))
}
