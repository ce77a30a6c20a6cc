package hostwatch

import (
	"encoding/binary"
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share"
)

// maxBatch bounds the changes that Next returns at once. A batch of the guest's events holds at
// most three times as many.
const maxBatch = 256

// Next waits for changes and returns those of one share, in the order in which they began.
// Only one goroutine may call it. Its error is os.ErrClosed after Close.
func (w *Watch) Next() (int, []share.HostChange, error) {
	for {
		if n, changes := w.collected.take(); len(changes) > 0 {
			return n, changes, nil
		}
		if err := w.wait(); err != nil {
			return 0, nil, err
		}
		select { // more of the same
		case <-w.closed:
			return 0, nil, os.ErrClosed
		case <-time.After(quietTime):
		}
		if err := w.collect(); err != nil {
			return 0, nil, err
		}
	}
}

// wait returns when there is something to collect.
func (w *Watch) wait() error {
	c, err := w.inotify.SyscallConn()
	if err != nil {
		return err
	}
	readable := make(chan error, 1)
	go func() {
		first := true
		readable <- c.Read(func(fd uintptr) bool { // true ends the wait
			if !first {
				return true
			}
			first = false
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return err == nil && n > 0
		})
	}()
	select {
	case err := <-readable:
		if err != nil {
			return os.ErrClosed
		}
		return nil
	case <-w.wake:
	case <-w.untilPoll():
		w.lookAtPolled()
	}
	_ = w.inotify.SetReadDeadline(time.Unix(1, 0))
	err = <-readable
	_ = w.inotify.SetReadDeadline(time.Time{})
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrClosed
	}
	return nil
}

// MovesDirectory reports whether one of the changes renamed a directory.
func MovesDirectory(changes []share.HostChange) bool {
	return slices.ContainsFunc(changes, func(c share.HostChange) bool {
		return c.Mask&unix.IN_ISDIR != 0 && c.Mask&(unix.IN_MOVED_FROM|unix.IN_MOVED_TO) != 0
	})
}

// collect reads the events that there are.
func (w *Watch) collect() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &w.collected
	w.lookThrough()
	c.addAll(w.found)
	w.found = nil
	start := time.Now()
	b := make([]byte, 64<<10)
	for len(c.order) < maxBatch {
		n, err := w.read(b)
		if errors.Is(err, unix.EAGAIN) {
			w.drained = start
			break
		}
		if err != nil {
			return err
		}
		w.events(b[:n])
	}
	for _, at := range c.cookies { // moved to a place that is not watched
		w.dropBelow(place{at.share, path.Join(at.dir, at.name)})
	}
	c.cookies = nil
	c.addAll(w.found) // in new directories
	w.found = nil
	if len(w.looks) > 0 {
		w.wakeNext()
	}
	return nil
}

// read reads events without waiting.
func (w *Watch) read(b []byte) (n int, err error) {
	c, err := w.inotify.SyscallConn()
	if err != nil {
		return 0, os.ErrClosed
	}
	if failed := c.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) }); failed != nil {
		return 0, os.ErrClosed
	}
	return n, err
}

// events notes a list of struct inotify_event (inotify(7)). The caller holds the lock.
func (w *Watch) events(b []byte) {
	for len(b) >= unix.SizeofInotifyEvent {
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		if end > len(b) {
			return
		}
		wd, mask, cookie := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), binary.NativeEndian.Uint32(b[8:])
		name := strings.TrimRight(string(b[unix.SizeofInotifyEvent:end]), "\x00")
		b = b[end:]
		switch {
		case mask&unix.IN_Q_OVERFLOW != 0:
			w.lookAll()
		case mask&unix.IN_IGNORED != 0:
			w.ended(wd)
		case name != "":
			for _, p := range append([]place{}, w.places[wd]...) {
				w.event(p, name, mask, cookie)
			}
		}
	}
}

// event notes one event of a name in a place. The caller holds the lock.
func (w *Watch) event(p place, name string, mask, cookie uint32) {
	at := place{p.share, path.Join(p.dir, name)}
	if w.ways[p] && !w.leads(at, mask, cookie) {
		return
	}
	from, renamed := w.collected.event(p, name, mask, cookie)
	if mask&unix.IN_ISDIR == 0 {
		return
	}
	switch {
	case mask&unix.IN_MOVED_TO != 0 && renamed:
		w.moved(place{from.share, path.Join(from.dir, from.name)}, at)
	case mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0:
		w.expect(at)
	}
}

// leads reports whether an event in a directory that only leads to watched ones is of one of these:
// a directory on the way was renamed or removed. The caller holds the lock.
func (w *Watch) leads(at place, mask, cookie uint32) bool {
	if mask&unix.IN_ISDIR == 0 {
		return false
	}
	if mask&unix.IN_DELETE != 0 {
		return true // whether it was watched is not known any more
	}
	if _, known := w.wds[at]; known {
		return true
	}
	_, moved := w.collected.cookies[cookie]
	return mask&unix.IN_MOVED_TO != 0 && moved
}

// inDir is a name in a directory of a share.
type inDir struct {
	place
	name string
}

// collected are changes that were read and not taken yet. The zero value has none.
type collected struct {
	byName  map[inDir]*share.HostChange
	order   []inDir
	cookies map[uint32]inDir // where files were that are being renamed
}

// add notes events of a name.
func (c *collected) add(p place, name string, mask uint32) *share.HostChange {
	at := inDir{p, name}
	if h := c.byName[at]; h != nil {
		h.Mask |= mask
		return h
	}
	h := &share.HostChange{Dir: []byte(p.dir), Name: []byte(name), Mask: mask}
	if c.byName == nil {
		c.byName = map[inDir]*share.HostChange{}
	}
	c.byName[at] = h
	c.order = append(c.order, at)
	return h
}

func (c *collected) addAll(list []found) {
	for _, f := range list {
		c.add(f.place, f.name, f.mask)
	}
}

// event notes an event. If it is the second of a rename in the same share it returns where the
// file was.
func (c *collected) event(p place, name string, mask, cookie uint32) (from inDir, renamed bool) {
	switch {
	case mask&unix.IN_MOVED_FROM != 0:
		if c.cookies == nil {
			c.cookies = map[uint32]inDir{}
		}
		c.cookies[cookie] = inDir{p, name}
	case mask&unix.IN_MOVED_TO != 0:
		if from, renamed = c.cookies[cookie]; renamed && from.share == p.share {
			c.rename(from, inDir{p, name}, mask)
			delete(c.cookies, cookie)
			return from, true
		}
	}
	c.add(p, name, mask)
	return inDir{}, false
}

// rename notes that a file was renamed: it takes the place of what was noted of its old name.
func (c *collected) rename(from, to inDir, mask uint32) {
	first := from
	if h := c.byName[from]; h != nil {
		if h.Renamed { // twice
			first = inDir{place{from.share, string(h.FromDir)}, string(h.FromName)}
		}
		c.forget(from)
	}
	if first == to { // exchanged
		c.add(from.place, from.name, unix.IN_MOVED_FROM|mask)
		c.add(to.place, to.name, unix.IN_MOVED_FROM|mask)
		return
	}
	h := c.add(to.place, to.name, mask)
	h.Renamed, h.FromDir, h.FromName = true, []byte(first.dir), []byte(first.name)
}

func (c *collected) forget(at inDir) {
	delete(c.byName, at)
	for i, o := range c.order {
		if o == at {
			c.order = append(c.order[:i], c.order[i+1:]...)
			return
		}
	}
}

// take returns the changes of one share, maxBatch at most.
func (c *collected) take() (n int, changes []share.HostChange) {
	if len(c.order) == 0 {
		return 0, nil
	}
	n = c.order[0].share
	var rest []inDir
	for _, at := range c.order {
		if at.share != n || len(changes) == maxBatch {
			rest = append(rest, at)
			continue
		}
		changes = append(changes, *c.byName[at])
		delete(c.byName, at)
	}
	c.order = rest
	return n, changes
}
