package share

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/undo"
)

// This file records what the guest changes before it does (package undo). Each operation that
// changes anything calls keepName for each name that it makes, removes or replaces, or
// keepNode or beforeWrite for the file whose contents or attributes it changes; and afterwards
// leftName, leftNode or leftHandle, so that an undo can tell the guest's change from a later one
// of the host.

// keepIn makes the share record its changes in the directory that the options name.
func (f *fileSystem) keepIn(o Options) error {
	if o.Undo == "" || o.ReadOnly || o.File != "" {
		return nil
	}
	store, err := unix.Open(o.Undo, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the directory of undo %s: %w", o.Undo, err)
	}
	f.undo = undo.NewRecorder(store, undo.WhySession)
	return nil
}

// pathOf returns the path of a node with more components behind it. ok is false for one
// without a place in the project. The caller holds the mutex.
func (t *tree) pathOf(n *node, rest string) (path string, ok bool) {
	parts := []string{}
	if rest != "" {
		parts = append(parts, rest)
	}
	for ; n != t.root; n = n.parent {
		if n == nil || n.private || len(parts) > depthLimit {
			return "", false
		}
		parts = append(parts, n.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/"), true
}

// pathAt returns the path of a spot.
func (t *tree) pathAt(s spot) (path string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pathOf(s.parent, s.name)
}

// paths returns all places where a node was seen.
func (t *tree) paths(n *node) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	if path, ok := t.pathOf(n, ""); ok && n != t.root {
		list = append(list, path)
	}
	for _, s := range n.also {
		if path, ok := t.pathOf(s.parent, s.name); ok {
			list = append(list, path)
		}
	}
	return list
}

// nameLocks are held, by directory and name, from before a name is recorded until it is noted how it was left.
// A guest's kernel changes one name at a time, but a hostile one may not, to make its changes look like those of
// the host.
type nameLocks [256]sync.Mutex

// lock locks names. The caller calls unlock.
func (l *nameLocks) lock(names ...spot) (unlock func()) {
	var list []int
	for _, s := range names {
		h := fnv.New32a()
		_, _ = h.Write(binary.NativeEndian.AppendUint64([]byte(s.name), s.parent.id))
		list = append(list, int(h.Sum32())%len(l))
	}
	slices.Sort(list)
	list = slices.Compact(list)
	for _, i := range list {
		l[i].Lock()
	}
	return func() {
		for _, i := range list {
			l[i].Unlock()
		}
	}
}

// lockNames is lock, if the share keeps what the guest changes.
func (f *fileSystem) lockNames(names ...spot) (unlock func()) {
	if f.undo == nil {
		return func() {}
	}
	return f.nameLocks.lock(names...)
}

// keepName records a name in a directory, and the place where it acts, that is about to be made,
// removed or replaced. What lies in a private version is not the project's. found are the attributes of
// what the caller has just found there, or nil. The caller calls leftName or leftNameAs after the change.
func (f *fileSystem) keepName(parent *node, s *spotAt, name string, found *unix.Statx_t) {
	if f.undo == nil || s.private {
		return
	}
	f.undo.Names.RLock()
	defer f.undo.Names.RUnlock()
	f.keepNameLocked(parent, s, name, found)
}

// keepNameLocked is keepName for a caller that holds the recorder's Names.
func (f *fileSystem) keepNameLocked(parent *node, s *spotAt, name string, found *unix.Statx_t) {
	path, ok := f.tree.pathAt(spot{parent, name})
	if !ok {
		return
	}
	e, first := f.undo.BeforeName(undo.Source{FD: s.dir.fd, Name: s.name, New: found == nil, Also: f.tree.otherPaths}, path)
	if s.entry = e; e != nil && !first {
		f.metName(e, s, found)
	}
}

// metName notes what the guest finds at a name when it changes it again, unless it is changing the file.
func (f *fileSystem) metName(e *undo.Entry, s *spotAt, found *unix.Statx_t) {
	st, err := found, error(nil)
	if st == nil {
		st, err = statAt(s.dir.fd, s.name)
	}
	if err != nil {
		f.undo.Met(e, nil)
		return
	}
	f.tree.mu.Lock()
	n := f.tree.byKey[keyOf(st)]
	f.tree.mu.Unlock()
	if n != nil {
		if !n.work.mu.TryLock() {
			return
		}
		defer n.work.mu.Unlock()
		if n.work.running > 0 || f.tree.beingWritten(keyOf(st)) {
			return
		}
	}
	if n != nil || found != nil {
		if st, err = statAt(s.dir.fd, s.name); err != nil {
			st = nil // the host has just removed it
		}
	}
	f.undo.Met(e, st)
}

// otherPaths returns the places where a file was seen that has several names.
func (t *tree) otherPaths(st *unix.Statx_t) []string {
	if isDir(st) || st.Nlink < 2 {
		return nil
	}
	t.mu.Lock()
	n := t.byKey[keyOf(st)]
	t.mu.Unlock()
	if n == nil {
		return nil
	}
	return t.paths(n)
}

// beingWritten reports whether the guest has a file open that it has written, so that how it left
// the file may not be noted yet.
func (t *tree) beingWritten(k key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	if n == nil {
		return false
	}
	for h := range n.handles {
		if h.wrote.Load() {
			return true
		}
	}
	return false
}

// leftAll notes how the guest has left the files that it is writing.
func (f *fileSystem) leftAll() {
	f.mu.Lock()
	var list []*handle
	for _, h := range f.handles {
		if h.wrote.Load() && h.fd >= 0 {
			h.users++
			list = append(list, h)
		}
	}
	f.mu.Unlock()
	for _, h := range list {
		_, _ = f.leftNode(h.node, h.fd)
		f.done(h)
	}
}

// leftName notes how a name was left, unless leftNameAs was called.
func (f *fileSystem) leftName(s *spotAt) {
	if s.entry == nil {
		return
	}
	st, err := statAt(s.dir.fd, s.name)
	if err != nil {
		st = nil
	}
	f.leftNameAs(s, st)
}

// leftNameAs notes how the request has left a name, where it knows that: st is of the file there, or nil if it has
// removed it. It is called before the guest can know the file, and so change it again.
func (f *fileSystem) leftNameAs(s *spotAt, st *unix.Statx_t) {
	if s.entry != nil {
		f.undo.After(s.entry, st)
		s.entry = nil
	}
}

// keepNode records a node, open at a descriptor, whose contents or attributes are about to
// change. The caller has called changing.
func (f *fileSystem) keepNode(n *node, fd int) {
	if f.undo == nil || n == f.tree.root {
		return
	}
	n.work.mu.Lock()
	n.work.recorded = true
	n.work.mu.Unlock()
	f.undo.Names.RLock()
	defer f.undo.Names.RUnlock()
	f.undo.Before(undo.Source{FD: fd}, f.tree.paths(n)...)
}

// leftNode notes how a node was left, which is open at a descriptor, and returns its attributes.
func (f *fileSystem) leftNode(n *node, fd int) (*unix.Statx_t, error) {
	if f.undo == nil {
		return statFD(fd)
	}
	n.work.mu.Lock() // so that the last one to look is the last one to say
	defer n.work.mu.Unlock()
	st, err := statFD(fd)
	if err == nil {
		f.leftAs(n, st)
	}
	return st, err
}

// leftAs notes how a node was left. The caller holds its work's mutex.
func (f *fileSystem) leftAs(n *node, st *unix.Statx_t) {
	f.undo.Names.RLock()
	defer f.undo.Names.RUnlock()
	for _, e := range f.undo.Seen(f.tree.paths(n)...) {
		f.undo.After(e, st)
	}
}

// beginWrite prepares the file of a handle for a change of its contents. It refuses one that the host
// has moved away (here.go), makes it one of the share alone (separate.go), and records it. It costs
// little for one that was recorded since the last restore point. Without an error the caller calls done after the
// change.
func (f *fileSystem) beginWrite(h *handle) (done func(), err error) {
	if err := f.checkHandle(h); err != nil {
		return nil, err
	}
	done, st := f.changingBy(h, h.node, h.fd)
	if err := f.keepHandle(h, st); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// beforeWrite is beginWrite in a request that has called changing for the node.
func (f *fileSystem) beforeWrite(h *handle) error {
	if err := f.checkHandle(h); err != nil {
		return err
	}
	return f.keepHandle(h, nil)
}

// keepHandle is the part of beginWrite that separates and records the file. st are its attributes as they were a
// moment ago, or nil.
func (f *fileSystem) keepHandle(h *handle, st *unix.Statx_t) error {
	if err := f.separateHandle(h, st); err != nil || f.undo == nil {
		return err
	}
	if now := f.undo.Generation(); h.kept.Load() != now {
		f.keepNode(h.node, h.fd)
		h.kept.Store(now)
	}
	return nil
}

// ownWork tells the guest's changes of a file from those of the host in between.
type ownWork struct {
	mu         sync.Mutex // held while the file's attributes are compared or noted; taken before Recorder.Names
	running    int        // requests of the guest that are under way
	left       report     // of the file after the last of them; not valid while one is under way
	generation uint64     // of the restore point at the beginning of that request
	recorded   bool       // by a request that is under way, so that it must be noted how the file is left, also if that fails
}

// changing is called before a request that changes a node's file, open at a descriptor, and before that is
// recorded. The caller calls done after the change. If the host has changed the file since the guest's last
// request, an undo leaves it alone. This does not wait until the guest closes the file, which it may hold
// open all the time.
func (f *fileSystem) changing(n *node, fd int) (done func()) {
	done, _ = f.changingBy(nil, n, fd)
	return done
}

// changingBy is changing by an open file, or by none (nil). It returns the attributes of the file too, if it has
// looked at them.
func (f *fileSystem) changingBy(h *handle, n *node, fd int) (done func(), now *unix.Statx_t) {
	if f.undo == nil || n == f.tree.root {
		return func() {}, nil
	}
	generation := f.undo.Generation()
	w := &n.work
	w.mu.Lock()
	defer w.mu.Unlock()
	st, err := statFD(fd)
	if err == nil {
		now = st
	}
	if err == nil && w.running == 0 {
		f.met(n, st, w.left.valid && w.generation == generation && w.left != reportOf(st) && !n.isDir())
	}
	w.running++
	w.left, w.generation = report{}, generation
	return func() { f.endChange(h, n, fd) }, now
}

// endChange ends changingBy.
func (f *fileSystem) endChange(h *handle, n *node, fd int) {
	w := &n.work
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running--
	last, due := w.running == 0, h != nil && h.due.Swap(false)
	if !last && !due {
		return // the last request says how the file was left
	}
	st, err := statFD(fd)
	if err != nil {
		return
	}
	if due || w.recorded {
		f.leftAs(n, st)
	}
	if last {
		w.left, w.recorded = reportOf(st), false
	}
}

// met notes what the guest finds of a node when it changes it again. mixed is set if that is not what its last
// request left; a file that it does not write is compared with how it left it then.
func (f *fileSystem) met(n *node, st *unix.Statx_t, mixed bool) {
	if n.isDir() {
		return // its times change with what lies in it
	}
	written := f.tree.beingWritten(keyOf(st))
	if written && !mixed {
		return
	}
	f.undo.Names.RLock()
	defer f.undo.Names.RUnlock()
	for _, e := range f.undo.Seen(f.tree.paths(n)...) {
		if mixed {
			f.undo.Mixed(e)
		} else {
			f.undo.Met(e, st)
		}
	}
}

// leftEvery is how often the state of a file is noted that the guest goes on writing. A server
// that is killed loses so much.
const leftEvery = int64(time.Second)

// leftHandle makes the end of the change (endChange) note now and then how a file was left that the guest writes.
func (f *fileSystem) leftHandle(h *handle) {
	if f.undo == nil {
		return
	}
	now := time.Now().UnixNano()
	if last := h.noted.Load(); now-last < leftEvery || !h.noted.CompareAndSwap(last, now) {
		return
	}
	h.due.Store(true)
}

// ofDir reports whether the rename is of a directory, or exchanges one.
func (r *renaming) ofDir() bool {
	return isDir(r.moved) || r.flags&unix.RENAME_EXCHANGE != 0 && r.other != nil && isDir(r.other)
}

func isDir(st *unix.Statx_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// onHost renames on the host.
func (f *fileSystem) onHost(r *renaming) error {
	f.separator.names.RLock()
	defer f.separator.names.RUnlock()
	return unix.Renameat2(r.pa.dir.fd, r.pa.name, r.pb.dir.fd, r.pb.name, r.flags)
}

// renameKept renames, and records what that changes. A directory is not recorded with all that
// is in it, but as renamed: no name is recorded meanwhile.
func (f *fileSystem) renameKept(r *renaming) error {
	switch {
	case f.undo == nil || r.pa.private:
		return f.onHost(r)
	case !r.ofDir():
		return f.renameFile(r)
	}
	f.undo.Names.Lock()
	defer f.undo.Names.Unlock()
	from, ok := f.tree.pathAt(spot{r.a, r.from})
	to, known := f.tree.pathAt(spot{r.b, r.to})
	if !ok || !known || from == to {
		return f.onHost(r) // from and to: that does nothing
	}
	if r.flags&unix.RENAME_EXCHANGE != 0 {
		err := f.onHost(r)
		if err == nil && r.other != nil {
			f.undo.Swapped(from, to, r.moved.Ino, r.other.Ino)
		}
		return err
	}
	f.keepNameLocked(r.b, r.pb, r.to, r.other)
	err := f.onHost(r)
	if err != nil {
		f.leftName(r.pb)
		return err
	}
	f.undo.Moved(from, to, r.moved.Ino)
	f.leftNameAs(r.pb, nil)
	return nil
}

// renameFile is renameKept for what is no directory. Both names are recorded.
func (f *fileSystem) renameFile(r *renaming) error {
	f.keepName(r.a, r.pa, r.from, r.moved)
	f.keepName(r.b, r.pb, r.to, r.other)
	err := f.onHost(r)
	f.leftName(r.pa)
	f.leftName(r.pb)
	return err
}
