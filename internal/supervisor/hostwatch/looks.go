package hostwatch

import (
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// Changes that no event tells: those from before a watch began, those whose events the kernel
// dropped, and those in directories that cannot be watched.

// maxPolled bounds the directories that are looked through because they cannot be watched.
const maxPolled = 65536

// look is what to look for in a directory.
type look struct {
	since time.Time // changes since then; the zero time: all that is there
	deep  bool      // the directory is new: those in it are expected as well
}

// ever is earlier than any change.
var ever = time.Unix(1, 0)

// lookAt notes that a directory is to be looked through, in addition to what was noted for it before.
// The caller holds the lock.
func (w *Watch) lookAt(p place, l look) {
	if was, ok := w.looks[p]; ok {
		if was.since.Before(l.since) {
			l.since = was.since
		}
		l.deep = l.deep || was.deep
	}
	w.looks[p] = l
}

// lookThrough looks through directories until no more changes may be noted. The caller holds the
// lock, and calls it again once some were collected.
func (w *Watch) lookThrough() {
	start := time.Now()
	roots := map[int]int{}
	defer func() {
		for _, fd := range roots {
			unix.Close(fd)
		}
	}()
	for len(w.looks) > 0 && len(w.found) < w.maxFound {
		for p, l := range w.looks {
			delete(w.looks, p)
			w.lookIn(roots, p, l)
			if len(w.found) >= w.maxFound {
				break
			}
		}
	}
	if len(w.polled) > 0 {
		w.spent += time.Since(start)
	}
	if len(w.looks) == 0 && w.nextPoll.IsZero() {
		w.nextPoll = time.Now().Add(max(w.poll.every, time.Duration(w.poll.part)*w.spent))
	}
}

// lookIn looks through one directory. roots are the shares' roots that are open, to which it may add
// one.
func (w *Watch) lookIn(roots map[int]int, p place, l look) {
	rootFD, ok := roots[p.share]
	if !ok {
		var err error
		if rootFD, err = openRoot(w.roots[p.share].path); err != nil {
			return // it is being replaced
		}
		roots[p.share] = rootFD
	}
	fd, err := openDir(rootFD, p.dir)
	if err != nil {
		return // it was removed
	}
	defer unix.Close(fd)
	list, all := changedSince(fd, p, l.since)
	w.found = append(w.found, list...)
	if !all {
		w.log.Warn("a directory has more files than are looked through: the guest may not see what the host changed in the others", "directory", p.dir, "limit", maxListed)
	}
	if !l.deep {
		return
	}
	for _, f := range list {
		if f.mask&unix.IN_ISDIR != 0 {
			w.expectIn(rootFD, place{p.share, path.Join(p.dir, f.name)})
		}
	}
}

// lookAll has all watched directories looked through for what changed since the kernel dropped
// events. The caller holds the lock.
func (w *Watch) lookAll() {
	w.log.Info("the host changed files faster than they were told: all watched directories are looked through")
	for p := range w.wds {
		w.lookAt(p, look{since: w.drained})
	}
}

// pollFrom has a directory looked through again and again, for what changes from a time on. The caller
// holds the lock.
func (w *Watch) pollFrom(p place, from time.Time) {
	if _, known := w.polled[p]; known {
		return
	}
	if len(w.polled) < maxPolled {
		w.polled[p] = from
	}
}

// untilPoll returns a channel that tells when it is time for lookAtPolled; nil if there is nothing to
// poll.
func (w *Watch) untilPoll() <-chan time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.polled) == 0 || w.nextPoll.IsZero() {
		return nil
	}
	return time.After(time.Until(w.nextPoll))
}

// lookAtPolled has the directories that cannot be watched looked through.
func (w *Watch) lookAtPolled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for p, last := range w.polled {
		w.lookAt(p, look{since: last})
		w.polled[p] = now
	}
	w.nextPoll, w.spent = time.Time{}, 0
}

// wakeNext makes Next collect what there is.
func (w *Watch) wakeNext() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
