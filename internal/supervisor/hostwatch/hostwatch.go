// Package hostwatch watches directories of shares on the host, by inotify(7).
//
// # Theory of operation
//
// One inotify descriptor serves all shares of a sandbox. Set says which directories of a share
// are to be watched: those that programs in the guest watch. Each is opened below the share's
// root without following a symbolic link, so a name that the guest puts in the way leads
// nowhere else. Next returns what changed.
//
// Events are collected for quietTime after the first, so that a stream of writes, or a file that
// is made, written and closed, is one change of a name.
//
// Time passes between a watch in the guest and the one here. So Set looks through each
// directory that is new, for files that changed since the given time; what was the guest's own
// change the share's server knows. A directory that is made in a watched one is watched at once, for
// a while, before the guest asks.
//
// # Not safe
//
// The guest decides which of the directories that it knows are watched: their number is bounded by
// the caller, since each takes some 2 KiB of the host's memory and counts against
// fs.inotify.max_user_watches of the user.
package hostwatch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quietTime is how long events are collected.
	quietTime = 50 * time.Millisecond
	// expectedFor is how long a directory stays watched that the guest has not asked for yet.
	expectedFor = 10 * time.Second
)

// watchedEvents are the events that are asked for.
const watchedEvents = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_MODIFY | unix.IN_CLOSE_WRITE |
	unix.IN_ATTRIB | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

// Watch watches directories of shares. Set may be called while Next waits.
type Watch struct {
	inotify *os.File
	max     int
	log     *slog.Logger
	closed  chan struct{}

	mu     sync.Mutex
	places map[int32][]place // by watch descriptor; more than one where shares overlap
	wds    map[place]int32
	young  map[place]time.Time // watched before the guest asked, since
	roots  map[int]root        // of each share
	full   bool                // the bound was met, and logged
	found  []found             // changes that no event told
	wake   chan struct{}       // there are some

	collected collected // used by Next alone
	drained   time.Time // when Next had read all events last
}

// root is the root of a share.
type root struct {
	path     string
	dev, ino uint64
}

// place is a directory of a share, by its path below the root.
type place struct {
	share int
	dir   string
}

// below reports whether the place is the directory or lies below it.
func (p place) below(dir place) bool {
	return p.share == dir.share && (p.dir == dir.dir || dir.dir == "" || strings.HasPrefix(p.dir, dir.dir+"/"))
}

// New returns a watch of at most max directories. The caller closes it.
func New(max int, log *slog.Logger) (*Watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	return &Watch{
		inotify: os.NewFile(uintptr(fd), "inotify"), max: max, log: log, closed: make(chan struct{}),
		places: map[int32][]place{}, wds: map[place]int32{}, young: map[place]time.Time{}, roots: map[int]root{},
		wake: make(chan struct{}, 1), drained: time.Now(),
	}, nil
}

// Close ends the watch: Next returns os.ErrClosed. It must be called only once.
func (w *Watch) Close() {
	close(w.closed)
	w.inotify.Close()
}

// Set makes these directories of a share the ones that are watched, each a path below its root.
// Files that changed since the given time in those that are new count as changed.
func (w *Watch) Set(share int, path string, dirs [][]byte, since time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rootFD, err := openRoot(path)
	if err != nil {
		return err
	}
	defer unix.Close(rootFD)
	w.follow(share, path, rootFD)
	wanted := map[place]bool{}
	for _, d := range dirs {
		wanted[place{share, string(d)}] = true
	}
	w.forget(share, wanted)
	for p := range wanted {
		delete(w.young, p)
		if _, known := w.wds[p]; known {
			continue
		}
		fd, ok := w.add(rootFD, p)
		if !ok {
			continue
		}
		w.note(changedSince(fd, p, since))
		unix.Close(fd)
	}
	w.tell()
	return nil
}

// openRoot opens the root of a share. Its path was resolved when the share was asked for.
func openRoot(path string) (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, fmt.Errorf("watch %s: %w", path, err)
	}
	return fd, nil
}

// follow drops the watches of a share whose root is another directory now. The caller holds
// the lock.
func (w *Watch) follow(share int, path string, rootFD int) {
	var st unix.Stat_t
	if unix.Fstat(rootFD, &st) != nil {
		return
	}
	id := root{path, uint64(st.Dev), st.Ino} //nolint:unconvert // another type on other processors
	if was, ok := w.roots[share]; ok && was != id {
		w.dropBelow(place{share: share})
	}
	w.roots[share] = id
}

// forget drops the watches of a share that are not wanted. The caller holds the lock.
func (w *Watch) forget(share int, wanted map[place]bool) {
	for p := range w.wds {
		if p.share == share && !wanted[p] && time.Since(w.young[p]) > expectedFor {
			w.drop(p)
		}
	}
}

// add watches a directory below an open root, and returns its descriptor for reading. The
// caller holds the lock.
func (w *Watch) add(rootFD int, p place) (fd int, ok bool) {
	if len(w.wds) >= w.max {
		if !w.full {
			w.full = true
			w.log.Warn("too many directories are watched in the guest: it sees no events of the host's changes in the others", "limit", w.max)
		}
		return -1, false
	}
	fd, err := openDir(rootFD, p.dir)
	if err != nil {
		return -1, false // it was removed meanwhile
	}
	wd, err := w.addFD(fd)
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOSPC) && !w.full {
			w.full = true
			w.log.Warn("the host has no inotify watches left: the guest does not see all events of the host's changes (sysctl fs.inotify.max_user_watches)")
		}
		return -1, false
	}
	w.places[wd] = append(w.places[wd], p)
	w.wds[p] = wd
	return fd, true
}

// openDir opens a directory below an open root.
func openDir(rootFD int, dir string) (int, error) {
	if dir == "" {
		dir = "."
	}
	return unix.Openat2(rootFD, dir, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// addFD watches an open directory.
func (w *Watch) addFD(fd int) (wd int32, err error) {
	n := -1
	c, err := w.inotify.SyscallConn() // unlike Fd, it leaves the file non-blocking
	if err != nil {
		return -1, err
	}
	controlErr := c.Control(func(inotify uintptr) {
		n, err = unix.InotifyAddWatch(int(inotify), "/proc/self/fd/"+strconv.Itoa(fd), watchedEvents)
	})
	return int32(n), errors.Join(controlErr, err)
}

// drop ends the watch of a place. The caller holds the lock.
func (w *Watch) drop(p place) {
	wd := w.wds[p]
	delete(w.wds, p)
	delete(w.young, p)
	var rest []place
	for _, q := range w.places[wd] {
		if q != p {
			rest = append(rest, q)
		}
	}
	if len(rest) > 0 {
		w.places[wd] = rest
		return
	}
	delete(w.places, wd)
	w.full = false
	if c, err := w.inotify.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) }) // it may be gone
	}
}

// dropBelow ends the watches of a directory and of those below it. The caller holds the lock.
func (w *Watch) dropBelow(dir place) {
	for p := range w.wds {
		if p.below(dir) {
			w.drop(p)
		}
	}
}

// moved notes that a directory was renamed. The caller holds the lock.
func (w *Watch) moved(from, to place) {
	type move struct {
		was, now place
		wd       int32
	}
	var moves []move
	for p, wd := range w.wds {
		if p.below(from) {
			moves = append(moves, move{p, place{to.share, to.dir + strings.TrimPrefix(p.dir, from.dir)}, wd})
		}
	}
	for _, m := range moves {
		delete(w.wds, m.was)
		w.wds[m.now] = m.wd
		for i, p := range w.places[m.wd] {
			if p == m.was {
				w.places[m.wd][i] = m.now
			}
		}
		if at, ok := w.young[m.was]; ok {
			delete(w.young, m.was)
			w.young[m.now] = at
		}
	}
}

// ended notes that the kernel ended a watch. The caller holds the lock.
func (w *Watch) ended(wd int32) {
	for _, p := range w.places[wd] {
		delete(w.wds, p)
		delete(w.young, p)
	}
	delete(w.places, wd)
}

// expect watches a directory that was made in a watched one, and what is in it already. The caller
// holds the lock.
func (w *Watch) expect(p place) {
	rootFD, err := openRoot(w.roots[p.share].path)
	if err != nil {
		return
	}
	defer unix.Close(rootFD)
	for queue := []place{p}; len(queue) > 0; {
		next := queue[0]
		queue = queue[1:]
		if _, known := w.wds[next]; known {
			continue
		}
		fd, ok := w.add(rootFD, next)
		if !ok {
			continue
		}
		w.young[next] = time.Now()
		list := changedSince(fd, next, time.Time{})
		unix.Close(fd)
		for _, f := range list {
			if f.mask&unix.IN_ISDIR != 0 {
				queue = append(queue, place{next.share, path.Join(next.dir, f.name)})
			}
		}
		w.note(list)
	}
}

// maxFound bounds the changes that no event told and that were not collected yet.
const maxFound = 65536

// note notes changes that no event told. The caller holds the lock.
func (w *Watch) note(list []found) {
	if len(w.found)+len(list) > maxFound {
		w.log.Warn("more files changed on the host than can be told: some events are lost in the guest")
		return
	}
	w.found = append(w.found, list...)
}

// lookAll looks through all directories for what changed since the kernel dropped events. The
// caller holds the lock.
func (w *Watch) lookAll() {
	w.log.Info("the host changed files faster than they were told: all watched directories are looked through")
	rootFDs := map[int]int{}
	for p := range w.wds {
		rootFD, ok := rootFDs[p.share]
		if !ok {
			var err error
			if rootFD, err = openRoot(w.roots[p.share].path); err != nil {
				continue
			}
			rootFDs[p.share] = rootFD
		}
		if fd, err := openDir(rootFD, p.dir); err == nil {
			w.note(changedSince(fd, p, w.drained))
			unix.Close(fd)
		}
	}
	for _, fd := range rootFDs {
		unix.Close(fd)
	}
}

// tell wakes Next if there are changes that no event told. The caller holds the lock.
func (w *Watch) tell() {
	if len(w.found) == 0 {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
