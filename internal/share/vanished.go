package share

import (
	"errors"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// # Theory of operation: directories that are empty for the guest alone
//
// Guarded files that the guest removes stay on the host (private.go), and it sees no hidden
// ones. A directory that holds nothing else is empty for the guest and not for the host, whose
// rmdir(2) fails. `rm -rf` of a repository would fail so, and `npm ci` where the host has
// installed a package with a folder .vscode.
//
// Such a directory stays on the host, and vanishes from the guest's view: a lookup does not
// find it, a listing leaves it out, and the directory above it can vanish too. mkdir(2) of its
// name brings it back, empty. It is also back as soon as the host puts something into it that
// the guest sees. A rename to its name is answered EXDEV, as for other directories with guarded
// paths, so that programs copy.
//
// The list is of inodes and in memory only. A server that is started anew shows them as
// empty directories, which the guest can remove again.

// maxVanished bounds the directories that have vanished. Beyond it, rmdir(2) fails as on the host.
const maxVanished = 16384

// vanishedDirs are directories of the host that the guest has removed. Its methods may be
// called by several goroutines at once.
type vanishedDirs struct {
	mu   sync.Mutex
	keys map[key]struct{}
}

// any reports whether there are some.
func (v *vanishedDirs) any() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.keys) > 0
}

// has reports whether a directory is one.
func (v *vanishedDirs) has(k key) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.keys[k]
	return ok
}

// add adds one, and reports whether there was room.
func (v *vanishedDirs) add(k key) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.keys) >= maxVanished {
		return false
	}
	if v.keys == nil {
		v.keys = map[key]struct{}{}
	}
	v.keys[k] = struct{}{}
	return true
}

// back takes one off the list, and reports whether it was there.
func (v *vanishedDirs) back(k key) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.keys[k]
	delete(v.keys, k)
	return ok
}

// vanish lets a directory that the host does not remove vanish, if it is empty for the guest. It
// reports whether it did.
func (f *fileSystem) vanish(parent *node, s *spotAt, name string, st *unix.Statx_t) bool {
	if f.rules == nil || s.private {
		return false
	}
	names := append(slices.Clip(s.view.chain.names), name)
	if !f.emptyForGuest(s.dir.fd, s.name, names) || !f.vanished.add(keyOf(st)) {
		return false
	}
	f.tree.vanished(parent, name, keyOf(st))
	return true
}

// hasVanished reports whether a name in an open directory is a directory that has vanished. If the
// host has put something into it that the guest sees, it takes the directory off the list.
func (f *fileSystem) hasVanished(parent *node, dir int, name string, st *unix.Statx_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || !f.vanished.has(keyOf(st)) {
		return false
	}
	c, err := f.tree.chain(parent)
	if err == nil && f.emptyForGuest(dir, name, append(c.names, name)) {
		return true
	}
	f.vanished.back(keyOf(st))
	return false
}

// listsVanished is hasVanished for an entry of a listing.
func (f *fileSystem) listsVanished(h *handle, e *dirent) bool {
	if e.own || e.Mode != 0 && e.Mode != unix.S_IFDIR || !f.vanished.any() {
		return false
	}
	st, err := statAt(h.fd, e.Name)
	return err == nil && f.hasVanished(h.node, h.fd, e.Name, st)
}

// emptyForGuest reports whether the guest sees nothing in the host's directory at a name in an open
// directory. names are its path from the root.
func (f *fileSystem) emptyForGuest(at int, name string, names []string) bool {
	dir, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil || len(names) > depthLimit {
		return false
	}
	defer unix.Close(dir)
	list, err := entries(dir)
	return err == nil && !slices.ContainsFunc(list, func(entry string) bool { return f.guestSees(dir, names, entry) })
}

// guestSees reports whether the guest sees an entry of an open directory of the host. names are the
// path of the directory from the root.
func (f *fileSystem) guestSees(dir int, names []string, entry string) bool {
	if f.rules.Candidate(entry) {
		there, removed := false, false
		if f.private != nil {
			there, removed = f.private.version(names, entry)
		}
		switch f.judgeIn(func() (int, func(), error) { return dir, func() {}, nil }, names, entry, false) {
		case guard.Guarded:
			return !removed
		case guard.Hidden:
			return there
		}
	}
	st, err := statAt(dir, entry)
	return err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || !f.vanished.has(keyOf(st)) ||
		!f.emptyForGuest(dir, entry, append(slices.Clip(names), entry))
}

// makeDir makes a directory on the host, or brings back one that has vanished.
func (f *fileSystem) makeDir(dir int, name string, mode uint32) error {
	err := unix.Mkdirat(dir, name, mode)
	if err != nil && !errors.Is(err, unix.EEXIST) || !f.vanished.any() {
		return err
	}
	if st, serr := statAt(dir, name); serr == nil && f.vanished.back(keyOf(st)) {
		return nil // also where Mkdirat has made it, with the inode number of one that the host removed
	}
	return err
}

// vanished notes that the guest removed a directory which the host keeps. The guest's kernel takes the
// node for removed; if the directory comes back it is a new node, so this one gets another key.
func (t *tree) vanished(parent *node, name string, k key) {
	t.mu.Lock()
	n := t.byKey[k]
	if n != nil {
		delete(t.byKey, k)
		n.key = key{ino: n.id} // of no device
		t.byKey[n.key] = n
		n.idle = n.fd != nil // no walk goes through it
	}
	t.mu.Unlock()
	if n != nil {
		t.gone(parent, name, n.key)
	}
}
