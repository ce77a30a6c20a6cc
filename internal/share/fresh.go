package share

import (
	"time"

	"golang.org/x/sys/unix"
)

// Freshness. Who opens a file in the guest after a program of the host has closed it reads
// what that program wrote (close-to-open consistency, as NFS has it), with size and times.
// The guest's kernel knows names and attributes for a short time without a request, so each
// OPEN compares the file with what the guest was told of it last. If the host changed it
// since, the answer is ESTALE: the kernel then looks the whole path up once more
// (path_openat with LOOKUP_REVAL), gets the new attributes, and opens again. An OPEN of
// an unchanged file costs nothing more.
//
// What has no OPEN, such as stat(2) or the absence of a name, may be staleAfter old.

// staleAfter is how long the guest may keep a name, its absence, and attributes in its
// cache. It is shorter than the start of a command, so that a command sees what the host
// changed before it.
const staleAfter = 50 * time.Millisecond

// listedFor is staleAfter for the entries of a directory that is being listed: a program
// looks at all of them next, and that takes longer for a long directory.
const listedFor = 250 * time.Millisecond

// report is what the guest was told last of a file's contents. The zero value means that
// its kernel does not rely on any of it: it changed the file itself.
type report struct {
	size  uint64
	mtime unix.StatxTimestamp
	valid bool
}

func reportOf(st *unix.Statx_t) report { return report{size: st.Size, mtime: st.Mtime, valid: true} }

// tell notes that the guest gets these attributes of a node.
func (t *tree) tell(n *node, st *unix.Statx_t) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.told, n.refused = reportOf(st), false
}

// changedBy notes that the guest changes a file that it has open.
func (t *tree) changedBy(h *handle) {
	h.wrote.Store(true)
	t.changedByGuest(h.node)
}

// changedByGuest notes that the guest changes a node's contents. Its kernel then asks for the
// attributes again before it uses them (fuse_write_update_attr in Linux).
func (t *tree) changedByGuest(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.told = report{}
}

// outdated reports whether the guest, which opens a node, was told something else of it
// than these attributes. It does so once for each change: a file that is reached without a
// look-up, such as one that is mounted somewhere in the guest, cannot be looked up again. Its
// attributes are not kept from then on.
func (t *tree) outdated(n *node, st *unix.Statx_t) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, now := n.told, reportOf(st)
	n.told = now
	n.nameless = n.nameless || n.refused
	n.refused = was.valid && was != now
	return n.refused
}

// attrTimeout returns how long the guest may keep a node's attributes.
func (t *tree) attrTimeout(n *node) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.nameless {
		return 0
	}
	return staleAfter
}

// stamp tells whether a file's contents may have changed.
type stamp struct {
	size         uint64
	mtime, ctime unix.StatxTimestamp
	at           time.Time // when it was taken
}

func stampOf(st *unix.Statx_t) stamp {
	return stamp{size: st.Size, mtime: st.Mtime, ctime: st.Ctime, at: time.Now()}
}

// How long before a stamp a file must have been left alone, so that a later change shows in
// its times.
const (
	// settled is more than the resolution of times, a tick of the host's clock: 10 ms at most.
	settled = 50 * time.Millisecond
	// writtenBack is for files that a program of the host may have mapped. Its write to a
	// clean page of a mapping changes the file's times at once; further writes to the page
	// change them no more until the kernel has written the page to disk, which it does after
	// vm.dirty_expire_centisecs and vm.dirty_writeback_centisecs (30 and 5 s unless the
	// host has other settings; Linux, admin-guide/sysctl/vm).
	writtenBack = time.Minute
)

func (s stamp) same(o stamp, after time.Duration) bool {
	return s.size == o.size && s.mtime == o.mtime && s.ctime == o.ctime &&
		s.at.Sub(time.Unix(s.ctime.Sec, int64(s.ctime.Nsec))) > after
}

// unchanged reports whether the contents that the guest has in its page cache are still
// those of the file, which has these attributes now.
func (f *fileSystem) unchanged(n *node, st *unix.Statx_t) bool {
	now := stampOf(st)
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	was := n.stamp
	n.stamp = now
	after := writtenBack
	if n.own == reportOf(st) {
		after = settled
	}
	return was.same(now, after) && f.tree.mounts.showsMappedWrites(st)
}

// showsMappedWrites reports whether writes to a mapping change the times of a file: not in
// memory, where no page is ever written back. Below other mounts it is not known.
func (m *mounts) showsMappedWrites(st *unix.Statx_t) bool {
	return device(st) == m.rootDev && m.rootType != unix.TMPFS_MAGIC && m.rootType != unix.RAMFS_MAGIC
}

// noteOwn notes a file's contents as the guest leaves them when it closes it.
func (f *fileSystem) noteOwn(h *handle) {
	st, err := f.leftNode(h.node, h.fd)
	if err != nil {
		return
	}
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	h.node.own = reportOf(st)
}
