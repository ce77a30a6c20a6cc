package share

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// quota bounds what the files of a share take on the host's disk (Options.Limit).
//
// Theory of operation. The files are counted, and then what the guest may write is added to that
// until the limit would be passed; then they are counted again. So what was deleted, or written
// over, counts as room again at that moment, without an account of what each operation frees.
// Counting takes time in proportion to the number of files. Between two counts there is a pause,
// so that a guest at the limit cannot keep the host busy with it: a request that needs the next
// count waits for it, unless nothing has happened since the last one that could make a difference.
//
// Its methods may be called by several goroutines at once.
type quota struct {
	limit uint64
	count func() (uint64, error) // bytes that the files take now

	stale atomic.Bool // something was added, or may have been freed, since the last count

	mu   sync.Mutex
	used uint64    // as counted last, and what was added since
	next time.Time // when the files may be counted again; zero before the first time
}

// The pause between two counts, in times of the last count, and at most.
const (
	countPause    = 4
	countPauseMax = 2 * time.Second
)

// take adds bytes that are about to be written, or fails with ENOSPC. held are those of other
// requests that may not be written yet, which a count does not find.
func (q *quota) take(bytes, held uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next.IsZero() || q.room() < bytes {
		if bytes > q.limit || !q.stale.Load() && time.Now().Before(q.next) {
			return unix.ENOSPC
		}
		time.Sleep(time.Until(q.next))
		if err := q.recount(held); err != nil || q.room() < bytes {
			return unix.ENOSPC
		}
	}
	q.used += bytes
	q.stale.Store(true)
	return nil
}

// opRelease is an opcode (linux/fuse.h).
const opRelease = 18

// done is called after each request of the guest, with its opcode. It may be called for a nil quota.
func (q *quota) done(op uint32) {
	if q == nil {
		return
	}
	switch op {
	case opUnlink, opRmdir, opRename, opRename2, opSetAttr, opFallocate, opRelease, opOpen, opCreate, opRemoveXAttr:
		q.stale.Store(true)
	}
}

// left returns how many bytes may be written.
func (q *quota) left(held uint64) (uint64, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if time.Now().After(q.next) {
		if err := q.recount(held); err != nil {
			return 0, err
		}
	}
	return q.room(), nil
}

func (q *quota) room() uint64 { return q.limit - min(q.used, q.limit) }

// recount counts the files. The caller holds the mutex.
func (q *quota) recount(held uint64) error {
	began := time.Now()
	q.stale.Store(held > 0) // what is freed from here on may not be counted
	used, err := q.count()
	if err != nil {
		used = q.limit // what cannot be counted is full
	}
	now := time.Now()
	q.used, q.next = used+held, now.Add(min(countPause*now.Sub(began), countPauseMax))
	return err
}

// maxCountDepth bounds the directories in each other of a share with a limit, each of which costs
// a descriptor while it is counted.
const maxCountDepth = 1024

// errTooDeep means that a share's files cannot be counted.
var errTooDeep = fmt.Errorf("more than %d directories in each other", maxCountDepth)

// usage counts what files take of a file system. A file with several names counts once.
type usage struct {
	dev   uint64
	bytes uint64
	seen  map[uint64]bool // inode numbers
}

// add counts a file.
func (u *usage) add(st *unix.Stat_t) {
	linked := st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR
	if uint64(st.Dev) != u.dev || linked && u.seen[st.Ino] { //nolint:unconvert // another type on other processors
		return
	}
	if linked {
		u.seen[st.Ino] = true
	}
	u.bytes += uint64(st.Blocks) * 512 // stat(2)
}

// dir counts all below an open directory, which it closes. What is removed meanwhile does not
// count.
func (u *usage) dir(fd, depth int) error {
	d := os.NewFile(uintptr(fd), "directory")
	defer d.Close()
	if depth > maxCountDepth {
		return errTooDeep
	}
	for {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			if err := u.entry(fd, name, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *usage) entry(dir int, name string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	u.add(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || uint64(st.Dev) != u.dev { //nolint:unconvert // another type on other processors
		return nil
	}
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return ignoreGone(err)
	}
	return u.dir(fd, depth+1)
}

// ignoreGone drops the error of a file that was removed, or replaced by one of another kind.
func ignoreGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

// usage returns what the share's files take, also those that have no name any more but are open.
func (f *fileSystem) usage() (uint64, error) {
	root := f.tree.root.fd.fd
	var st unix.Stat_t
	if err := unix.Fstat(root, &st); err != nil {
		return 0, err
	}
	u := usage{dev: uint64(st.Dev), seen: map[uint64]bool{}} //nolint:unconvert // another type on other processors
	u.add(&st)
	fd, err := unix.Openat(root, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := u.dir(fd, 0); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.unpinNameless()
	for _, h := range f.handles {
		if h.fd >= 0 && unix.Fstat(h.fd, &st) == nil && st.Nlink == 0 && !u.seen[st.Ino] {
			u.seen[st.Ino] = true
			u.bytes += uint64(st.Blocks) * 512
		}
	}
	return u.bytes, nil
}

// unpinNameless gives up the files that have no name any more and are not open, so that they take no
// room: a guest could keep any number of them by their nodes. The caller holds f.mu.
func (f *fileSystem) unpinNameless() {
	open := map[*node]bool{}
	for _, h := range f.handles {
		open[h.node] = true
	}
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	var next *list.Element
	for e := f.tree.pins.Front(); e != nil; e = next {
		next = e.Next()
		n, ok := e.Value.(*node)
		if !ok || open[n] || n.pin == nil {
			continue
		}
		if st, err := statFD(n.pin.fd); err == nil && st.Nlink == 0 {
			f.tree.unpin(n)
		}
	}
}
