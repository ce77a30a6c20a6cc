package share

import (
	"container/list"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/undo"
)

// fileSystem answers the guest's requests. go-fuse answers ENOSYS to those that have no
// method here. Its methods are called by many goroutines at once.
type fileSystem struct {
	fuse.RawFileSystem

	file     string // the only name in the root, if not empty
	readOnly bool
	tree     *tree
	space    *space
	owners   *ownerStore
	undo     *undo.Recorder // nil: what the guest changes is not kept

	nameLocks nameLocks // keep.go

	mu         sync.Mutex
	handles    map[uint64]*handle
	nextHandle uint64
	maxHandles int

	// moves is held while something is renamed, and for reading while another change of a name
	// is judged and made: a file must not be made in a directory whose place, and so the
	// answer of the rules, changes meanwhile.
	moves   sync.RWMutex
	rules   *guard.Rules  // nil: nothing is guarded or hidden
	folds   bool          // names on the root's file system that differ in case are the same
	private *privateStore // nil: changes of guarded paths are refused
	events  *eventLog     // nil: not logged
	made    sync.Map      // of key: files that the guest made, where they take no attribute
	mades   atomic.Int64
	// vanished are directories of the host that are empty for the guest, which has removed them.
	vanished vanishedDirs

	listings  listings
	separator separator
	syncs     shared
	script    script     // file events (fileevents.go)
	changed   ownChanges // own.go

	reopened atomic.Int64 // files that the guest was told to look up again
}

// Bounds on what the guest may have open or known. Those of descriptors are lower where
// the process may have fewer (newFileSystem). Directories that are held open, nodes and
// listings make room for new ones (tree.trim, tree.evict, listings); a file or directory
// that the guest opens beyond maxHandles is ENFILE until it closes another.
const (
	maxOpenDirs = 16384
	maxHandles  = 65536
	maxNodes    = 1 << 20 // some 300 MB of memory, and as much of a saved state
	maxListings = 256     // of listings whose next entries are in memory, 32 KiB each
)

func newFileSystem(o Options) (*fileSystem, error) {
	// The path was resolved when the share was asked for. A link in it now was
	// put there since, maybe by a guest that may write above this directory.
	fd, err := unix.Openat2(unix.AT_FDCWD, o.Root, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", o.Root, err)
	}
	st, err := statFD(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", o.Root, err)
	}
	mounts, err := newMounts(fd, st)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("share %s: %w", o.Root, err)
	}
	descriptors() // before the process is confined
	limit := fileLimit()
	f := &fileSystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		file:          o.File,
		readOnly:      o.ReadOnly,
		tree:          newTree(&node{key: keyOf(st), typ: unix.S_IFDIR}, fd, min(maxOpenDirs, limit/4), mounts),
		owners:        newOwnerStore(),
		handles:       map[uint64]*handle{},
		maxHandles:    min(maxHandles, limit/2),
		listings:      listings{max: maxListings, open: list.New()},
	}
	f.space = newSpace(fd, f.syncRoot)
	if o.Limit > 0 {
		f.space.quota = &quota{limit: uint64(o.Limit), count: f.usage}
	}
	if err := f.prepareGuard(o, fd); err != nil {
		mounts.close()
		unix.Close(fd)
		return nil, fmt.Errorf("share %s: %w", o.Root, err)
	}
	if err := f.keepIn(o); err != nil {
		mounts.close()
		unix.Close(fd)
		return nil, err
	}
	if f.file != "" {
		f.tree.maxPins = 0 // what was moved from the file's name is not shared any more
	}
	return f, nil
}

func (f *fileSystem) String() string { return "bawn" }

// status turns an error of a system call into one of FUSE.
func status(err error) fuse.Status {
	if err == nil {
		return fuse.OK
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return fuse.Status(errno)
	}
	return fuse.EIO
}

// asError is the reverse of status.
func asError(st fuse.Status) error {
	if st == fuse.OK {
		return nil
	}
	return unix.Errno(st)
}

// entry makes the answer to a name that was found at a place, which is that of a private
// version if slot is set.
func (f *fileSystem) entry(parent *node, name string, slot bool, at file, st *unix.Statx_t, out *fuse.EntryOut) error {
	return f.enter(parent, name, slot, st, out, func(n *node) ownership { return f.ownership(n, at, st) })
}

// entryOfNew is entry for a file that was just made, with the record.
func (f *fileSystem) entryOfNew(parent *node, name string, slot bool, record *ownership, st *unix.Statx_t, out *fuse.EntryOut) error {
	return f.enter(parent, name, slot, st, out, func(n *node) ownership { return f.know(n, st, record) })
}

// enter makes the answer to a name whose node has the ownership.
func (f *fileSystem) enter(parent *node, name string, slot bool, st *unix.Statx_t, out *fuse.EntryOut, owner func(*node) ownership) error {
	if err := f.checkType(parent, st.Mode); err != nil {
		return err
	}
	n := f.tree.seen(parent, name, keyOf(st), st.Mode&unix.S_IFMT, slot)
	if n == nil {
		return unix.ENFILE
	}
	out.NodeId = n.id
	o := owner(n)
	f.fill(&out.Attr, st, o)
	f.tree.tell(n, st)
	out.SetEntryTimeout(staleAfter)
	out.SetAttrTimeout(staleAfter)
	if o.privileged() {
		out.SetAttrTimeout(0) // as in fillAttr
	}
	return nil
}

// find looks a name up and makes the answer.
func (f *fileSystem) find(s *spotAt, parent *node, name string, out *fuse.EntryOut) error {
	st, err := statAt(s.dir.fd, s.name)
	if err == nil {
		err = f.checkMount(s.dir.fd, s.name, st)
	}
	if err == nil && f.hasVanished(parent, s.dir.fd, s.name, st) {
		err = unix.ENOENT
	}
	if err != nil {
		return err
	}
	return f.entry(parent, name, s.slot, file{s.dir.fd, s.name}, st, out)
}

// Lookup implements fuse.RawFileSystem.
func (f *fileSystem) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent, err := f.dirFor(lookupName, h.NodeId, name)
	if err != nil {
		return status(err)
	}
	s, err := f.look(parent, name)
	if err == nil {
		defer s.close()
		err = f.find(&s, parent, name, out)
	}
	if err == nil {
		f.pinFound(&s, out)
	}
	if errors.Is(err, unix.ENOENT) {
		out.NodeId = 0 // may be remembered as well
		out.SetEntryTimeout(staleAfter)
		return fuse.OK
	}
	return status(err)
}

// pinFound keeps open what a look-up has found, if that is a directory or a small file: some process
// may stay in it without another look-up (pinned.go, follow.go).
func (f *fileSystem) pinFound(s *spotAt, out *fuse.EntryOut) {
	switch typ := out.Mode & unix.S_IFMT; {
	case typ == unix.S_IFREG && out.Size <= maxPinned:
		f.tree.pinNode(s.dir.fd, s.name, out.NodeId)
	case typ == unix.S_IFDIR:
		f.tree.holdFound(s.dir.fd, s.name, out.NodeId)
	}
}

// Forget implements fuse.RawFileSystem.
func (f *fileSystem) Forget(id, lookups uint64) { f.tree.forget(id, lookups) }

// open returns an O_PATH descriptor of a node. The caller closes it.
func (f *fileSystem) open(n *node) (int, *unix.Statx_t, error) {
	fd, st, err := f.openKnown(n)
	if errors.Is(err, unix.ESTALE) {
		return f.openHeld(n)
	}
	return fd, st, err
}

// openKnown is open by one of the places of the node.
func (f *fileSystem) openKnown(n *node) (int, *unix.Statx_t, error) {
	for tried := 0; ; tried++ {
		fd, st, err := f.openPlace(n)
		if !errors.Is(err, unix.ESTALE) {
			return fd, st, err
		}
		if !f.tree.turns(n, tried) && (tried > 0 || !f.tree.followHeld(n)) {
			return fd, st, err
		}
	}
}

func (f *fileSystem) openPlace(n *node) (int, *unix.Statx_t, error) {
	p, err := f.tree.at(n)
	if err != nil {
		return -1, nil, err
	}
	defer p.close()
	name := p.name
	if name == "" {
		name = "."
	}
	fd, err := unix.Openat(p.dir.fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, nil, stale(err)
	}
	st, err := statFD(fd)
	if err == nil && keyOf(st) != n.key && p.name != "" { // the root is the root
		err = unix.ESTALE
	}
	if err == nil {
		err = f.tree.mounts.check(fd, st)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, st, nil
}

// magic returns a path that leads to the file of an open descriptor, whatever its name is now.
func magic(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// reopen opens the file or directory at an O_PATH descriptor.
func reopen(fd, flags int, st *unix.Statx_t) (int, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		dir, name := link(fd)
		return unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	case unix.S_IFLNK:
		return -1, unix.ELOOP
	}
	return -1, unix.EACCES // the guest has its own FIFOs and devices
}

// stat finds a node's attributes, and what the guest sees of them.
func (f *fileSystem) stat(n *node) (*unix.Statx_t, ownership, error) {
	p, err := f.tree.at(n)
	if err == nil {
		defer p.close()
		st, err := statAt(p.dir.fd, p.name)
		if err == nil && (keyOf(st) == n.key || n == f.tree.root) {
			return st, f.ownership(n, file{p.dir.fd, p.name}, st), nil
		}
	}
	fd, st, err := f.open(n)
	if err != nil {
		return nil, ownership{}, err
	}
	defer unix.Close(fd)
	return st, f.ownership(n, file{fd: fd}, st), nil
}

// Readlink implements fuse.RawFileSystem.
func (f *fileSystem) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.nodeFor(readNode, h)
	if err != nil {
		return nil, status(err)
	}
	fd, _, err := f.open(n)
	if err != nil {
		return nil, status(err)
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	got, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return nil, status(err)
	}
	return buf[:got], fuse.OK
}

// StatFs implements fuse.RawFileSystem.
func (f *fileSystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	st, err := f.space.look()
	if err != nil {
		return status(err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), NameLen: unix.NAME_MAX, Frsize: uint32(st.Frsize),
	}
	return fuse.OK
}
