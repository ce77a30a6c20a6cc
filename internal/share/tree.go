package share

import (
	"container/list"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// rootID is the node of the share's root (FUSE_ROOT_ID).
const rootID = 1

// key identifies an inode. Its number is used again after the file is gone; the
// birth time then differs, where the file system has one.
type key struct {
	dev, ino uint64
	birth    int64 // ns
}

// node is an inode that the guest knows.
type node struct {
	id  uint64
	key key
	typ uint16 // S_IFMT bits

	// Guarded by the tree's mutex.
	parent  *node // the directory in which it was last seen; nil once it is known to be removed
	name    string
	lookups uint64 // look-ups that the guest has not forgotten
	kids    int    // nodes with this parent
	handles map[*handle]struct{}
	stamp   stamp // of the contents that the guest may have cached
	rebound bool  // while loading: key is that of the inode that lies here now
	owner   knownOwner

	privileged atomic.Bool // the guest sees set-user-ID or set-group-ID

	fd      *dirFD // directories: nil, or in the list of open ones
	element *list.Element
}

func (n *node) isDir() bool { return n.typ == unix.S_IFDIR }

// dirFD is an O_PATH descriptor that is closed when its last user is done.
type dirFD struct {
	fd    int
	users int // guarded by the tree's mutex
}

// tree is all nodes, by number and by inode.
type tree struct {
	mu    sync.Mutex
	root  *node
	byID  map[uint64]*node
	byKey map[key]*node
	next  uint64

	maxNodes int

	mounts *mounts

	open    *list.List // nodes whose fd is open, the latest used first
	maxOpen int
}

// depthLimit bounds how far up a node's place is followed. A path has at most
// 4096 bytes, so no more components.
const depthLimit = 2048

func newTree(root *node, fd int, maxOpen int, m *mounts) *tree {
	t := &tree{mounts: m, maxNodes: maxNodes, root: root, byID: map[uint64]*node{}, byKey: map[key]*node{}, next: rootID + 1, open: list.New(), maxOpen: maxOpen}
	root.id, root.lookups = rootID, 1
	root.fd = &dirFD{fd: fd, users: 1} // for ever: it is in no list
	t.byID[rootID], t.byKey[root.key] = root, root
	return t
}

func (t *tree) get(id uint64) (*node, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil {
		return nil, unix.ESTALE
	}
	return n, nil
}

// knows reports whether there is a node of an inode.
func (t *tree) knows(k key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byKey[k] != nil
}

// dir is get for a directory.
func (t *tree) dir(id uint64) (*node, error) {
	n, err := t.get(id)
	if err == nil && !n.isDir() {
		err = unix.ENOTDIR
	}
	return n, err
}

// seen notes that an inode was found at a place, and that the guest looked it
// up once more. It returns nil if there are too many nodes, all of them in use.
func (t *tree) seen(parent *node, name string, k key, typ uint16) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n == nil || n.typ != typ {
		if len(t.byID) >= t.maxNodes && !t.evict(parent) {
			return nil
		}
		n = &node{id: t.next, key: k, typ: typ}
		t.next++
		t.byID[n.id] = n
		t.byKey[k] = n
	}
	t.place(n, parent, name)
	n.lookups++
	return n
}

// evictProbes is how many nodes are looked at for one that can be evicted.
const evictProbes = 64

// evict removes a node that the guest still knows, to make room for another: a file of no
// name below it that is not open, rather than such a directory, and not keep. For the guest
// it is stale then, and its kernel looks the name up again. Which one it is, is left to
// chance, so that a guest cannot arrange the nodes against it. The caller holds the mutex.
func (t *tree) evict(keep *node) bool {
	var dir *node
	probes := 0
	for _, n := range t.byID { // begins anywhere
		if probes++; probes > evictProbes {
			break
		}
		switch {
		case n == t.root || n == keep || n.kids > 0 || len(n.handles) > 0:
		case n.isDir():
			dir = n // maybe some process works in it
		default:
			t.remove(n)
			return true
		}
	}
	if dir != nil {
		t.remove(dir)
	}
	return dir != nil
}

// remove makes a node unknown whatever the guest knows of it. The caller holds the mutex.
func (t *tree) remove(n *node) {
	n.lookups = 0
	t.drop(n)
}

// opened notes a file or directory that the guest has open.
func (t *tree) opened(h *handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := h.node
	if n.handles == nil {
		n.handles = map[*handle]struct{}{}
	}
	n.handles[h] = struct{}{}
	if t.byID[n.id] == nil { // it was evicted while it was being opened
		t.byID[n.id] = n
		if t.byKey[n.key] == nil {
			t.byKey[n.key] = n
		}
	}
}

// place sets where a node is. The caller holds the mutex.
func (t *tree) place(n, parent *node, name string) {
	if n == t.root || n.parent == parent && n.name == name {
		return
	}
	old := n.parent
	n.parent, n.name = parent, name
	if parent != nil {
		parent.kids++
	}
	if old != nil {
		old.kids--
		t.drop(old)
	}
}

// moved notes a rename that succeeded.
func (t *tree) moved(fromDir *node, from string, toDir *node, to string, k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byKey[k]; n != nil && n.parent == fromDir && n.name == from {
		t.place(n, toDir, to)
	}
}

// gone notes that a name was removed, if the node was there.
func (t *tree) gone(parent *node, name string, k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n == nil || n.parent != parent || n.name != name {
		return
	}
	t.place(n, nil, "")
	t.drop(n)
}

// forget subtracts lookups that the guest has forgotten.
func (t *tree) forget(id, count uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n == t.root {
		return
	}
	n.lookups -= min(count, n.lookups)
	t.drop(n)
}

// drop removes a node that is not in use any more, and then its parents for which the same
// is true. The caller holds the mutex.
func (t *tree) drop(n *node) {
	for n != nil && n != t.root && n.lookups == 0 && n.kids == 0 && len(n.handles) == 0 && t.byID[n.id] == n {
		delete(t.byID, n.id)
		if t.byKey[n.key] == n {
			delete(t.byKey, n.key)
		}
		t.closeFD(n)
		up := n.parent
		n.parent = nil
		if up != nil {
			up.kids--
		}
		n = up
	}
}

// closeFD gives up a node's descriptor. The caller holds the mutex.
func (t *tree) closeFD(n *node) {
	if n.fd == nil || n == t.root {
		return
	}
	t.open.Remove(n.element)
	t.unref(n.fd)
	n.fd, n.element = nil, nil
}

func (t *tree) unref(d *dirFD) {
	if d.users--; d.users == 0 {
		_ = unix.Close(d.fd)
	}
}

// place is where a node lies, for a system call: an open directory and a name in it.
type place struct {
	tree *tree
	dir  *dirFD
	name string
}

func (p place) close() {
	p.tree.mu.Lock()
	defer p.tree.mu.Unlock()
	p.tree.unref(p.dir)
}

// in opens a directory node.
func (t *tree) in(n *node) (place, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d, err := t.openDir(n)
	return place{t, d, ""}, err
}

// at opens a node's directory. For the root, the name is empty.
func (t *tree) at(n *node) (place, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n == t.root {
		d, err := t.openDir(n)
		return place{t, d, ""}, err
	}
	if n.parent == nil {
		return place{}, unix.ESTALE
	}
	name := n.name
	d, err := t.openDir(n.parent)
	return place{t, d, name}, err
}

// openDir returns a directory's descriptor, walking down to it from the first
// ancestor that is open. The caller holds the mutex; a walk takes microseconds.
func (t *tree) openDir(n *node) (*dirFD, error) {
	var way []*node
	at := n
	for at.fd == nil {
		way = append(way, at)
		if at = at.parent; at == nil || len(way) > depthLimit {
			return nil, unix.ESTALE
		}
	}
	t.used(at)
	fd := at.fd
	for i := len(way) - 1; i >= 0; i-- {
		step := way[i]
		new, err := t.walk(fd.fd, step)
		if err != nil {
			return nil, err
		}
		step.fd = &dirFD{fd: new, users: 1}
		step.element = t.open.PushFront(step)
		fd = step.fd
	}
	fd.users++
	t.trim()
	return fd, nil
}

func (t *tree) used(n *node) {
	if n.element != nil {
		t.open.MoveToFront(n.element)
	}
}

// trim closes the descriptors that were used longest ago.
func (t *tree) trim() {
	for t.open.Len() > t.maxOpen {
		n, ok := t.open.Back().Value.(*node)
		if !ok {
			panic("share: the list holds nodes")
		}
		t.closeFD(n)
	}
}

// walk opens the child that a node is in the directory, and no other.
func (t *tree) walk(dir int, n *node) (int, error) {
	fd, err := unix.Openat(dir, n.name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, stale(err)
	}
	st, err := statFD(fd)
	if err == nil && keyOf(st) != n.key {
		err = unix.ESTALE
	}
	if err == nil {
		err = t.mounts.check(fd, st)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// stale turns errors that mean "the place has changed" into the one that makes the guest
// look the name up again.
func stale(err error) error {
	switch err {
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP: //nolint:errorlint // a bare errno
		return unix.ESTALE
	}
	return err
}

const statMask = unix.STATX_BASIC_STATS | unix.STATX_BTIME

func statAt(dir int, name string) (*unix.Statx_t, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err := unix.Statx(dir, name, flags, statMask, &st)
	return &st, err
}

func statFD(fd int) (*unix.Statx_t, error) { return statAt(fd, "") }

func device(st *unix.Statx_t) uint64 { return unix.Mkdev(st.Dev_major, st.Dev_minor) }

func keyOf(st *unix.Statx_t) key {
	k := key{dev: device(st), ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 {
		k.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return k
}

// checkName refuses a name that is not one component of a path. An honest kernel sends no
// others, but the guest may run a modified kernel.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return unix.EINVAL
	case len(name) > unix.NAME_MAX:
		return unix.ENAMETOOLONG
	}
	return nil
}

var inoSeed = maphash.MakeSeed()

// inode returns the inode number that the guest sees. File systems mounted below the root
// may use the same numbers as that of the root, so their numbers are hashed.
func (t *tree) inode(k key) uint64 {
	if k.dev == t.root.key.dev {
		return k.ino
	}
	return maphash.String(inoSeed, fmt.Sprint(k.dev, k.ino)) | 1<<63
}
