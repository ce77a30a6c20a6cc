package share

import (
	"encoding/binary"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Statx implements fuse.RawFileSystem: it is GetAttr with the time of birth. The guest's
// kernel asks for it when a program does (statx(2), STATX_BTIME).
func (f *fileSystem) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	n, err := f.nodeFor(statNode, &in.InHeader)
	if err != nil {
		return status(err)
	}
	var a fuse.AttrOut
	if f.standIn(n) {
		f.standInAttr(&a)
		fillStatx(out, &a, nil)
		return fuse.OK
	}
	st, o, err := f.stat(n)
	if err != nil {
		return status(err)
	}
	f.fillAttr(n, &a, st, o)
	fillStatx(out, &a, st)
	return fuse.OK
}

// fillStatx makes the answer to Statx of one to GetAttr. Only the time of birth comes from
// st, which may be nil.
func fillStatx(out *fuse.StatxOut, a *fuse.AttrOut, st *unix.Statx_t) {
	out.Mask = unix.STATX_BASIC_STATS
	out.Ino, out.Size, out.Blocks, out.Blksize = a.Ino, a.Size, a.Blocks, a.Blksize
	out.Mode, out.Nlink, out.Uid, out.Gid = uint16(a.Mode), a.Nlink, a.Uid, a.Gid
	out.RdevMajor, out.RdevMinor = unix.Major(uint64(a.Rdev)), unix.Minor(uint64(a.Rdev))
	out.Atime = fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec}
	out.Mtime = fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec}
	out.Ctime = fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec}
	out.SetTimeout(a.Timeout())
	if st != nil && st.Mask&unix.STATX_BTIME != 0 {
		out.Mask |= unix.STATX_BTIME
		out.Btime = fuse.SxTime{Sec: uint64(st.Btime.Sec), Nsec: st.Btime.Nsec}
	}
}

// opSyncFS is FUSE_SYNCFS (linux/fuse.h), which go-fuse does not know. The guest's kernel
// sends it at syncfs(2) and sync(2).
const opSyncFS = 50

// syncFS writes the host's file system that holds the root to its disk. One call is under way
// at a time, and those that come meanwhile share the next one: a guest cannot make the host
// sync more often than one program that does nothing else.
func (f *fileSystem) syncFS() fuse.Status {
	if f.readOnly {
		return fuse.OK
	}
	return status(f.syncRoot())
}

func (f *fileSystem) syncRoot() error {
	name := "."
	if f.file != "" { // the directory is not shared
		name = f.file
	}
	fd, err := unix.Openat(f.tree.root.fd.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f.syncs.do(func() error { return unix.Syncfs(fd) })
}

// shared runs a function for several callers at once.
type shared struct {
	mu   sync.Mutex
	next *sharedCall // that no caller has begun yet
	busy sync.Mutex  // held during a call
}

type sharedCall struct {
	once sync.Once
	err  error
}

// do returns when the function was called after do was, by this caller or another.
func (s *shared) do(call func() error) error {
	s.mu.Lock()
	if s.next == nil {
		s.next = &sharedCall{}
	}
	c := s.next
	s.mu.Unlock()
	c.once.Do(func() {
		s.busy.Lock()
		defer s.busy.Unlock()
		s.mu.Lock()
		s.next = nil // who comes from now on needs another call
		s.mu.Unlock()
		c.err = call()
	})
	return c.err
}

// plain writes an answer that has no body and returns its length.
func plain(in, out [][]byte, st fuse.Status) int {
	n := failure(in, out)
	if len(out) > 0 && len(out[0]) >= 8 {
		minus := -int32(st)
		binary.NativeEndian.PutUint32(out[0][4:], uint32(minus))
	}
	return n
}
