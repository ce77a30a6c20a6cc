package share

import (
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forRoot is a fileSystem whose files and directories are open to the guest's root whatever
// their modes are, as on a local disk: what the host's user made with less than hostMode
// gets that mode on the host, and keeps its own for the guest in a record. Where the server
// cannot do that (a file of another user, a share that is read-only) the host's answer
// stands, EACCES.
type forRoot struct{ *fileSystem }

// widely calls a request, and again if the host refused it and one of the nodes could be
// widened.
func (f forRoot) widely(h *fuse.InHeader, call func() fuse.Status, nodes ...uint64) fuse.Status {
	st := call()
	if st != fuse.EACCES || h.Uid != 0 {
		return st
	}
	again := false
	for _, id := range nodes {
		again = f.widen(&fuse.InHeader{NodeId: id, Caller: h.Caller}) || again
	}
	if again {
		st = call()
	}
	return st
}

// widen gives a file or directory a mode on the host by which the server can open it. It
// reports whether it had none.
func (f *fileSystem) widen(h *fuse.InHeader) bool {
	n, err := f.nodeFor(modifyNode, h)
	if err != nil {
		return false
	}
	fd, st, err := f.open(n)
	if err != nil {
		return false
	}
	defer func() { unix.Close(fd) }()
	typ := st.Mode & unix.S_IFMT
	if typ != unix.S_IFREG && typ != unix.S_IFDIR || int(st.Uid) != os.Geteuid() || st.Mode&permissions == hostMode(typ, st.Mode) {
		return false
	}
	here, err := f.checkHere(modifyNode, n, fd)
	if err != nil {
		return false
	}
	if fd, st, err = f.separate(n, fd, st, here); err != nil {
		return false
	}
	defer f.changing(n, fd)()
	f.keepNode(n, fd)
	defer f.owners.lock(n)()
	had := f.know(n, st, f.owners.read(file{fd: fd}, st))
	err = f.setOwnership(n, fd, st, had)
	return err == nil
}

// Lookup implements fuse.RawFileSystem, as do the methods below.
func (f forRoot) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	return f.widely(h, func() fuse.Status { return f.fileSystem.Lookup(cancel, h, name, out) }, h.NodeId)
}

func (f forRoot) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.GetAttr(cancel, in, out) }, in.NodeId)
}

func (f forRoot) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.SetAttr(cancel, in, out) }, in.NodeId)
}

func (f forRoot) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Mknod(cancel, in, name, out) }, in.NodeId)
}

func (f forRoot) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Mkdir(cancel, in, name, out) }, in.NodeId)
}

func (f forRoot) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return f.widely(h, func() fuse.Status { return f.fileSystem.Symlink(cancel, h, target, name, out) }, h.NodeId)
}

func (f forRoot) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Link(cancel, in, name, out) }, in.NodeId)
}

func (f forRoot) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.widely(h, func() fuse.Status { return f.fileSystem.Unlink(cancel, h, name) }, h.NodeId)
}

func (f forRoot) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.widely(h, func() fuse.Status { return f.fileSystem.Rmdir(cancel, h, name) }, h.NodeId)
}

func (f forRoot) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Rename(cancel, in, from, to) }, in.NodeId, in.Newdir)
}

func (f forRoot) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Open(cancel, in, out) }, in.NodeId)
}

func (f forRoot) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.OpenDir(cancel, in, out) }, in.NodeId)
}

func (f forRoot) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Create(cancel, in, name, out) }, in.NodeId)
}

func (f forRoot) Tmpfile(cancel <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.Tmpfile(cancel, in, out) }, in.NodeId)
}

func (f forRoot) GetXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (n uint32, st fuse.Status) {
	st = f.widely(h, func() fuse.Status { n, st = f.fileSystem.GetXAttr(cancel, h, name, dest); return st }, h.NodeId)
	return n, st
}

func (f forRoot) SetXAttr(cancel <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	return f.widely(&in.InHeader, func() fuse.Status { return f.fileSystem.SetXAttr(cancel, in, name, data) }, in.NodeId)
}

func (f forRoot) RemoveXAttr(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.widely(h, func() fuse.Status { return f.fileSystem.RemoveXAttr(cancel, h, name) }, h.NodeId)
}
