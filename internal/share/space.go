package share

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/reserve"
)

// How much a guest may use before the host's file system is asked again. Less is taken
// when less is left.
const (
	freshBytes  = 16 << 20
	freshInodes = 1000
	freshTime   = 250 * time.Millisecond

	// inodeBytes is charged for each file that is made: its block, and its part of the
	// directory's.
	inodeBytes = 4096
)

// space limits what a guest may write by the room that the host has (package reserve). Its
// methods may be called by several goroutines at once.
//
// What a request may write is taken before it and given back after it. What is taken at
// the moment counts as used, so that requests at the same time do not each find the same
// room; after that the file system itself counts it.
type space struct {
	fd    int
	quota *quota // nil: the share has no limit of its own

	mu     sync.Mutex
	looked time.Time
	bytes  uint64 // that may be taken before looking again
	inodes uint64
	room   reserve.Room // of bytes

	held, heldInodes uint64 // that requests have taken and not given back
}

// newSpace returns the space of the file system of a descriptor, which sync writes to its disk.
func newSpace(fd int, sync func() error) *space {
	return &space{fd: fd, room: reserve.Room{Sync: sync}}
}

// look returns the state of the host's file system, less the reserve, or of the share's own limit
// if that leaves less.
func (s *space) look() (unix.Statfs_t, error) {
	st, err := reserve.Left(s.fd)
	if err != nil || s.quota == nil {
		return st, err
	}
	s.mu.Lock()
	left, err := s.quota.left(s.held)
	s.mu.Unlock()
	unit := uint64(max(st.Bsize, 1))
	st.Blocks = min(st.Blocks, s.quota.limit/unit)
	st.Bavail = min(st.Bavail, left/unit)
	st.Bfree = st.Bavail
	return st, err
}

// refresh brings the account up to date if it is old or does not suffice. The caller holds
// the mutex.
func (s *space) refresh(bytes, inodes uint64) {
	if time.Since(s.looked) < freshTime && s.bytes >= bytes && s.inodes >= inodes {
		return
	}
	st, err := s.room.Left(s.fd, bytes)
	if err != nil {
		return // the write itself will fail
	}
	s.looked = time.Now()
	s.bytes = min(reserve.Bytes(&st), max(freshBytes, bytes))
	limit := max(freshInodes, inodes)
	count := reserve.Inodes(&st, limit+s.heldInodes)
	s.inodes = min(count-min(count, s.heldInodes), limit)
}

// take is called before bytes are written and inodes are made, and give after that.
func (s *space) take(bytes, inodes uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.quota != nil {
		if err := s.quota.take(bytes, s.held); err != nil {
			return err
		}
	}
	s.refresh(bytes, inodes)
	if s.bytes < bytes || s.inodes < inodes {
		return unix.ENOSPC
	}
	s.bytes -= bytes
	s.inodes -= inodes
	s.held += bytes
	s.room.Take(bytes)
	s.heldInodes += inodes
	return nil
}

// give gives back what was taken.
func (s *space) give(bytes, inodes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= bytes
	s.room.Wrote(bytes)
	s.heldInodes -= inodes
}

// giveInode gives back what was taken for one file.
func (s *space) giveInode() { s.give(inodeBytes, 1) }
