package share

import "golang.org/x/sys/unix"

// What the host moves. A guest's process may work in a directory that the host renames: its
// kernel asks for names in the directory and never looks the directory itself up again.

// holdFound holds the directory at a name in an open directory, if it is the node's.
func (t *tree) holdFound(dir int, name string, id uint64) {
	n, fd, st := t.openUnheld(dir, name, id)
	if n == nil {
		return
	}
	defer unix.Close(fd)
	t.holdDir(n, fd, st)
}

// holdDir keeps a directory of the share's own file system open, by a copy of an O_PATH descriptor of
// it. It does nothing if the directory is held already. Mounts below the root are not held: the host
// may want to unmount them.
func (t *tree) holdDir(n *node, fd int, st *unix.Statx_t) {
	if device(st) != t.mounts.rootDev {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.fd != nil || n.private || t.byID[n.id] != n {
		return
	}
	if fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
		n.fd, n.element, n.idle = &dirFD{fd: fd, users: 1}, t.open.PushFront(n), true
		t.trim()
	}
}

// followHeld is follow for a node. It reports false also if the node is no directory, or if no
// descriptor of it is open.
func (t *tree) followHeld(n *node) bool {
	if !n.isDir() || n == t.root {
		return false
	}
	fd, _ := t.dupHeld(n)
	if fd < 0 {
		return false
	}
	defer unix.Close(fd)
	return t.follow(n, fd)
}

// follow notes where a directory of which fd is open lies on the host now. It reports false if
// that is not in the share, or if the guest does not know a directory on the way.
func (t *tree) follow(n *node, fd int) bool {
	at, err := pathOn(fd)
	if err != nil {
		return false
	}
	names, err := t.pathBelow(at)
	if err != nil || names == nil {
		return false
	}
	keys, err := t.keysOn(names)
	if err != nil || keys[len(keys)-1] != n.key {
		return false // it was moved again, or removed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	way := []*node{t.root}
	for _, k := range keys {
		next := t.byKey[k]
		if next == nil || !next.isDir() || next.private {
			return false
		}
		way = append(way, next)
	}
	for i, name := range names { // from the root on, so that no node comes below itself
		t.place(way[i+1], way[i], name)
	}
	return true
}

// keysOn returns the identities of the directories on a way from the root.
func (t *tree) keysOn(names []string) (keys []key, err error) {
	dir, own := t.root.fd.fd, false
	defer func() {
		if own {
			unix.Close(dir)
		}
	}()
	for _, name := range names {
		next, err := openDirAt(dir, name)
		if err != nil {
			return nil, err
		}
		if own {
			unix.Close(dir)
		}
		dir, own = next, true
		st, err := statFD(dir)
		if err == nil {
			err = t.mounts.check(dir, st)
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, keyOf(st))
	}
	return keys, nil
}
