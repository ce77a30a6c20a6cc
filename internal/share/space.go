package share

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The reserve that a guest leaves free on the host's file system: it gets ENOSPC there,
// as an ordinary user does at root's reserve (mke2fs(8), -m).
const (
	reserveShare   = 20       // one part in so many
	maxReserve     = 4 << 30  // bytes
	maxInodesKept  = 10000    // inodes
	spaceFresh     = 16 << 20 // bytes that may be written before looking again
	spaceFreshTime = 250 * time.Millisecond
)

// space limits what a guest may write by the room that the host has. Its methods may be
// called by several goroutines at once.
type space struct {
	fd int

	mu     sync.Mutex
	looked time.Time
	budget int64
	inodes bool // there are enough
}

func newSpace(fd int) *space { return &space{fd: fd} }

// look returns the state of the host's file system, less the reserve.
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
		return // the write itself will fail
	}
	s.looked = time.Now()
	s.budget = min(int64(st.Bavail)*st.Bsize, spaceFresh)
	s.inodes = st.Files == 0 || st.Ffree > 0
}

// take is called before n bytes are written.
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

// room reports whether n bytes would fit, without the budget.
func (s *space) room(n uint64) error {
	st, err := s.look()
	if err == nil && st.Bavail*uint64(st.Bsize) < n {
		err = unix.ENOSPC
	}
	return err
}

// takeInode is called before a file is made.
func (s *space) takeInode() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if s.budget <= 0 || !s.inodes {
		return unix.ENOSPC
	}
	return nil
}
