package share

import (
	"errors"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// handle is a file or directory that the guest has open.
type handle struct {
	id    uint64
	node  *node
	fd    int // -1: it could not be opened again
	flags int // of open(2)

	users    int // guarded by fileSystem.mu
	released bool

	stored bool                   // the file is a private version, or lies in one
	asks   bool                   // what applies to it depends on who made it (made.go)
	path   atomic.Pointer[string] // that the file had on the host when it was judged last (here.go)

	wrote atomic.Bool   // the guest changed the file through it
	kept  atomic.Uint64 // generation of the restore point in which it was recorded (keep.go)
	noted atomic.Int64  // when its state was noted for undo (Unix time, ns)
	due   atomic.Bool   // the request that ends next notes its state

	dir dirReader
}

func (h *handle) writable() bool { return h.flags&unix.O_ACCMODE != unix.O_RDONLY }

// add keeps an open descriptor for the guest. judged is the path on the host by which it may change the file
// (handle.path), or nil.
func (f *fileSystem) add(n *node, fd, flags int, judged *string) (*handle, error) {
	stored := f.inStore(n)
	f.mu.Lock()
	if len(f.handles) >= f.maxHandles {
		f.mu.Unlock()
		return nil, unix.ENFILE
	}
	f.nextHandle++
	h := &handle{id: f.nextHandle, node: n, fd: fd, flags: flags, stored: stored, asks: !n.isDir() && f.asksMade(n)}
	h.path.Store(judged)
	f.handles[h.id] = h
	f.mu.Unlock()

	f.tree.opened(h)
	return h, nil
}

// handle returns an open file for use. The caller ends that with done.
func (f *fileSystem) handle(id uint64) (*handle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.handles[id]
	if h == nil {
		return nil, unix.EBADF
	}
	if h.fd < 0 {
		return nil, unix.ESTALE
	}
	h.users++
	return h, nil
}

// handleFor is handle for an operation on the open file's node, if the share allows it.
func (f *fileSystem) handleFor(o operation, id uint64) (*handle, error) {
	if err := f.checkShare(o); err != nil { // also for a file that is not open
		return nil, err
	}
	h, err := f.handle(id)
	if err != nil {
		return nil, err
	}
	if err := f.check(o, h.node, ""); err != nil {
		f.done(h)
		return nil, err
	}
	return h, nil
}

// done ends the use of a handle. It closes one that was released meanwhile.
func (f *fileSystem) done(h *handle) {
	f.mu.Lock()
	h.users--
	last := h.released && h.users == 0
	f.mu.Unlock()
	if last { // without the mutex: on a network mount it may hang
		unix.Close(h.fd) // no error that matters: it may be -1
	}
}

func (f *fileSystem) release(id uint64) {
	f.mu.Lock()
	h := f.handles[id]
	delete(f.handles, id)
	f.mu.Unlock()
	if h == nil {
		return
	}
	f.listings.drop(&h.dir)
	if h.wrote.Load() {
		f.noteOwn(h)
		f.storeMade(h)
	}
	f.tree.mu.Lock() // before the descriptor is closed: open looks here
	delete(h.node.handles, h)
	f.tree.drop(h.node)
	f.tree.mu.Unlock()

	f.mu.Lock()
	h.released = true
	last := h.users == 0
	f.mu.Unlock()
	if last {
		unix.Close(h.fd)
	}
}

// passedFlags are the open(2) flags of the guest that concern the host. The
// guest's kernel does O_APPEND by the offset of each write, and O_DIRECT has
// rules of alignment that need not hold here.
const passedFlags = unix.O_ACCMODE | unix.O_TRUNC | unix.O_SYNC | unix.O_DSYNC

// Open implements fuse.RawFileSystem.
func (f *fileSystem) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	flags := int(in.Flags) & passedFlags
	writable := flags&unix.O_ACCMODE != unix.O_RDONLY
	op := readNode
	if writable || flags&unix.O_TRUNC != 0 {
		op = modifyNode
	}
	n, err := f.nodeFor(op, &in.InHeader)
	if err != nil {
		return status(err)
	}
	fd, st, judged, err := f.openNode(n, flags, op == modifyNode)
	if err != nil {
		return status(err)
	}
	if in.Mode&fuse.OPEN_KILL_SUIDGID != 0 && op == modifyNode {
		err = f.dropPrivileges(n, fd)
	}
	if writable {
		if now, err := statFD(fd); err == nil {
			f.tree.rekey(n, now)
		}
	}
	var h *handle
	if err == nil {
		h, err = f.add(n, fd, flags, judged)
	}
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	out.Fh = h.id
	if flags&unix.O_TRUNC != 0 {
		h.wrote.Store(true)
	}
	if flags&unix.O_TRUNC == 0 && f.unchanged(n, st) {
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// openNode opens a node's file with flags of open(2), and returns its state before. With
// modify, a file whose hard links lead out is copied first; what O_TRUNC drops is kept for
// an undo; and judged is the path that was judged (handle.path), or nil.
func (f *fileSystem) openNode(n *node, flags int, modify bool) (fd int, st *unix.Statx_t, judged *string, err error) {
	place, st, err := f.openByName(n)
	if err != nil {
		return -1, nil, nil, err
	}
	defer func() { unix.Close(place) }()
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return -1, nil, nil, unix.EISDIR
	}
	if flags&unix.O_TRUNC == 0 && f.tree.outdated(n, st) {
		f.reopened.Add(1)
		return -1, nil, nil, unix.ESTALE
	}
	op := readNode
	if modify {
		op = modifyNode
	}
	here, err := f.checkHere(op, n, place)
	if err != nil {
		return -1, nil, nil, err
	}
	if modify {
		if place, st, err = f.separate(n, place, st, here); err != nil {
			return -1, nil, nil, err
		}
		judged = f.free(here)
	}
	if flags&unix.O_TRUNC != 0 {
		defer f.changing(n, place)()
		f.keepNode(n, place)
		f.tree.changedByGuest(n)
		defer f.keepMade(n, place)()
	}
	fd, err = reopen(place, flags, st)
	return fd, st, judged, err
}

// Create implements fuse.RawFileSystem.
func (f *fileSystem) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) (code fuse.Status) {
	parent, done, err := f.dirToMake(createName, in.NodeId, name)
	if err != nil {
		return status(err)
	}
	defer done()
	f.moves.RLock()
	defer f.moves.RUnlock()
	s, err := f.toChange(who{in.Pid}, parent, name, true, false)
	if err != nil {
		return status(err)
	}
	defer s.close()
	room := s.makeRoom()
	defer func() { room(asError(code)) }()
	flags := int(in.Flags) & passedFlags
	asked := newFile{caller: in.Owner, typ: unix.S_IFREG, mode: uint16(in.Mode & modeBits)}
	defer f.lockNames(spot{parent, name})()
	f.keepName(parent, &s, name, nil)
	defer f.leftName(&s) // also if nothing is made
	fd, err := unix.Openat(s.dir.fd, s.name, flags|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, asked.hostMode())
	if errors.Is(err, unix.EEXIST) && in.Flags&unix.O_EXCL == 0 {
		return f.openExisting(&s, parent, in, name, out)
	}
	if err != nil {
		return status(err)
	}
	st, err := statFD(fd)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	file := keyOf(st)
	record, err := f.own(parent, asked, func() (int, error) { return fd, nil }, st)
	if err != nil {
		f.discard(s.dir.fd, s.name, file)
		unix.Close(fd)
		return status(err)
	}
	f.leftNameAs(&s, st)
	f.noteMade(&s, name)
	return f.opened(parent, name, s.slot, made{fd, record, st, s.judged(name)}, flags, out)
}

// openExisting is Create of a name that another process has made meanwhile. It is an Open.
func (f *fileSystem) openExisting(s *spotAt, parent *node, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if err := f.find(s, parent, name, &out.EntryOut); err != nil { // a file may be mounted there
		return status(err)
	}
	flags := int(in.Flags) & passedFlags
	n, err := f.tree.get(out.NodeId)
	if err != nil {
		return status(err)
	}
	fd, _, judged, err := f.openNode(n, flags, flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0)
	if err == nil {
		var h *handle
		if h, err = f.add(n, fd, flags, judged); err == nil {
			out.Fh = h.id
			return fuse.OK
		}
		unix.Close(fd)
	}
	f.tree.forget(out.NodeId, 1)
	return status(err)
}

// made is a file that was just made and is open.
type made struct {
	fd     int
	record *ownership
	st     *unix.Statx_t
	judged *string // handle.path
}

// opened makes the answer to Create. It takes over the descriptor of the file.
func (f *fileSystem) opened(parent *node, name string, slot bool, m made, flags int, out *fuse.CreateOut) fuse.Status {
	if err := f.entryOfNew(parent, name, slot, m.record, m.st, &out.EntryOut); err != nil {
		unix.Close(m.fd)
		return status(err)
	}
	n, err := f.tree.get(out.NodeId)
	if err == nil {
		var h *handle
		if h, err = f.add(n, m.fd, flags, m.judged); err == nil {
			out.Fh = h.id
			return fuse.OK
		}
		f.tree.forget(out.NodeId, 1)
	}
	unix.Close(m.fd)
	return status(err)
}

// Tmpfile implements fuse.RawFileSystem.
func (f *fileSystem) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	parent, done, err := f.dirToMake(createUnnamed, in.NodeId, "")
	if err != nil {
		return status(err)
	}
	defer done()
	f.moves.RLock()
	defer f.moves.RUnlock()
	s, err := f.toChange(who{in.Pid}, parent, "", true, false)
	if err != nil {
		return status(err)
	}
	defer s.close()
	flags := int(in.Flags)&passedFlags | int(in.Flags)&unix.O_EXCL
	asked := newFile{caller: in.Owner, typ: unix.S_IFREG, mode: uint16(in.Mode & modeBits)}
	fd, err := unix.Openat(s.dir.fd, ".", flags|unix.O_TMPFILE|unix.O_CLOEXEC, asked.hostMode())
	if err != nil {
		return status(err)
	}
	st, err := statFD(fd)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	record, err := f.own(parent, asked, func() (int, error) { return fd, nil }, st)
	if err != nil {
		unix.Close(fd)
		return status(err)
	}
	if st := f.opened(nil, "", false, made{fd, record, st, nil}, flags, out); st != fuse.OK || !s.private {
		return st
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h := f.handles[out.Fh]; h != nil {
		h.stored = true
	}
	return fuse.OK
}

// Release implements fuse.RawFileSystem.
func (f *fileSystem) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { f.release(in.Fh) }

// ReleaseDir implements fuse.RawFileSystem.
func (f *fileSystem) ReleaseDir(in *fuse.ReleaseIn) { f.release(in.Fh) }

// content is the answer to Read: it reads straight into the guest's memory.
type content struct {
	fs  *fileSystem
	h   *handle
	off int64
	n   int
}

func (c *content) Size() int { return c.n }
func (c *content) Done()     { c.fs.done(c.h) }

func (c *content) Bytes(buf []byte) ([]byte, fuse.Status) {
	n, err := unix.Pread(c.h.fd, buf[:min(len(buf), c.n)], c.off)
	return buf[:max(n, 0)], status(err)
}

// Readv is called by go-fuse in place of Bytes.
func (c *content) Readv(dst [][]byte) (int, fuse.Status) {
	n, err := unix.Preadv(c.h.fd, dst, c.off)
	return max(n, 0), status(err)
}

// Read implements fuse.RawFileSystem.
func (f *fileSystem) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	h, err := f.handle(in.Fh)
	if err != nil {
		return nil, status(err)
	}
	if err := f.mayRead(h); err != nil {
		f.done(h)
		return nil, status(err)
	}
	return &content{f, h, int64(in.Offset), int(in.Size)}, fuse.OK
}

// Write implements fuse.RawFileSystem.
func (f *fileSystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	return f.Writev(cancel, in, [][]byte{data})
}

// rwfAppend is RWF_APPEND (pwritev2(2)).
const rwfAppend = 0x10

// Writev implements fuse.RawFileSystem.
func (f *fileSystem) Writev(_ <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	h, err := f.handleFor(modifyNode, in.Fh)
	if err != nil {
		return 0, status(err)
	}
	defer f.done(h)
	total := uint64(0)
	for _, d := range data {
		total += uint64(len(d))
	}
	if err := f.space.take(total, 0); err != nil {
		return 0, status(err)
	}
	defer f.space.give(total, 0)
	done, err := f.beginWrite(h)
	if err != nil {
		return 0, status(err)
	}
	defer done()
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 {
		if err := f.dropPrivileges(h.node, h.fd); err != nil {
			return 0, status(err)
		}
	}
	if err := f.growStore(who{in.Pid}, h, int64(in.Offset)+int64(total), in.Flags&unix.O_APPEND != 0, int64(total)); err != nil {
		return 0, status(err)
	}
	flags := 0
	if in.Flags&unix.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0 {
		flags = rwfAppend // also after what the host appended; a page of a mapping has its own place
	}
	if h.asks {
		defer f.keepMade(h.node, h.fd)()
	}
	f.tree.changedBy(h)
	n, err := unix.Pwritev2(h.fd, data, int64(in.Offset), flags)
	f.leftHandle(h)
	return uint32(max(n, 0)), status(err)
}

// Lseek implements fuse.RawFileSystem: only SEEK_DATA and SEEK_HOLE come here.
func (f *fileSystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, err := f.handle(in.Fh)
	if err != nil {
		return status(err)
	}
	defer f.done(h)
	if h.node.isDir() || in.Whence != unix.SEEK_DATA && in.Whence != unix.SEEK_HOLE {
		return fuse.EINVAL
	}
	off, err := unix.Seek(h.fd, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(max(off, 0))
	return status(err)
}

// maxCopy bounds the time that one request takes, in bytes to copy.
const maxCopy = 256 << 20

// CopyFileRange implements fuse.RawFileSystem.
func (f *fileSystem) CopyFileRange(_ <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	from, err := f.handleFor(readNode, in.FhIn)
	if err != nil {
		return 0, status(err)
	}
	defer f.done(from)
	to, err := f.handleFor(modifyNode, in.FhOut)
	if err != nil {
		return 0, status(err)
	}
	defer f.done(to)
	if err := f.mayRead(from); err != nil {
		return 0, status(err)
	}
	n := int(min(in.Len, maxCopy))
	if err := f.space.take(uint64(n), 0); err != nil {
		return 0, status(err)
	}
	defer f.space.give(uint64(n), 0)
	if err := f.growStore(who{in.Pid}, to, int64(in.OffOut)+int64(n), false, 0); err != nil {
		return 0, status(err)
	}
	done, err := f.beginWrite(to)
	if err != nil {
		return 0, status(err)
	}
	defer done()
	if in.Uid != 0 {
		if err := f.dropPrivileges(to.node, to.fd); err != nil {
			return 0, status(err)
		}
	}
	if to.asks {
		defer f.keepMade(to.node, to.fd)()
	}
	f.tree.changedBy(to)
	offIn, offOut := int64(in.OffIn), int64(in.OffOut)
	n, err = unix.CopyFileRange(from.fd, &offIn, to.fd, &offOut, n, 0)
	f.leftHandle(to)
	return uint32(max(n, 0)), status(err)
}

// Flush is not needed: all writes are passed on at once.
func (f *fileSystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Access is not needed: the guest's kernel decides by mode and owner.
func (f *fileSystem) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// fsyncData is FUSE_FSYNC_FDATASYNC.
const fsyncData = 1

// Fsync implements fuse.RawFileSystem.
func (f *fileSystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, err := f.handle(in.Fh)
	if err != nil {
		return status(err)
	}
	defer f.done(h)
	if in.FsyncFlags&fsyncData != 0 {
		return status(unix.Fdatasync(h.fd))
	}
	return status(unix.Fsync(h.fd))
}

// FsyncDir implements fuse.RawFileSystem.
func (f *fileSystem) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return f.Fsync(cancel, in)
}

// Fallocate implements fuse.RawFileSystem.
func (f *fileSystem) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, err := f.handleFor(modifyNode, in.Fh)
	if err != nil {
		return status(err)
	}
	defer f.done(h)
	if in.Mode&unix.FALLOC_FL_PUNCH_HOLE == 0 {
		if err := f.space.take(in.Length, 0); err != nil {
			return status(err)
		}
		defer f.space.give(in.Length, 0)
	}
	if err := f.growStore(who{in.Pid}, h, int64(in.Offset)+int64(in.Length), false, 0); err != nil {
		return status(err)
	}
	done, err := f.beginWrite(h)
	if err != nil {
		return status(err)
	}
	defer done()
	if in.Uid != 0 {
		if err := f.dropPrivileges(h.node, h.fd); err != nil {
			return status(err)
		}
	}
	if h.asks {
		defer f.keepMade(h.node, h.fd)()
	}
	f.tree.changedBy(h)
	err = unix.Fallocate(h.fd, in.Mode, int64(in.Offset), int64(in.Length))
	f.leftHandle(h)
	return status(err)
}
