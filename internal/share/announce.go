package share

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// HostChange is what the supervisor saw at a name in a directory of the host. Without a name and with
// IN_DELETE it says that names of the directory may be gone.
type HostChange struct {
	Dir  []byte `json:"dir,omitempty"` // below the share's root
	Name []byte `json:"name"`
	Mask uint32 `json:"mask"` // of inotify(7)
	// FromDir and FromName are where the file was before, if it was renamed.
	FromDir  []byte `json:"fromDir,omitempty"`
	FromName []byte `json:"fromName,omitempty"`
	Renamed  bool   `json:"renamed,omitempty"`
}

const (
	nameAppears = unix.IN_CREATE | unix.IN_MOVED_TO
	nameGoes    = unix.IN_DELETE | unix.IN_MOVED_FROM
)

// announce returns the events that tell the guest of changes on the host, and makes
// them the script of the guest's event thread.
func (f *fileSystem) announce(thread uint32, changes []HostChange) (told []wire.FileEvent) {
	f.tree.dropUnused(f.script.begin(thread, nil))
	a := &announcer{fs: f}
	lost := map[*node][]byte{}
	for _, c := range changes {
		if len(c.Name) > 0 {
			a.change(c)
		} else if dir := f.dirAt(c.Dir); dir != nil {
			lost[dir] = c.Dir
		}
	}
	a.missing(lost)
	a.findOld()
	f.script.begin(thread, a.events)
	for _, e := range a.events {
		told = append(told, e.FileEvent)
	}
	return told
}

// announcer makes a list of events.
type announcer struct {
	fs     *fileSystem
	events []event
}

// dirAt returns the node of a directory by its path, or nil if the guest does not know it.
func (f *fileSystem) dirAt(path []byte) *node {
	n := f.tree.root
	if len(path) == 0 {
		return n
	}
	for name := range strings.SplitSeq(string(path), "/") {
		if f.mayTell(n, name) != nil {
			return nil
		}
		k, st := f.stateOf(n, name)
		if st == nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
		f.tree.mu.Lock()
		n = f.tree.byKey[k]
		f.tree.mu.Unlock()
		if n == nil || !n.isDir() {
			return nil
		}
	}
	return n
}

// watchedDirs returns the directories of the nodes (Control.Watched).
func (f *fileSystem) watchedDirs(ids []uint64) (paths [][]byte) {
	for _, n := range f.tree.dirsOf(ids) {
		if path, ok := f.pathOf(n); ok {
			paths = append(paths, []byte(path))
		}
	}
	return paths
}

// dirsOf returns those of the nodes that are directories, and those in which the others lie.
func (t *tree) dirsOf(ids []uint64) map[uint64]*node {
	dirs := map[uint64]*node{}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range ids {
		n := t.byID[id]
		if n == nil {
			continue
		}
		if n.isDir() {
			dirs[n.id] = n
			continue
		}
		for _, s := range append([]spot{{n.parent, n.name}}, n.also...) {
			if s.parent != nil {
				dirs[s.parent.id] = s.parent
			}
		}
	}
	return dirs
}

// pathOf returns the path of a directory below the root. It reports false if the directory has no
// place, or one that the guest may not know.
func (f *fileSystem) pathOf(n *node) (string, bool) {
	var names []string
	for n != f.tree.root {
		f.tree.mu.Lock()
		parent, name := n.parent, n.name
		f.tree.mu.Unlock()
		if parent == nil || len(names) >= depthLimit || f.mayTell(parent, name) != nil {
			return "", false
		}
		names = append(names, name)
		n = parent
	}
	slices.Reverse(names)
	return strings.Join(names, "/"), true
}

// change adds the events of one change.
func (a *announcer) change(c HostChange) {
	f, name := a.fs, string(c.Name)
	dir := f.dirAt(c.Dir)
	if dir == nil || f.mayTell(dir, name) != nil {
		return
	}
	k, st := f.stateOf(dir, name)
	e := event{FileEvent: wire.FileEvent{Dir: c.Dir, Name: c.Name}, dir: dir}
	at := inName{dir.key, name}
	if c.Mask&(nameAppears|nameGoes) != 0 && !f.changed.made(at, k) && (c.Mask&nameGoes != 0 || !f.tree.madeByGuest(dir, name, k, st)) {
		f.changed.note(at, k) // the guest knows, once this is played
		if st == nil {
			e.Kind, e.Type = wire.FileRemoved, unix.S_IFREG
			if c.Mask&unix.IN_ISDIR != 0 {
				e.Type = unix.S_IFDIR
			}
			if c.Mask&nameGoes != 0 {
				a.events = append(a.events, e)
			}
			return
		}
		a.appeared(c, e, uint32(st.Mode&unix.S_IFMT))
	}
	if st == nil {
		return
	}
	a.content(c, e, k, st)
}

// missing adds a removal for each name that the guest knows in directories and that is gone. It
// looks at all nodes once.
func (a *announcer) missing(dirs map[*node][]byte) {
	f := a.fs
	if len(dirs) == 0 {
		return
	}
	var known []spot
	f.tree.mu.Lock()
	for _, n := range f.tree.byID {
		if n.lookups == 0 {
			continue
		}
		if _, ok := dirs[n.parent]; ok {
			known = append(known, spot{n.parent, n.name})
		}
		for _, s := range n.also {
			if _, ok := dirs[s.parent]; ok {
				known = append(known, s)
			}
		}
	}
	f.tree.mu.Unlock()
	for _, s := range known {
		if k, st := f.stateOf(s.parent, s.name); st == nil && !f.changed.made(inName{s.parent.key, s.name}, k) {
			a.change(HostChange{Dir: dirs[s.parent], Name: []byte(s.name), Mask: unix.IN_DELETE})
		}
	}
}

// madeByGuest reports whether the guest made or changed the file that has a name last, which it
// knows.
func (t *tree) madeByGuest(dir *node, name string, k key, st *unix.Statx_t) bool {
	if st == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[k]
	return n != nil && n.parent == dir && n.name == name && n.mine.made(st.Ctime)
}

// appeared adds the events of a name that leads to another file now.
func (a *announcer) appeared(c HostChange, e event, typ uint32) {
	if c.Renamed {
		from := a.fs.dirAt(c.FromDir)
		if from != nil && a.fs.mayTell(from, string(c.FromName)) == nil {
			k, _ := a.fs.stateOf(from, string(c.FromName))
			a.fs.changed.note(inName{from.key, string(c.FromName)}, k)
			a.events = append(a.events, event{FileEvent: wire.FileEvent{
				Kind: wire.FileRenamed, Dir: c.FromDir, Name: c.FromName, Type: typ, ToDir: e.Dir, ToName: e.Name,
			}, dir: from, toDir: e.dir})
			return
		}
	}
	e.Type = typ
	gone := e
	gone.Kind, e.Kind = wire.FileRemoved, wire.FileCreated
	if c.Mask&nameGoes != 0 || c.Mask&unix.IN_MOVED_TO != 0 {
		a.events = append(a.events, gone)
	}
	a.events = append(a.events, e)
}

// content adds the events of a file that was changed.
func (a *announcer) content(c HostChange, e event, k key, st *unix.Statx_t) {
	e.Type = uint32(st.Mode & unix.S_IFMT)
	f := a.fs
	f.tree.mu.Lock()
	n := f.tree.byKey[k]
	mine, closed := false, false
	if n != nil {
		mine = n.mine.made(st.Ctime)
		closed = n.own == reportOf(st) // as the guest left it
	}
	f.tree.mu.Unlock()
	if mine {
		return
	}
	add := func(kind wire.FileEventKind) {
		e.Kind = kind
		a.events = append(a.events, e)
	}
	if c.Mask&unix.IN_ATTRIB != 0 {
		add(wire.FileChanged)
	}
	if e.Type != unix.S_IFREG || closed {
		return
	}
	if c.Mask&unix.IN_MODIFY != 0 {
		add(wire.FileWritten)
	}
	// An executable file that is open for writing cannot be executed (ETXTBSY).
	if c.Mask&unix.IN_CLOSE_WRITE != 0 && st.Mode&0o111 == 0 {
		add(wire.FileClosed)
	}
}

// findOld finds the files that were at names before, by one look at all nodes.
func (a *announcer) findOld() {
	f := a.fs
	wanted := map[spot]*event{}
	for i := range a.events {
		e := &a.events[i]
		switch e.Kind {
		case wire.FileRemoved:
			wanted[spot{e.dir, string(e.Name)}] = e
		case wire.FileRenamed:
			wanted[spot{e.toDir, string(e.ToName)}] = e
		}
	}
	if len(wanted) == 0 {
		return
	}
	now := map[spot]key{}
	for s := range wanted {
		now[s], _ = f.stateOf(s.parent, s.name)
	}
	f.tree.mu.Lock()
	was := func(n *node, s spot) {
		if e := wanted[s]; e != nil && n.key != now[s] && n.lookups > 0 && (e.old == nil || e.old.id < n.id) {
			e.old = n
		}
	}
	for _, n := range f.tree.byID {
		was(n, spot{n.parent, n.name})
		for _, s := range n.also {
			was(n, s)
		}
	}
	f.tree.mu.Unlock()
	a.settle()
}

// settle gives each removed file that the guest does not know a node, and leaves out removals
// that only might have preceded another file.
func (a *announcer) settle() {
	kept := a.events[:0]
	for i, e := range a.events {
		if e.Kind == wire.FileRemoved {
			replaced := i+1 < len(a.events) && a.events[i+1].Kind == wire.FileCreated && a.events[i+1].dir == e.dir && string(a.events[i+1].Name) == string(e.Name)
			if e.old == nil && replaced {
				continue
			}
			if e.old == nil && a.fs.rules != nil && a.fs.rules.Candidate(string(e.Name)) {
				continue // it may have been hidden for what was in it
			}
			if e.old == nil {
				e.old = a.fs.tree.standIn(uint16(e.Type), &a.fs.script.made)
			}
			if e.old == nil {
				continue
			}
			e.Type = uint32(e.old.typ)
		}
		kept = append(kept, e)
	}
	a.events = kept
}

// standIn makes a node for a file that is gone and that the guest never knew.
func (t *tree) standIn(typ uint16, counter *uint64) *node {
	*counter++
	n := t.seen(nil, "", key{dev: ^uint64(0), ino: *counter}, typ, false)
	if n == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n.lookups-- // the guest does not know it yet
	return n
}

// dropUnused forgets nodes of events that the guest did not look up.
func (t *tree) dropUnused(events []event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range events {
		if e.old != nil {
			t.drop(e.old)
		}
	}
}
