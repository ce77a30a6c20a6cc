package share

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/undo"
)

// Guarded and hidden paths: what package guard says about a place of the share, and where a
// request for it acts, on the host or on a private version (private.go).

// chain is the way from the root to a directory.
type chain struct {
	nodes []*node
	names []string
	// private is whether the directory is, or lies below, a private version.
	private bool
}

// chain returns the way to a node. It is ESTALE for one that has no place any more.
func (t *tree) chain(n *node) (c chain, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.chainLocked(n)
}

func (t *tree) chainLocked(n *node) (c chain, err error) {
	for at := n; at != t.root; at = at.parent {
		if at.parent == nil || len(c.nodes) > depthLimit {
			return chain{}, unix.ESTALE
		}
		c.nodes = append(c.nodes, at)
		c.names = append(c.names, at.name)
		c.private = c.private || at.private
	}
	slices.Reverse(c.nodes)
	slices.Reverse(c.names)
	return c, nil
}

// view judges the names in one directory.
type view struct {
	fs    *fileSystem
	dir   *node
	chain chain
	// slot is the first node on the way whose path is guarded, and nil if there is none.
	slot *node
	// hidden is whether the path is hidden: the host made it so since the guest looked it up.
	hidden bool
}

// view returns the judge of a directory's names.
func (f *fileSystem) view(dir *node) (*view, error) {
	v := &view{fs: f, dir: dir}
	var err error
	if v.chain, err = f.tree.chain(dir); err != nil || v.chain.private {
		return v, err
	}
	for i, n := range v.chain.nodes {
		if !f.rules.Candidate(v.chain.names[i]) {
			continue
		}
		up := f.tree.root
		if i > 0 {
			up = v.chain.nodes[i-1]
		}
		switch f.judgeAt(up, v.chain.names[:i], v.chain.names[i], true) {
		case guard.Guarded:
			v.slot = n
			return v, nil
		case guard.Hidden:
			v.hidden = true
			return v, nil
		}
	}
	return v, nil
}

// judge returns what applies to a name in the directory, for a request about a directory
// (isDir) or anything else, where the host has no such name.
func (v *view) judge(name string, isDir bool) guard.Kind {
	if name == "" || v.chain.private || !v.fs.rules.Candidate(name) {
		return guard.Free
	}
	kind := v.fs.judgeAt(v.dir, v.chain.names, name, isDir)
	if v.slot != nil && kind != guard.Hidden {
		return guard.Free // it goes with the guarded directory
	}
	return kind
}

// judgeAt asks the rules about a name in a directory.
func (f *fileSystem) judgeAt(dir *node, names []string, name string, isDir bool) guard.Kind {
	return f.judgeIn(f.opener(dir), names, name, isDir)
}

// opener returns what opens a directory for judgeIn.
func (f *fileSystem) opener(dir *node) func() (fd int, done func(), err error) {
	return func() (int, func(), error) {
		p, err := f.tree.in(dir)
		if err != nil {
			return -1, nil, err
		}
		return p.dir.fd, p.close, nil
	}
}

// judgeIn is judgeAt for a directory that open opens, if the answer depends on what is in it.
func (f *fileSystem) judgeIn(open func() (dir int, done func(), err error), names []string, name string, isDir bool) guard.Kind {
	p, done := f.placeIn(open, names, name, isDir)
	defer done()
	kind, _ := f.rules.Judge(p)
	return kind
}

// protects reports whether a name that is to become a directory, or anything else, is guarded or hidden as that,
// whatever the host has there now.
func (v *view) protects(name string, isDir bool) bool {
	if name == "" || v.chain.private || v.slot != nil || !v.fs.rules.Candidate(name) {
		return false
	}
	p, done := v.fs.placeIn(v.fs.opener(v.dir), v.chain.names, name, isDir)
	defer done()
	p.IsDir = func() bool { return isDir }
	kind, _ := v.fs.rules.Judge(p)
	return kind == guard.Guarded || kind == guard.Hidden
}

// placeIn returns the place of a name in a directory that open opens when the rules ask what is in it. The caller
// calls done after that.
func (f *fileSystem) placeIn(open func() (dir int, done func(), err error), names []string, name string, isDir bool) (p guard.Place, done func()) {
	dir := -1
	end := func() {}
	host := func() (int, bool) {
		if dir < 0 {
			fd, opened, err := open()
			if err != nil {
				return -1, false
			}
			dir, end = fd, opened
		}
		return dir, true
	}
	look := func(name string) *unix.Statx_t {
		fd, ok := host()
		if !ok {
			return nil
		}
		st, err := statAt(fd, name)
		if err != nil {
			return nil
		}
		return st
	}
	return guard.Place{
		Dir: names, Name: name, Folds: f.folds,
		Has: func(name string) bool { return look(name) != nil },
		HasConfig: func() bool {
			fd, ok := host()
			return ok && f.hasConfig(fd)
		},
		IsDir: func() bool {
			st := look(name)
			return st == nil && (isDir || f.private.isDir(names, name)) || st != nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
		},
		Contains: func(texts []string) bool {
			st := look(name)
			return st != nil && st.Mode&unix.S_IFMT == unix.S_IFREG && contains(dir, name, texts)
		},
		Made: func() bool {
			st := look(name)
			return st != nil && f.madeByGuest(file{dir, name}, st)
		},
	}, func() { end() }
}

// hasConfig reports whether a directory of the host has a file of git's configuration that the guest did not
// make.
func (f *fileSystem) hasConfig(dir int) bool {
	st, err := statAt(dir, "config")
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && contains(dir, "config", guard.GitConfig) && !f.madeByGuest(file{dir, "config"}, st)
}

// sniffed is how much of a file is read for the texts that make it a secret, in bytes.
const sniffed = 64 << 10

// contains reports whether a file holds one of the texts, or cannot be read.
func contains(dir int, name string, texts []string) bool {
	at, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(at)
	st, err := statFD(at)
	if err != nil {
		return true
	}
	fd, err := reopen(at, unix.O_RDONLY, st)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	buf := make([]byte, min(sniffed, st.Size+1))
	n, err := unix.Pread(fd, buf, 0)
	text := string(buf[:max(n, 0)])
	return err != nil || slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(text, s) })
}

// spotAt is where a request about a name in a directory acts.
type spotAt struct {
	place
	kind guard.Kind
	// slot is whether the place is that of a private version in the store, which may not be
	// there yet.
	slot bool
	// private is whether the place is in the store, as a slot or below one.
	private bool
	// removed is whether the guest has removed what the host has there.
	removed bool
	view    *view
	// hostDir is the path of the directory on the host, as toChange has found it; empty if it was not read.
	hostDir string
	// entry is what undo has recorded of the name; nil when it was noted how the guest left it (keep.go).
	entry *undo.Entry
}

// look returns where a name that is looked up lies: ENOENT if the guest has no such name.
func (f *fileSystem) look(parent *node, name string) (spotAt, error) {
	s := spotAt{}
	var err error
	if f.rules != nil && f.rules.Candidate(name) {
		if s, err = f.lookSlot(parent, name); err != nil || s.slot {
			return s, err
		}
	}
	s.place, err = f.tree.in(parent)
	s.name = name
	return s, err
}

// lookSlot is look for a name that rules may apply to. If it is no slot that has a version,
// the place is not set.
func (f *fileSystem) lookSlot(parent *node, name string) (s spotAt, err error) {
	if s.view, err = f.view(parent); err != nil {
		return s, err
	}
	s.private = s.view.chain.private
	s.kind = s.view.judge(name, false)
	if s.kind != guard.Guarded && s.kind != guard.Hidden {
		return s, nil
	}
	if f.private != nil && s.view.slot == nil {
		there, removed := f.private.version(s.view.chain.names, name)
		if there {
			s.slot, s.private = true, true
			s.place, err = f.slotPlace(s.view.chain.names, name)
			return s, err
		}
		if removed {
			return s, unix.ENOENT
		}
	}
	if s.kind == guard.Hidden {
		return s, unix.ENOENT
	}
	return s, nil
}

// versionPlace returns the place of a private version.
func (t *tree) versionPlace(parent *node, name string) (place, error) {
	c, err := t.chain(parent)
	if err != nil {
		return place{}, err
	}
	fd, err := t.store.open(c.names)
	if err != nil {
		return place{}, stale(err)
	}
	return place{t, &dirFD{fd: fd, users: 1}, slotPrefix + name}, nil
}

// slotPlace returns the place of a slot in the store, whose directory must be there.
func (f *fileSystem) slotPlace(dir []string, name string) (place, error) {
	fd, err := f.private.open(dir)
	if err != nil {
		return place{}, err
	}
	return place{f.tree, &dirFD{fd: fd, users: 1}, slotPrefix + name}, nil
}

// toChange returns where a change of a name in a directory acts. It makes the private
// version that the change needs; adds is whether the change makes the name. isDir is whether
// it makes a directory.
//
// Where the host has renamed the directory, or one above it, since the guest looked it up, a
// process may still work in it: then the path that it has now counts.
func (f *fileSystem) toChange(w who, parent *node, name string, adds, isDir bool) (s spotAt, err error) {
	s, err = f.toChangeAt(w, parent, name, adds, isDir)
	if !errors.Is(err, errElsewhere) {
		return s, err
	}
	followed := f.tree.follow(parent, s.dir.fd)
	s.close()
	if followed {
		if s, err = f.toChangeAt(w, parent, name, adds, isDir); !errors.Is(err, errElsewhere) {
			return s, err
		}
		s.close()
	}
	f.tree.forgetFD(parent)
	return s, unix.ESTALE // the guest looks it up again
}

// errElsewhere is for a directory that has another path on the host than the tree has.
var errElsewhere = errors.New("the directory was moved on the host")

// toChangeAt is toChange by the path that the tree has. With errElsewhere the caller closes
// the place.
func (f *fileSystem) toChangeAt(w who, parent *node, name string, adds, isDir bool) (s spotAt, err error) {
	if f.rules == nil {
		s.place, err = f.tree.in(parent)
		s.name = name
		return s, err
	}
	if s.view, err = f.view(parent); err != nil {
		return s, err
	}
	if s.view.hidden {
		return s, unix.ESTALE
	}
	s.private = s.view.chain.private
	if s.view.slot != nil {
		if err := f.makePrivate(w, s.view.slot); err != nil {
			return s, err
		}
		if s.view, err = f.view(parent); err != nil {
			return s, err
		}
		if s.private = s.view.chain.private; !s.private {
			return s, unix.ESTALE // it was moved meanwhile
		}
	}
	if s.kind = s.view.judge(name, isDir); s.kind == guard.Guarded || s.kind == guard.Hidden {
		return f.slotToChange(w, s, name, adds)
	}
	// The host has a directory there and the request makes a file, or the other way round: nothing but an exchange, or
	// another request that removes it at this moment, would let it through.
	if adds && s.view.protects(name, isDir) {
		f.events.note(w, guard.Refused, s.view.chain.names, name)
		return s, unix.EEXIST
	}
	if s.kind == guard.Noted {
		f.events.note(w, guard.Changed, s.view.chain.names, name)
	}
	if s.private && adds {
		if err := f.private.take(1, 0); err != nil {
			f.events.note(w, guard.Refused, s.view.chain.names, name)
			return s, err
		}
	}
	if s.place, err = f.tree.in(parent); err != nil {
		return s, err
	}
	s.name = name
	if s.private {
		return s, nil
	}
	var here bool
	if s.hostDir, here = f.liesAt(s.dir.fd, s.view.chain.names); !here {
		return s, errElsewhere // what was judged is not its path any more
	}
	return s, nil
}

// judged returns the path of a name in the directory that toChange has judged, if nothing applies to it, whatever the
// host has there (handle.path). Otherwise it returns nil.
func (s *spotAt) judged(name string) *string {
	if s.hostDir == "" {
		return nil
	}
	return s.view.fs.free(hostPath{strings.TrimSuffix(s.hostDir, "/") + "/" + name, append(slices.Clip(s.view.chain.names), name)})
}

// liesAt reports whether an open directory has that path now, as the host sees it. Its place may
// have been changed by the host, or by a guest through another share. For a path that is
// too long to be read it reports true, without a path: the walk has checked each component.
func (f *fileSystem) liesAt(dir int, names []string) (path string, ok bool) {
	root, err := pathOn(f.tree.root.fd.fd)
	if err != nil {
		return "", false
	}
	if dir == f.tree.root.fd.fd {
		return root, len(names) == 0
	}
	at, err := pathOn(dir)
	if errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, errLongPath) {
		return "", true
	}
	want := root
	if len(names) > 0 {
		want = strings.TrimSuffix(root, "/") + "/" + strings.Join(names, "/")
	}
	return at, err == nil && at == want
}

// forgetFD gives up the descriptor of a directory, so that its next use walks to it, and of those
// above it.
func (t *tree) forgetFD(n *node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; n != nil && n != t.root; n = n.parent {
		t.closeFD(n)
	}
}

// slotToChange is toChange for a slot.
func (f *fileSystem) slotToChange(w who, s spotAt, name string, adds bool) (spotAt, error) {
	dir := s.view.chain.names
	if f.private == nil {
		f.events.note(w, guard.Refused, dir, name)
		return s, unix.EPERM
	}
	s.slot, s.private = true, true
	there, removed := f.private.version(dir, name)
	s.removed = removed
	if !there && !adds && s.kind == guard.Hidden {
		return s, unix.ENOENT
	}
	if !there && !removed && s.kind == guard.Guarded {
		if err := f.copyUp(w, s.view.dir, dir, name); err != nil && !errors.Is(err, unix.ENOENT) {
			return s, err
		}
	}
	if adds {
		if err := f.private.take(1, 0); err != nil {
			f.events.note(w, guard.Refused, dir, name)
			return s, err
		}
	}
	fd, err := f.private.make(dir)
	if err != nil {
		return s, err
	}
	f.events.note(w, guard.Kept, dir, name)
	s.place = place{f.tree, &dirFD{fd: fd, users: 1}, slotPrefix + name}
	if !adds && removed {
		s.close()
		return s, unix.ENOENT
	}
	return s, nil
}

// makeRoom takes away the mark of the store that the guest has removed the path, so that it
// can make it again. The caller calls done with the outcome.
func (s *spotAt) makeRoom() (done func(err error)) {
	if !s.slot || !s.removed {
		return func(error) {}
	}
	_ = unix.Unlinkat(s.dir.fd, s.name, 0) // else the change fails
	return func(err error) {
		if err != nil {
			_ = unix.Mknodat(s.dir.fd, s.name, unix.S_IFIFO|0o600, 0)
		}
	}
}

// left is called when the guest's version in a slot has been removed or moved away.
func (f *fileSystem) left(s *spotAt, name string) error {
	if !s.slot || s.kind != guard.Guarded {
		return nil
	}
	p, err := f.tree.in(s.view.dir)
	if err != nil {
		return err
	}
	defer p.close()
	if _, err := statAt(p.dir.fd, name); err != nil {
		return nil // the host has none
	}
	return f.private.remove(s.view.chain.names, name)
}

// makePrivate makes a private version of a node that lies in a slot, if it is not one.
func (f *fileSystem) makePrivate(w who, n *node) error {
	f.tree.mu.Lock()
	parent, name := n.parent, n.name
	f.tree.mu.Unlock()
	if parent == nil {
		return unix.ESTALE
	}
	c, err := f.tree.chain(parent)
	if err != nil {
		return err
	}
	if f.private == nil {
		f.events.note(w, guard.Refused, c.names, name)
		return unix.EPERM
	}
	if err := f.copyUp(w, parent, c.names, name); err != nil {
		return err
	}
	f.events.note(w, guard.Kept, c.names, name)
	return nil
}

// copyUp makes a private version of what the host has at a name in a directory, and turns
// the nodes that the guest knows of it to that.
func (f *fileSystem) copyUp(w who, parent *node, dir []string, name string) error {
	p, err := f.tree.in(parent)
	if err != nil {
		return err
	}
	defer p.close()
	hidden := func(names []string) bool {
		last := len(names) - 1
		kind, _ := f.rules.Judge(guard.Place{
			Dir: slices.Concat(dir, names[:last]), Name: names[last], Folds: f.folds,
			Has:      func(string) bool { return true },
			IsDir:    func() bool { return false },
			Contains: func([]string) bool { return true },
			Made:     func() bool { return false },
		})
		return kind == guard.Hidden
	}
	list, err := f.private.copyUp(p.dir.fd, dir, name, hidden)
	switch {
	case errors.Is(err, unix.ENOSPC):
		f.events.note(w, guard.Refused, dir, name)
		return err
	case err != nil:
		return err
	}
	f.tree.privatized(parent, name, list)
	return nil
}

// privatized notes that the files at a name in a directory were copied into the store.
func (t *tree) privatized(parent *node, name string, list []copied) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range list {
		n := t.byKey[c.from]
		if n == nil || n == t.root || !t.below(n, parent, name) {
			continue
		}
		delete(t.byKey, n.key)
		t.closeFD(n)
		t.unpin(n)
		for len(n.also) > 0 {
			t.leave(n.also[0], n)
		}
		n.key, t.byKey[c.to] = c.to, n
		n.told, n.own, n.stamp = report{}, report{}, stamp{}
		n.private = n.parent == parent && n.name == name
	}
}

// below reports whether a node lies at a name in a directory, or below it. The caller holds
// the mutex.
func (t *tree) below(n, parent *node, name string) bool {
	for range depthLimit {
		if n == nil || n == t.root {
			return false
		}
		if n.parent == parent && n.name == name {
			return true
		}
		n = n.parent
	}
	return false
}

// inStore reports whether a node is a private version, or lies in one.
func (f *fileSystem) inStore(n *node) bool {
	if f.private == nil || !f.private.any.Load() {
		return false
	}
	c, err := f.tree.chain(n)
	return err == nil && c.private
}

// growStore takes the room in the store of private versions that a write of a process needs: up to
// a place in the file, or so much behind its end.
func (f *fileSystem) growStore(w who, h *handle, end int64, atEnd bool, length int64) error {
	if !h.stored || end < 0 {
		return nil
	}
	st, err := statFD(h.fd)
	if err != nil {
		return err
	}
	if atEnd {
		end = int64(st.Size) + length
	}
	if end <= int64(st.Size) {
		return nil
	}
	return f.roomFor(w, h.node, end-int64(st.Size))
}

// roomFor takes the room that a private version needs in the store. It logs that there is none: the
// program only says that no space is left, and the disk has some.
func (f *fileSystem) roomFor(w who, n *node, bytes int64) error {
	err := f.private.take(0, bytes)
	if err == nil {
		return nil
	}
	if c, cerr := f.tree.chain(n); cerr == nil && len(c.names) > 0 {
		last := len(c.names) - 1
		f.events.note(w, guard.Refused, c.names[:last], c.names[last])
	}
	return err
}

// guardsHost reports whether a node is a guarded or hidden file of the host.
func (f *fileSystem) guardsHost(n *node) bool {
	if f.rules == nil {
		return false
	}
	slot, _, err := f.inSlot(n)
	return err != nil || slot != nil
}

// inSlot returns the node, on the way to a node and including it, whose path is guarded and
// that has no private version; nil if there is none.
func (f *fileSystem) inSlot(n *node) (slot *node, private bool, err error) {
	c, err := f.tree.chain(n)
	if err != nil {
		return nil, false, nil //nolint:nilerr // no path leads there
	}
	if c.private || len(c.nodes) == 0 {
		return nil, c.private, nil
	}
	last := len(c.nodes) - 1
	up := f.tree.root
	for i, at := range c.nodes {
		if f.rules.Candidate(c.names[i]) {
			kind := f.judgeAt(up, c.names[:i], c.names[i], i < last || n.isDir())
			if kind == guard.Guarded {
				return at, false, nil
			}
			if kind == guard.Hidden { // the host made it so since the guest looked it up
				return nil, false, unix.ESTALE
			}
		}
		up = at
	}
	return nil, false, nil
}
