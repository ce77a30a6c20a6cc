package share

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fill writes attributes into a part of an answer.
func (f *fileSystem) fill(a *fuse.Attr, st *unix.Statx_t, o ownership) {
	a.Ino = f.tree.inode(keyOf(st))
	a.Size, a.Blocks, a.Blksize = st.Size, st.Blocks, st.Blksize
	a.Mode, a.Nlink = uint32(o.typeOf(st)|o.mode), st.Nlink
	a.Uid, a.Gid = o.uid, o.gid
	a.Rdev = uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	if o.device != 0 {
		a.Rdev = o.rdev
	}
	a.Atime, a.Atimensec = uint64(st.Atime.Sec), st.Atime.Nsec
	a.Mtime, a.Mtimensec = uint64(st.Mtime.Sec), st.Mtime.Nsec
	a.Ctime, a.Ctimensec = uint64(st.Ctime.Sec), st.Ctime.Nsec
}

func (f *fileSystem) fillAttr(n *node, out *fuse.AttrOut, st *unix.Statx_t, o ownership) {
	f.fill(&out.Attr, st, o)
	f.tree.tell(n, st)
	out.SetTimeout(f.tree.attrTimeout(n))
	if o.privileged() {
		out.SetTimeout(0) // a write changes the mode, and its answer does not say so
	}
}

// standInAttr answers with the attributes of the root of a share of one file: those of an
// empty directory that anybody may pass through. Nothing in them is the host's.
func (f *fileSystem) standInAttr(out *fuse.AttrOut) {
	out.Ino, out.Nlink, out.Mode = rootID, 2, unix.S_IFDIR|0o555
	out.SetTimeout(staleAfter)
}

// GetAttr implements fuse.RawFileSystem.
func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.nodeFor(statNode, &in.InHeader)
	if err != nil {
		return status(err)
	}
	if f.standIn(n) {
		f.standInAttr(out)
		return fuse.OK
	}
	st, o, err := f.stat(n)
	if err != nil {
		return status(err)
	}
	f.fillAttr(n, out, st, o)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem.
func (f *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.nodeFor(modifyNode, &in.InHeader)
	if err != nil {
		return status(err)
	}
	fd, st, err := f.open(n)
	if err != nil {
		return status(err)
	}
	here, err := f.checkHere(modifyNode, n, fd)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	if fd, st, err = f.separate(n, fd, st, here); err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	defer f.keepMade(n, fd)()
	defer f.changing(n, fd)()
	f.keepNode(n, fd)
	if err := f.setOwner(n, fd, st, in); err != nil {
		return status(err)
	}
	for _, set := range []func(int, *unix.Statx_t, *fuse.SetAttrIn) error{f.setSize, setTimes} {
		if err := set(fd, st, in); err != nil {
			return status(err)
		}
	}
	if st, err = statFD(fd); err != nil {
		return status(err)
	}
	f.tree.rekey(n, st)
	f.fillAttr(n, out, st, f.ownership(n, file{fd: fd}, st))
	return fuse.OK
}

// setOwner is the part of SetAttr for owner, group and mode.
func (f *fileSystem) setOwner(n *node, fd int, st *unix.Statx_t, in *fuse.SetAttrIn) error {
	const all = fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_MODE | fuse.FATTR_KILL_SUIDGID
	if in.Valid&all == 0 {
		return nil
	}
	if in.Valid&fuse.FATTR_MODE != 0 && n.typ == unix.S_IFLNK {
		return unix.EOPNOTSUPP
	}
	defer f.owners.lock(n)()
	had := f.know(n, st, f.owners.read(file{fd: fd}, st))
	want := had.changed(in, n.isDir())
	if want == had && in.Valid&(all&^fuse.FATTR_KILL_SUIDGID) == 0 {
		return nil
	}
	return f.setOwnership(n, fd, st, want)
}

// changed returns the ownership that a request makes of one.
func (o ownership) changed(in *fuse.SetAttrIn, dir bool) ownership {
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 && !dir {
		o = o.withoutPrivileges()
	}
	if in.Valid&fuse.FATTR_MODE != 0 {
		o.mode = uint16(in.Mode) & modeBits
	}
	if in.Valid&fuse.FATTR_UID != 0 && in.Uid != nobody {
		o.uid = in.Uid
	}
	if in.Valid&fuse.FATTR_GID != 0 && in.Gid != nobody {
		o.gid = in.Gid
	}
	return o
}

func (f *fileSystem) setSize(fd int, st *unix.Statx_t, in *fuse.SetAttrIn) error {
	if in.Valid&fuse.FATTR_SIZE == 0 {
		return nil
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if h, ok := in.GetFh(); ok { // which may write what a new descriptor may not
		if h, err := f.handle(h); err == nil {
			defer f.done(h)
			if h.node.id != in.NodeId {
				return unix.EBADF // no kernel sends this: the request was judged by another file
			}
			if h.writable() {
				if err := f.growStore(who{in.Pid}, h, int64(in.Size), false, 0); err != nil {
					return err
				}
				if err := f.beforeWrite(h); err != nil {
					return err
				}
				return unix.Ftruncate(h.fd, int64(in.Size))
			}
		}
	}
	if n, err := f.tree.get(in.NodeId); err == nil && in.Size > st.Size && f.inStore(n) {
		if err := f.roomFor(who{in.Pid}, n, int64(in.Size-st.Size)); err != nil {
			return err
		}
	}
	w, err := reopen(fd, unix.O_WRONLY, st)
	if err != nil {
		return err
	}
	defer unix.Close(w)
	return unix.Ftruncate(w, int64(in.Size))
}

func setTimes(fd int, _ *unix.Statx_t, in *fuse.SetAttrIn) error {
	if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME|fuse.FATTR_ATIME_NOW|fuse.FATTR_MTIME_NOW) == 0 {
		return nil
	}
	at := func(set, now uint32, sec uint64, nsec uint32) unix.Timespec {
		switch {
		case in.Valid&now != 0:
			return unix.Timespec{Nsec: unix.UTIME_NOW}
		case in.Valid&set != 0:
			return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
		}
		return unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	ts := []unix.Timespec{
		at(fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
		at(fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec),
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, magic(fd), ts, 0)
}
