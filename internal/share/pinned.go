package share

import (
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A node is found by its place (tree.go). On a local disk a file stays reachable when its
// name is gone: by an O_PATH descriptor, a bind mount of a container, a working directory,
// or another name (hard link). So a node remembers some other names, and small files that
// the guest looked up lately, and what it removes, are pinned by an O_PATH descriptor.

// Bounds of what a node and the tree remember.
const (
	maxSpots = 64   // other names of a node
	maxPins  = 1024 // pinned files; at most a sixteenth of the files that may be open
	// maxPinned is the largest file that is pinned by a look-up, in bytes: the host's disk
	// keeps a pinned file after the host has removed it.
	maxPinned = 1 << 20
)

// spot is a place of a node: a directory and a name in it.
type spot struct {
	parent *node
	name   string
}

// keepSpot remembers another place of a file, for which its directory counts it already. The
// caller holds the mutex.
func (t *tree) keepSpot(n *node, s spot) {
	n.also = append(n.also, s)
	if len(n.also) > maxSpots {
		t.leave(n.also[0], n)
	}
}

// leave forgets another place of a file, and reports whether it was one. The caller holds
// the mutex.
func (t *tree) leave(s spot, n *node) bool {
	for i, v := range n.also {
		if v == s {
			n.also = append(n.also[:i], n.also[i+1:]...)
			t.leaveDir(s.parent)
			return true
		}
	}
	return false
}

// leaveDir subtracts a node from a directory. The caller holds the mutex.
func (t *tree) leaveDir(dir *node) {
	dir.kids--
	t.drop(dir)
}

// turn makes the next other place of a node its first one. The caller holds the mutex.
func (t *tree) turn(n *node) {
	old, next := spot{n.parent, n.name}, n.also[0]
	n.also = append(n.also[1:], old)
	n.parent, n.name = next.parent, next.name
}

// turns makes the next other place of a node its first one, if there are more than so many.
func (t *tree) turns(n *node, tried int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tried >= len(n.also) {
		return false
	}
	t.turn(n)
	return true
}

// pinKnown pins the file or directory at a name in an open directory, which has the key, if the
// guest knows it.
func (t *tree) pinKnown(dir int, name string, k key) {
	t.mu.Lock()
	n := t.byKey[k]
	t.mu.Unlock()
	if n != nil {
		t.pinNode(dir, name, n.id)
	}
}

// openUnheld opens the file at a name in an open directory, if it is the node's and the tree has no
// descriptor of that yet. Otherwise the node that it returns is nil. The caller owns the O_PATH
// descriptor.
func (t *tree) openUnheld(dir int, name string, id uint64) (*node, int, *unix.Statx_t) {
	t.mu.Lock()
	n := t.byID[id]
	var k key
	if n != nil {
		k = n.key
		if n.element != nil || n == t.root {
			t.used(n)
			n = nil
		}
	}
	t.mu.Unlock()
	if n == nil {
		return nil, -1, nil
	}
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, -1, nil
	}
	st, err := statFD(fd)
	if err != nil || keyOf(st) != k || st.Mode&unix.S_IFMT != n.typ {
		unix.Close(fd)
		return nil, -1, nil
	}
	return n, fd, st
}

// pinNode pins a node, if it lies at a name in an open directory.
func (t *tree) pinNode(dir int, name string, id uint64) {
	n, fd, _ := t.openUnheld(dir, name, id)
	if n == nil {
		return
	}
	d := &dirFD{fd: fd, users: 1}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case n.element != nil || t.byID[n.id] != n:
		t.unref(d)
	case n.isDir():
		n.fd, n.element = d, t.open.PushFront(n)
		t.trim()
	default:
		n.pin, n.element = d, t.pins.PushFront(n)
		t.trimPins()
	}
}

// trimPins unpins the files that were looked up longest ago. The caller holds the mutex.
func (t *tree) trimPins() {
	for t.pins.Len() > t.maxPins {
		n, ok := t.pins.Back().Value.(*node)
		if !ok {
			panic("share: the list holds nodes")
		}
		t.unpin(n)
	}
}

// unpin gives a pinned file up. The caller holds the mutex.
func (t *tree) unpin(n *node) {
	if n.pin == nil {
		return
	}
	t.pins.Remove(n.element)
	t.unref(n.pin)
	n.pin, n.element = nil, nil
}

// openByName is open for a request that the guest's kernel repeats with a look-up if the
// answer is ESTALE: the name may lead to another file by now, which it must get. A second
// request comes from what needs no name.
func (f *fileSystem) openByName(n *node) (int, *unix.Statx_t, error) {
	fd, st, err := f.openKnown(n)
	if !errors.Is(err, unix.ESTALE) {
		return fd, st, err
	}
	f.tree.mu.Lock()
	again := n.lost || n.parent == nil && n != f.tree.root // the guest removed it itself
	n.lost = true
	f.tree.mu.Unlock()
	if !again {
		return -1, nil, err
	}
	return f.openHeld(n)
}

// openHeld returns an O_PATH descriptor of a node that no known name leads to any more: from
// what the guest has open, or what is pinned and lies in the share, or nowhere.
func (f *fileSystem) openHeld(n *node) (int, *unix.Statx_t, error) {
	fd, open := f.tree.dupHeld(n)
	if fd < 0 {
		return -1, nil, unix.ESTALE
	}
	st, err := statFD(fd)
	if err == nil && !open && st.Nlink > 0 && !f.inside(fd) {
		err = unix.ESTALE // the host has moved it out of the share
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}

// dupHeld returns a copy of a descriptor of the node, or -1, and whether the guest has it
// open.
func (t *tree) dupHeld(n *node) (fd int, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	held := []int{}
	for h := range n.handles {
		if h.fd >= 0 {
			held, open = append(held, h.fd), true
		}
	}
	for _, d := range []*dirFD{n.fd, n.pin} {
		if d != nil {
			held = append(held, d.fd)
		}
	}
	for _, fd := range held {
		if fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			return fd, open
		}
	}
	return -1, false
}

// inside reports whether an open file lies below the root, by its name as of now.
func (f *fileSystem) inside(fd int) bool {
	path, err := pathOn(fd)
	if err != nil {
		return false
	}
	names, err := f.tree.pathBelow(path)
	return err == nil && names != nil
}

var errLongPath = errors.New("the path is too long")

// descriptors returns a descriptor of /proc/self/fd, or -1 if that cannot be opened. From there the kernel finds the
// link of an open file in half the time.
var descriptors = sync.OnceValue(func() int {
	fd, err := unix.Open("/proc/self/fd", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	return fd
})

// link returns a directory and a name in it that lead to the file of an open descriptor, as magic does.
func link(fd int) (dir int, name string) {
	if dir = descriptors(); dir < 0 {
		return unix.AT_FDCWD, magic(fd)
	}
	return dir, strconv.Itoa(fd)
}

// pathOn returns the path on the host of an open file, as of now (proc_pid_fd(5)).
func pathOn(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	dir, name := link(fd)
	n, err := unix.Readlinkat(dir, name, buf)
	if err != nil {
		return "", err
	}
	if n == len(buf) {
		return "", errLongPath
	}
	return string(buf[:n]), nil
}
