package share

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// fileSystem answers requests. What it does not name, go-fuse answers ENOSYS.
type fileSystem struct {
	fuse.RawFileSystem

	file     string // the only name in the root, if not empty
	readOnly bool
	tree     *tree
	space    *space

	mu         sync.Mutex
	handles    map[uint64]*handle
	nextHandle uint64
	maxHandles int
}

// Shares of the process's file descriptors.
const (
	maxOpenDirs = 16384
	maxHandles  = 65536
	maxNodes    = 2 << 20 // about 0.5 GB of memory
)

func newFileSystem(o Options) (*fileSystem, error) {
	// The path was resolved when the share was asked for. A link in it now was
	// put there since, maybe by a guest that may write above this directory.
	fd, err := unix.Openat2(unix.AT_FDCWD, o.Root, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Root, err)
	}
	st, err := statFD(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", o.Root, err)
	}
	limit := fileLimit()
	return &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		file:          o.File,
		readOnly:      o.ReadOnly,
		tree:          newTree(&node{key: keyOf(st), typ: unix.S_IFDIR}, fd, min(maxOpenDirs, limit/4)),
		space:         newSpace(fd),
		handles:       map[uint64]*handle{},
		maxHandles:    min(maxHandles, limit/2),
	}, nil
}

func (f *fileSystem) String() string { return "bawn" }

// status turns an error of a system call into FUSE's.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// change says whether a directory may be changed.
func (f *fileSystem) change(dir *node, names ...string) error {
	if f.readOnly {
		return unix.EROFS
	}
	for _, n := range names {
		if err := checkName(n); err != nil {
			return err
		}
	}
	if f.file != "" && dir == f.tree.root {
		return unix.EPERM
	}
	return nil
}

// grow is change for what takes up room.
func (f *fileSystem) grow(dir *node, names ...string) error {
	if err := f.change(dir, names...); err != nil {
		return err
	}
	return f.space.takeInode()
}

func (f *fileSystem) fill(a *fuse.Attr, st *unix.Statx_t) {
	a.Ino = f.tree.inode(keyOf(st))
	a.Size, a.Blocks, a.Blksize = st.Size, st.Blocks, st.Blksize
	a.Mode, a.Nlink = uint32(st.Mode), st.Nlink
	a.Uid, a.Gid = st.Uid, st.Gid
	a.Rdev = uint32(unix.Mkdev(st.Rdev_major, st.Rdev_minor))
	a.Atime, a.Atimensec = uint64(st.Atime.Sec), st.Atime.Nsec
	a.Mtime, a.Mtimensec = uint64(st.Mtime.Sec), st.Mtime.Nsec
	a.Ctime, a.Ctimensec = uint64(st.Ctime.Sec), st.Ctime.Nsec
}

func (f *fileSystem) fillAttr(out *fuse.AttrOut, st *unix.Statx_t) {
	f.fill(&out.Attr, st)
	out.SetTimeout(staleAfter)
}

// entry makes the answer to a name that was found.
func (f *fileSystem) entry(parent *node, name string, st *unix.Statx_t, out *fuse.EntryOut) error {
	f.tree.mu.Lock()
	full := len(f.tree.byID) >= maxNodes
	f.tree.mu.Unlock()
	if full {
		return unix.ENFILE
	}
	n := f.tree.seen(parent, name, keyOf(st), st.Mode&unix.S_IFMT)
	out.NodeId = n.id
	f.fill(&out.Attr, st)
	out.SetEntryTimeout(staleAfter)
	out.SetAttrTimeout(staleAfter)
	return nil
}

// find looks a name up and makes the answer.
func (f *fileSystem) find(p place, parent *node, name string, out *fuse.EntryOut) error {
	st, err := statAt(p.dir.fd, name)
	if err != nil {
		return err
	}
	return f.entry(parent, name, st, out)
}

// Lookup implements fuse.RawFileSystem.
func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.tree.dir(h.NodeId)
	if err == nil {
		err = checkName(name)
	}
	if err != nil {
		return status(err)
	}
	if f.file != "" && parent == f.tree.root && name != f.file {
		return fuse.ENOENT
	}
	p, err := f.tree.in(parent)
	if err != nil {
		return status(err)
	}
	defer p.close()
	err = f.find(p, parent, name, out)
	if errors.Is(err, unix.ENOENT) {
		out.NodeId = 0 // may be remembered as well
		out.SetEntryTimeout(staleAfter)
		return fuse.OK
	}
	return status(err)
}

// Forget implements fuse.RawFileSystem.
func (f *fileSystem) Forget(id, lookups uint64) { f.tree.forget(id, lookups) }

// open returns an O_PATH descriptor of a node. The caller closes it.
func (f *fileSystem) open(n *node) (int, *unix.Statx_t, error) {
	fd, st, err := f.openPlace(n)
	if err == nil || !errors.Is(err, unix.ESTALE) {
		return fd, st, err
	}
	// No name leads there any more, but the guest may have it open.
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	for h := range n.handles {
		if h.fd < 0 {
			continue
		}
		if fd, err := unix.FcntlInt(uintptr(h.fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			st, err := statFD(fd)
			return fd, st, err
		}
	}
	return -1, nil, unix.ESTALE
}

func (f *fileSystem) openPlace(n *node) (int, *unix.Statx_t, error) {
	p, err := f.tree.at(n)
	if err != nil {
		return -1, nil, err
	}
	defer p.close()
	name := p.name
	if name == "" {
		name = "."
	}
	fd, err := unix.Openat(p.dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, stale(err)
	}
	st, err := statFD(fd)
	if err == nil && keyOf(st) != n.key {
		err = unix.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}

// magic is the path of an open descriptor: what it leads to cannot change.
func magic(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens the file or directory at an O_PATH descriptor.
func reopen(fd, flags int, st *unix.Statx_t) (int, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		return unix.Open(magic(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	}
	return -1, unix.EACCES // the guest has its own FIFOs and devices
}

// stat finds a node's attributes.
func (f *fileSystem) stat(n *node) (*unix.Statx_t, error) {
	p, err := f.tree.at(n)
	if err == nil {
		st, err := statAt(p.dir.fd, p.name)
		p.close()
		if err == nil && keyOf(st) == n.key {
			return st, nil
		}
	}
	fd, st, err := f.open(n)
	if err == nil {
		unix.Close(fd)
	}
	return st, err
}

// GetAttr implements fuse.RawFileSystem.
func (f *fileSystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.tree.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	st, err := f.stat(n)
	if err != nil {
		return status(err)
	}
	f.fillAttr(out, st)
	return fuse.OK
}

// SetAttr implements fuse.RawFileSystem.
func (f *fileSystem) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.readOnly {
		return fuse.EROFS
	}
	n, err := f.tree.get(in.NodeId)
	if err != nil {
		return status(err)
	}
	fd, st, err := f.open(n)
	if err != nil {
		return status(err)
	}
	defer unix.Close(fd)
	for _, set := range []func(int, *unix.Statx_t, *fuse.SetAttrIn) error{checkOwner, setMode, f.setSize, setTimes} {
		if err := set(fd, st, in); err != nil {
			return status(err)
		}
	}
	if st, err = statFD(fd); err != nil {
		return status(err)
	}
	f.fillAttr(out, st)
	return fuse.OK
}

// checkOwner lets nothing be given away.
func checkOwner(_ int, st *unix.Statx_t, in *fuse.SetAttrIn) error {
	if in.Valid&fuse.FATTR_UID != 0 && in.Uid != st.Uid || in.Valid&fuse.FATTR_GID != 0 && in.Gid != st.Gid {
		return unix.EPERM
	}
	return nil
}

// Permission bits that a guest may set: no program may run as its owner because
// of a guest.
const (
	permissions    = 0o777
	dirPermissions = permissions | unix.S_ISGID | unix.S_ISVTX
)

func setMode(fd int, st *unix.Statx_t, in *fuse.SetAttrIn) error {
	if in.Valid&fuse.FATTR_MODE == 0 {
		return nil
	}
	mode, allowed := in.Mode&0o7777, uint32(permissions|unix.S_ISVTX)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		allowed = dirPermissions
	case unix.S_IFLNK:
		return unix.EOPNOTSUPP
	}
	if mode&^allowed&^uint32(st.Mode) != 0 {
		return unix.EPERM
	}
	return unix.Chmod(magic(fd), mode)
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
			if h.writable() {
				return unix.Ftruncate(h.fd, int64(in.Size))
			}
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

// Readlink implements fuse.RawFileSystem.
func (f *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.tree.get(h.NodeId)
	if err != nil {
		return nil, status(err)
	}
	fd, _, err := f.open(n)
	if err != nil {
		return nil, status(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	got, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return nil, status(err)
	}
	return buf[:got], fuse.OK
}

// StatFs implements fuse.RawFileSystem.
func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := f.space.look()
	if err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: unix.NAME_MAX, Frsize: uint32(st.Frsize),
	}
	return fuse.OK
}

// Limits of what is left of the host's file system: a guest that fills it up
// stops at the reserve, as an ordinary user does at root's (mke2fs(8), -m).
const (
	reserveShare   = 20       // one part in so many
	maxReserve     = 4 << 30  // bytes
	maxInodesKept  = 10000    //
	spaceFresh     = 16 << 20 // bytes that may be written before looking again
	spaceFreshTime = 250 * time.Millisecond
)

// space watches how much room the host has.
type space struct {
	fd int

	mu     sync.Mutex
	looked time.Time
	budget int64
	inodes bool // there are enough
}

func newSpace(fd int) *space { return &space{fd: fd} }

// look asks the host, and takes the reserve off.
func (s *space) look() (unix.Statfs_t, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(s.fd, &st); err != nil {
		return st, err
	}
	reserve := min(st.Blocks/reserveShare, maxReserve/uint64(max(st.Bsize, 1)))
	st.Bavail -= min(st.Bavail, reserve)
	keep := min(st.Files/reserveShare, maxInodesKept)
	if st.Files > 0 {
		st.Ffree -= min(st.Ffree, keep)
	}
	return st, nil
}

// refresh brings budget and inodes up to date. The caller holds the mutex.
func (s *space) refresh() {
	if time.Since(s.looked) < spaceFreshTime && s.budget > 0 {
		return
	}
	st, err := s.look()
	if err != nil {
		return // the write itself will say
	}
	s.looked = time.Now()
	s.budget = min(int64(st.Bavail)*st.Bsize, spaceFresh)
	s.inodes = st.Files == 0 || st.Ffree > 0
}

// take is asked before n bytes are written.
func (s *space) take(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if s.budget <= 0 {
		return unix.ENOSPC
	}
	s.budget -= int64(n)
	return nil
}

// room says whether n bytes would fit, without looking at the budget.
func (s *space) room(n uint64) error {
	st, err := s.look()
	if err == nil && st.Bavail*uint64(st.Bsize) < n {
		err = unix.ENOSPC
	}
	return err
}

// takeInode is asked before a file is made.
func (s *space) takeInode() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if s.budget <= 0 || !s.inodes {
		return unix.ENOSPC
	}
	return nil
}
