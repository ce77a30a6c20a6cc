package undo

import (
	"os"

	"golang.org/x/sys/unix"
)

// # Theory of operation: files with several names
//
// Before a file changes, the record of each of its names (hard links) says the file's inode and
// another name, if one is known. An undo makes a name that comes back a link again in two cases: the other
// name still leads to that file and the file is as it was (the guest removed or replaced one
// name), or another name of it came back a moment ago (the guest wrote the file, or removed all
// names). What it links to is compared with the contents that were kept. In any other case the name
// gets a file of its own.

// name is a path of the project and the file that it leads to.
type name struct {
	path string
	ino  uint64
}

// cameBack notes what a step has put back, for the other names of the file.
func (a *applier) cameBack(dir int, at string, s Step) {
	var st unix.Statx_t
	if s.state.Kind != File || s.state.Ino == 0 {
		return
	}
	if unix.Statx(dir, at, unix.AT_SYMLINK_NOFOLLOW, statMask, &st) == nil {
		a.linked[s.state.Ino] = name{s.Path, st.Ino}
	}
}

// link makes the temporary name of a step another name of the file that the path was a name of. It
// reports whether that is still there.
func (a *applier) link(dir int, s Step) bool {
	w := s.state
	if w.Ino == 0 {
		return false
	}
	others := []name{a.linked[w.Ino]}
	if w.Also != nil {
		others = append(others, name{string(w.Also), w.Ino})
	}
	for _, n := range others {
		if n.path != "" && n.path != s.Path && a.isStill(n, s) && a.linkTo(dir, n) {
			return true
		}
	}
	return false
}

// isStill reports whether a path leads to a file, and the file is as a step wants it.
func (a *applier) isStill(n name, s Step) bool {
	now, st, err := look(a.root, n.path)
	if err != nil || st == nil || st.Ino != n.ino {
		return false
	}
	if os.Geteuid() == 0 && (st.Uid != s.state.UID || st.Gid != s.state.GID) { // others cannot give a file away
		return false
	}
	return a.store.isAs(a.root, &branch{disk: n.path, was: s.state, point: s.point}, now, st)
}

// linkTo makes the temporary name in a directory a link to a file. It fails if the path leads to
// another one meanwhile.
func (a *applier) linkTo(dir int, n name) bool {
	from, base, err := parent(a.root, n.path)
	if err != nil {
		return false
	}
	defer unix.Close(from)
	if unix.Linkat(from, base, dir, a.temp, 0) != nil { // follows no link; fs.protected_hardlinks may forbid it
		return false
	}
	var st unix.Statx_t
	if unix.Statx(dir, a.temp, unix.AT_SYMLINK_NOFOLLOW, statMask, &st) == nil && st.Ino == n.ino {
		return true
	}
	_ = unix.Unlinkat(dir, a.temp, 0)
	return false
}
