package share

import (
	"container/list"
	"encoding/binary"
	"errors"
	"hash/fnv"
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
	parent   *node // the directory in which it was last seen; nil once it is known to be removed
	name     string
	lookups  uint64 // look-ups that the guest has not forgotten
	kids     int    // nodes with this parent
	handles  map[*handle]struct{}
	stamp    stamp // of the contents that the guest may have cached
	told     report
	own      report // of the contents as the guest left them
	refused  bool   // the guest was told to look it up again (outdated) and has not done so
	nameless bool   // the guest reaches it without look-ups
	lost     bool   // its name was found to lead elsewhere, and the guest has not looked it up since
	private  bool   // it is a private version: it lies in the store, not in its parent
	rebound  bool   // while loading: key is that of the inode that lies here now
	owner    knownOwner
	mine     ownChange // the guest's last change of it (own.go)
	work     ownWork

	privileged atomic.Bool // the guest sees set-user-ID or set-group-ID

	also []spot // other places of a file where it was seen (hard links)

	fd      *dirFD        // directories: nil, or in the list of open ones
	idle    bool          // walks do not use fd: they must see what the host mounts over the directory (follow.go)
	pin     *dirFD        // files: nil, or in the list of pinned ones (pinned.go)
	element *list.Element // in one of these lists
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
	store  *privateStore // nil: there are no private versions

	open    *list.List // nodes whose fd is open, the latest used first
	maxOpen int
	pins    *list.List // nodes that are pinned, the latest looked up first
	maxPins int
}

// depthLimit bounds how far up a node's place is followed. A path has at most
// 4096 bytes, so no more components.
const depthLimit = 2048

func newTree(root *node, fd int, maxOpen int, m *mounts) *tree {
	t := &tree{mounts: m, maxNodes: maxNodes, root: root, byID: map[uint64]*node{}, byKey: map[key]*node{}, next: rootID + 1, open: list.New(), maxOpen: maxOpen, pins: list.New(), maxPins: min(maxPins, maxOpen/4)}
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
// up once more, as a private version or not. It returns nil if there are too many nodes, all of them in use.
func (t *tree) seen(parent *node, name string, k key, typ uint16, private bool) *node {
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
	n.lost, n.private = false, private
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
	old := spot{n.parent, n.name}
	n.parent, n.name = parent, name
	if parent != nil {
		parent.kids++
	}
	t.leave(spot{parent, name}, n) // it is the first now
	switch {
	case old.parent == nil:
	case parent != nil && !n.isDir():
		t.keepSpot(n, old)
	default:
		t.leaveDir(old.parent)
	}
}

// moved notes a rename that succeeded, to the place of a private version or another.
func (t *tree) moved(fromDir *node, from string, toDir *node, to string, k key, private bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n == nil {
		return
	}
	first := n.parent == fromDir && n.name == from
	if first || t.leave(spot{fromDir, from}, n) {
		t.place(n, toDir, to)
		t.leave(spot{fromDir, from}, n)
		n.private = private
	}
}

// rekey notes that a node's inode has become another one because of the guest's own change:
// on overlay, a file of a lower directory gets an inode in the upper one.
func (t *tree) rekey(n *node, st *unix.Statx_t) {
	k := keyOf(st)
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.key == k || n == t.root || t.byID[n.id] != n || t.mounts.rootType != unix.OVERLAYFS_SUPER_MAGIC {
		return
	}
	if t.byKey[n.key] == n {
		delete(t.byKey, n.key)
	}
	n.key, t.byKey[k] = k, n
}

// gone notes that a name was removed, if the node was there.
func (t *tree) gone(parent *node, name string, k key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	switch {
	case n == nil:
	case n.parent != parent || n.name != name:
		t.leave(spot{parent, name}, n)
	case len(n.also) > 0:
		t.turn(n)
		t.leave(spot{parent, name}, n)
	default:
		t.place(n, nil, "")
		t.drop(n)
	}
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
		t.unpin(n)
		for len(n.also) > 0 {
			t.leave(n.also[0], n)
		}
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
	n.fd, n.element, n.idle = nil, nil, false
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

func (p place) close() { p.tree.doneWith(p.dir) }

// in opens a directory node.
func (t *tree) in(n *node) (place, error) {
	d, err := t.openDir(n)
	return place{t, d, ""}, err
}

// at opens a node's directory. For the root, the name is empty.
func (t *tree) at(n *node) (place, error) {
	t.mu.Lock()
	parent, name, private := n.parent, n.name, n.private
	t.mu.Unlock()
	if n == t.root {
		parent, name = n, ""
	}
	if parent == nil {
		return place{}, unix.ESTALE
	}
	if private {
		return t.versionPlace(parent, name)
	}
	d, err := t.openDir(parent)
	return place{t, d, name}, err
}

// step is one component of the way to a directory: a node as it was when the way was read.
type step struct {
	n    *node
	name string
	key  key
}

// openDir returns a directory's descriptor, also where the host has renamed it or one above it.
// The caller ends its use with unref.
func (t *tree) openDir(n *node) (*dirFD, error) {
	fd, err := t.walkTo(n)
	if errors.Is(err, unix.ESTALE) && t.followHeld(n) {
		return t.walkTo(n)
	}
	return fd, err
}

// walkTo is openDir by the known place of the directory, from the first ancestor that is open.
// The walk is done without the mutex: a directory on a mount that hangs must not hold up requests
// elsewhere.
func (t *tree) walkTo(n *node) (*dirFD, error) {
	fd, way, err := t.way(n)
	for i := len(way) - 1; i >= 0 && err == nil; i-- {
		var next *dirFD
		next, err = t.enter(fd, way[i])
		t.doneWith(fd)
		fd = next
	}
	if err != nil {
		return nil, err
	}
	return fd, nil
}

// way returns the first open directory above a node, for use, and the way down from there,
// backwards.
func (t *tree) way(n *node) (*dirFD, []step, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var way []step
	at := n
	for at.fd == nil || at.idle {
		if at.private {
			c, err := t.chainLocked(at.parent)
			if err != nil {
				return nil, nil, err
			}
			t.store.root.users++
			return t.store.root, append(way, step{at, t.store.path(c.names) + "/" + slotPrefix + at.name, at.key}), nil
		}
		way = append(way, step{at, at.name, at.key})
		if at = at.parent; at == nil || len(way) > depthLimit {
			return nil, nil, unix.ESTALE
		}
	}
	t.used(at)
	at.fd.users++
	return at.fd, way, nil
}

// enter opens the directory of a step, for use, and keeps it open.
func (t *tree) enter(dir *dirFD, s step) (*dirFD, error) {
	fd, err := t.walk(dir.fd, s)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	d := &dirFD{fd: fd, users: 1}
	if s.n.idle {
		t.closeFD(s.n)
	}
	if s.n.fd == nil && t.byID[s.n.id] == s.n {
		d.users++
		s.n.fd, s.n.element = d, t.open.PushFront(s.n)
		t.trim()
	}
	return d, nil
}

// doneWith ends the use of a descriptor.
func (t *tree) doneWith(d *dirFD) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unref(d)
}

func (t *tree) used(n *node) {
	switch {
	case n.element == nil:
	case n.pin != nil:
		t.pins.MoveToFront(n.element)
	default:
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

// walk opens the child of a directory that a step leads to, and no other.
func (t *tree) walk(dir int, n step) (int, error) {
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

// keyOf returns what identifies an inode. The birth time is part of it on block devices,
// whose file systems use numbers of inodes again. Those without a device (overlay, FUSE,
// tmpfs, btrfs) do not, or change the birth time of a file: overlay when it is first
// written.
func keyOf(st *unix.Statx_t) key {
	k := key{dev: device(st), ino: st.Ino}
	if st.Mask&unix.STATX_BTIME != 0 && st.Dev_major != 0 {
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

// hashedInode is set in numbers of inodes that are hashed. Numbers stay below 1<<53, so that
// programs that keep them as floating point (JavaScript) can tell them apart.
const hashedInode = 1 << 52

// inode returns the inode number that the guest sees. File systems mounted below the root
// may use the same numbers as that of the root, so their numbers are hashed.
func (t *tree) inode(k key) uint64 {
	if k.dev == t.root.key.dev {
		return k.ino
	}
	h := fnv.New64a()
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], k.dev)
	binary.NativeEndian.PutUint64(b[8:], k.ino)
	_, _ = h.Write(b[:])
	return h.Sum64()&(hashedInode-1) | hashedInode
}
