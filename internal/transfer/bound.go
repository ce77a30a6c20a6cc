package transfer

import (
	"fmt"
	"os"

	"bawn.dev/bawn/internal/sys/reserve"
)

// bound is what a copy from a guest has used of its Limits, and of the host's disk. A nil
// bound has no limits.
type bound struct {
	Limits
	room          *room
	entries, held int
}

// nameBytes is charged for each name beside its own bytes.
const nameBytes = 16

// hold counts the names of a directory until release is called.
func (b *bound) hold(names []string) (release func(), err error) {
	if b == nil {
		return func() {}, nil
	}
	n := 0
	for _, name := range names {
		n += len(name) + nameBytes
	}
	if b.held+n > b.Held {
		return nil, beyond(b.Held, "bytes of names in the directories being copied")
	}
	b.held += n
	return func() { b.held -= n }, nil
}

// entry counts an entry below so many directories of the copy.
func (b *bound) entry(depth int) error {
	if b == nil {
		return nil
	}
	if depth > b.Depth {
		return beyond(b.Depth, "directories in each other")
	}
	if b.entries++; b.entries > b.Entries {
		return beyond(b.Entries, "entries")
	}
	return b.room.take(entryBytes, 1)
}

// bytes counts data, before it is written.
func (b *bound) bytes(n int) error {
	if b == nil {
		return nil
	}
	return b.room.take(uint64(n), 0)
}

// entryBytes is charged for each entry: its block on the disk.
const entryBytes = 4096

// How much is copied before the disk is asked again.
const (
	freshBytes  = 16 << 20
	freshInodes = 1000
)

// room is what the host's disk has left beside its reserve. A destination may lie in
// several file systems; the one that the copy begins in counts.
type room struct {
	dir           *os.File
	bytes, inodes uint64
	disk          reserve.Room
	taken         uint64 // for the entry or bytes before, which are written when take is called again
}

// room returns the room in the directory.
func (h hostFiles) room() (*room, error) {
	dir, err := h.root.Open(".")
	if err != nil {
		return nil, failure(h, "", err)
	}
	return &room{dir: dir}, nil
}

func (r *room) close() { r.dir.Close() }

// take counts what is about to be written.
func (r *room) take(bytes, inodes uint64) error {
	r.disk.Wrote(r.taken)
	r.taken = 0
	if r.bytes < bytes || r.inodes < inodes {
		st, err := r.disk.Left(int(r.dir.Fd()), bytes)
		if err != nil {
			return err
		}
		r.bytes = min(reserve.Bytes(&st), freshBytes+bytes)
		r.inodes = reserve.Inodes(&st, freshInodes+inodes)
	}
	if r.bytes < bytes || r.inodes < inodes {
		return fmt.Errorf("%w: this host's disk is full up to its reserve: free some space", ErrTooMuch)
	}
	r.bytes -= bytes
	r.inodes -= inodes
	r.taken = bytes
	r.disk.Take(bytes)
	return nil
}
