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
// No change is dropped. When the kernel drops events (IN_Q_OVERFLOW), or more changes are found than
// maxFound, the directories are looked through later, from the time up to which their changes are
// known (looks). A directory that cannot be watched, because of the bound or of the host's limits
// (fs.inotify.max_user_watches, max_user_instances), is looked through again and again (polled): its
// changes are told late.
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
	"slices"
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

// waysEvents are the events that are asked for in a directory that only leads to a watched one.
const waysEvents = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR | unix.IN_EXCL_UNLINK

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
	ways   map[place]bool      // of wds: those that only lead to others
	young  map[place]time.Time // watched before the guest asked, since
	roots  map[int]root        // of each share
	full   bool                // the bound was met, and logged
	found  []found             // changes that no event told
	looks  map[place]look      // directories to look through
	polled map[place]time.Time // not watched, but looked through: when last
	wake   chan struct{}       // there is something in found or looks, or to poll

	maxFound int // of found, but for one directory
	poll     pollTimes
	nextPoll time.Time
	spent    time.Duration // on looks since the last poll

	collected collected // used by Next alone
	drained   time.Time // when Next had read all events last
}

// pollTimes say how often directories that cannot be watched are looked through.
type pollTimes struct {
	every time.Duration // at most once in this time
	part  int           // and for one part of so many of the time
}

// usualPoll lets polling take a hundredth of a processor's time.
var usualPoll = pollTimes{every: 5 * time.Second, part: 100}

// maxFound bounds the changes that no event told and that were not collected yet.
const maxFound = 65536

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
	w := &Watch{
		max: max, log: log, closed: make(chan struct{}),
		places: map[int32][]place{}, wds: map[place]int32{}, ways: map[place]bool{}, young: map[place]time.Time{}, roots: map[int]root{},
		looks: map[place]look{}, polled: map[place]time.Time{}, wake: make(chan struct{}, 1), drained: time.Now(),
		maxFound: maxFound, poll: usualPoll,
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) {
		log.Warn("the host has no inotify instance left for you (sysctl fs.inotify.max_user_instances): watchers in the guest see its changes late", "every", w.poll.every)
		w.max, w.full = 0, true
		fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) // never readable
	}
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w.inotify = os.NewFile(uintptr(fd), "inotify")
	return w, nil
}

// Drained returns a time before which Next has returned all changes of watched directories. It
// reports false while it has some that it has not returned. Only the goroutine that calls Next may
// call it.
func (w *Watch) Drained() (time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drained, len(w.collected.order)+len(w.found)+len(w.looks) == 0
}

// Close ends the watch: Next returns os.ErrClosed. It must be called only once.
func (w *Watch) Close() {
	close(w.closed)
	w.inotify.Close()
}

// Set makes these directories of a share the ones that are watched, each a path below its root.
// Files that changed since the given time in those that are new count as changed; where another
// directory is the share's root since the last call, all files do.
func (w *Watch) Set(share int, path string, dirs [][]byte, since time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	rootFD, err := openRoot(path)
	if err != nil {
		return err
	}
	defer unix.Close(rootFD)
	if w.follow(share, path, rootFD) {
		since = ever
	}
	wanted := map[place]bool{}
	for _, d := range dirs {
		wanted[place{share, string(d)}] = true
	}
	ways := waysTo(wanted)
	w.forget(share, wanted, ways)
	for p := range wanted {
		delete(w.young, p)
		if _, known := w.wds[p]; known && !w.ways[p] {
			continue
		}
		since := since
		last, polled := w.polled[p]
		if polled {
			since = last
		}
		if w.add(rootFD, p) {
			delete(w.polled, p)
		} else {
			w.pollFrom(p, time.Now())
			if polled {
				continue // until its turn
			}
		}
		w.lookAt(p, look{since: since})
	}
	for p := range ways {
		if _, known := w.wds[p]; !known && w.addFor(rootFD, p, waysEvents) {
			w.ways[p] = true
		}
	}
	w.lookThrough()
	w.wakeNext()
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

// follow drops the watches of a share whose root is another directory now, and reports whether it
// is. The caller holds the lock.
func (w *Watch) follow(share int, path string, rootFD int) (replaced bool) {
	var st unix.Stat_t
	if unix.Fstat(rootFD, &st) != nil {
		return false
	}
	id := root{path, uint64(st.Dev), st.Ino} //nolint:unconvert // another type on other processors
	was, known := w.roots[share]
	if replaced = known && was != id; replaced {
		w.dropBelow(place{share: share})
	}
	w.roots[share] = id
	return replaced
}

// waysTo returns the directories above those of a share that are watched, which may be renamed or
// removed with what is in them.
func waysTo(wanted map[place]bool) map[place]bool {
	ways := map[place]bool{}
	for p := range wanted {
		for p.dir != "" {
			p.dir = strings.TrimPrefix(path.Dir("/"+p.dir), "/")
			if wanted[p] || ways[p] {
				break // those above it are there, or will be
			}
			ways[p] = true
		}
	}
	return ways
}

// forget drops the watches of a share that are not wanted. The caller holds the lock.
func (w *Watch) forget(share int, wanted, ways map[place]bool) {
	for p := range w.wds {
		if w.ways[p] && ways[p] {
			continue
		}
		if p.share == share && !wanted[p] && (w.ways[p] || time.Since(w.young[p]) > expectedFor) {
			w.drop(p)
		}
	}
	for p := range w.polled {
		if p.share == share && !wanted[p] {
			w.drop(p)
		}
	}
}

// add watches a directory below an open root, and reports whether that is possible. The caller
// holds the lock.
func (w *Watch) add(rootFD int, p place) bool { return w.addFor(rootFD, p, watchedEvents) }

// addFor is add for some events. One that only led to others is watched itself then.
func (w *Watch) addFor(rootFD int, p place, events uint32) bool {
	if len(w.wds) >= w.max {
		if !w.full {
			w.full = true
			w.log.Warn("too many directories are watched in the guest: it sees the host's changes in the others late", "limit", w.max, "every", w.poll.every)
		}
		return false
	}
	fd, err := openDir(rootFD, p.dir)
	if err != nil {
		return false // it was removed meanwhile
	}
	defer unix.Close(fd)
	wd, err := w.addFD(fd, events)
	if err != nil {
		if errors.Is(err, unix.ENOSPC) && !w.full {
			w.full = true
			w.log.Warn("the host has no inotify watches left (sysctl fs.inotify.max_user_watches): the guest sees the host's changes in some directories late", "every", w.poll.every)
		}
		return false
	}
	delete(w.ways, p)
	if !slices.Contains(w.places[wd], p) {
		w.places[wd] = append(w.places[wd], p)
	}
	w.wds[p] = wd
	return true
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

// addFD watches an open directory. What is watched there already stays so: the shares of a sandbox may
// overlap.
func (w *Watch) addFD(fd int, events uint32) (wd int32, err error) {
	n := -1
	c, err := w.inotify.SyscallConn() // unlike Fd, it leaves the file non-blocking
	if err != nil {
		return -1, err
	}
	controlErr := c.Control(func(inotify uintptr) {
		n, err = unix.InotifyAddWatch(int(inotify), "/proc/self/fd/"+strconv.Itoa(fd), events|unix.IN_MASK_ADD)
	})
	return int32(n), errors.Join(controlErr, err)
}

// drop ends the watch of a place. The caller holds the lock.
func (w *Watch) drop(p place) {
	delete(w.looks, p)
	delete(w.polled, p)
	wd, watched := w.wds[p]
	if !watched {
		return
	}
	delete(w.wds, p)
	delete(w.ways, p)
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
	for p := range w.polled {
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
	after := func(p place) place { return place{to.share, to.dir + strings.TrimPrefix(p.dir, from.dir)} }
	moveKeys(w.looks, from, after)
	moveKeys(w.polled, from, after)
	for p, wd := range w.wds {
		if p.below(from) {
			moves = append(moves, move{p, after(p), wd})
		}
	}
	for _, m := range moves {
		delete(w.wds, m.was)
		w.wds[m.now] = m.wd
		if w.ways[m.was] {
			delete(w.ways, m.was)
			w.ways[m.now] = true
		}
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

// moveKeys renames the places in a map that lie below a directory.
func moveKeys[V any](m map[place]V, dir place, after func(place) place) {
	var below []place
	for p := range m {
		if p.below(dir) {
			below = append(below, p)
		}
	}
	for _, p := range below {
		m[after(p)] = m[p]
		delete(m, p)
	}
}

// ended notes that the kernel ended a watch. The caller holds the lock.
func (w *Watch) ended(wd int32) {
	for _, p := range w.places[wd] {
		delete(w.wds, p)
		delete(w.ways, p)
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
	w.expectIn(rootFD, p)
	w.lookThrough()
}

// expectIn is expect with the root open. The caller looks through the directory (lookThrough).
func (w *Watch) expectIn(rootFD int, p place) {
	if _, known := w.wds[p]; known && !w.ways[p] {
		return
	}
	if w.add(rootFD, p) {
		w.young[p] = time.Now()
		w.lookAt(p, look{deep: true})
	}
}
