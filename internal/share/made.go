package share

import (
	"fmt"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// What the guest made. Some files are hidden or guarded because of what they contain, such as a private
// key in server.key, unless the guest made them: it knows what it wrote. The server marks such a
// file with the state in which the guest left it. Once a program of the host has written to
// it, the mark does not count any more, and a later write of the guest does not bring it back.

// madeAttribute marks a file of the host that the guest made, where a rule would otherwise
// take it for the host's. The guest cannot set it (ownAttributes).
const madeAttribute = ownAttributes + "made"

// maxMade bounds the files that are marked in memory.
const maxMade = 1 << 14

// madeState is the state of a file in a mark: its size and time of modification (ns).
func madeState(st *unix.Statx_t) string {
	return fmt.Sprintf("%d %d", st.Size, st.Mtime.Sec*1e9+int64(st.Mtime.Nsec))
}

// markMade marks a file that the guest made, at a descriptor. One with hard links gets no
// attribute, which the links outside of the share would have too.
func (f *fileSystem) markMade(fd int) {
	st, err := statFD(fd)
	if err != nil {
		return
	}
	if st.Nlink == 1 && unix.Setxattr(magic(fd), madeAttribute, []byte(madeState(st)), 0) == nil {
		if _, ok := f.made.Load(keyOf(st)); ok {
			f.made.Store(keyOf(st), madeState(st))
		}
		return
	}
	f.holdMade(st) // no attribute: known as long as the server runs
}

// holdMade marks a file in memory, and reports whether there was room.
func (f *fileSystem) holdMade(st *unix.Statx_t) bool {
	if _, ok := f.made.Load(keyOf(st)); !ok && f.mades.Add(1) > maxMade {
		f.mades.Add(-1)
		return false
	}
	f.made.Store(keyOf(st), madeState(st))
	return true
}

// madeByGuest reports whether the guest made a file, which is as the guest left it.
func (f *fileSystem) madeByGuest(at file, st *unix.Statx_t) bool {
	if v, ok := f.made.Load(keyOf(st)); ok {
		return v == madeState(st)
	}
	get := unix.Lgetxattr
	if at.name == "" {
		get = unix.Getxattr // the path leads to it by a link of procfs
	}
	return hasMark(get, at.path(), st)
}

// hasMark reports whether the mark that is stored with a file is of the file as it is now.
func hasMark(get func(path, attr string, to []byte) (int, error), path string, st *unix.Statx_t) bool {
	var buf [64]byte
	n, err := get(path, madeAttribute, buf[:])
	return err == nil && string(buf[:n]) == madeState(st)
}

// MadeByGuest reports whether a file of the host is one that a guest made, as the guest left it. It
// knows only marks that are stored with the file.
func MadeByGuest(path string) bool {
	st, err := statAt(unix.AT_FDCWD, path)
	return err == nil && hasMark(unix.Lgetxattr, path, st)
}

// asksMade reports whether what applies to a node depends on who made it.
func (f *fileSystem) asksMade(n *node) bool {
	if f.rules == nil {
		return false
	}
	f.tree.mu.Lock()
	name := n.name
	f.tree.mu.Unlock()
	return f.rules.AsksMade(name)
}

// keepMade is called before the guest changes a file that is open at a descriptor. The caller calls
// after when it is changed: a file that was the guest's stays so.
func (f *fileSystem) keepMade(n *node, fd int) (after func()) {
	if !f.asksMade(n) {
		return func() {}
	}
	if st, err := statFD(fd); err != nil || !f.madeByGuest(file{fd: fd}, st) {
		return func() {}
	}
	return func() {
		if st, err := statFD(fd); err == nil && !f.holdMade(st) {
			f.markMade(fd)
		}
	}
}

// storeMade writes the mark of a file that the guest closes to the file.
func (f *fileSystem) storeMade(h *handle) {
	if !h.asks {
		return
	}
	if st, err := statFD(h.fd); err == nil && f.madeByGuest(file{fd: h.fd}, st) {
		f.markMade(h.fd)
	}
}

// mayRead returns the error for a READ of an open file that has become hidden because of what the
// host wrote to it.
func (f *fileSystem) mayRead(h *handle) error {
	if !h.asks || h.stored {
		return nil
	}
	c, err := f.tree.chain(h.node)
	if err != nil || c.private || len(c.nodes) == 0 {
		return nil //nolint:nilerr // no path leads there
	}
	last := len(c.names) - 1
	up := f.tree.root
	if last > 0 {
		up = c.nodes[last-1]
	}
	if f.judgeAt(up, c.names[:last], c.names[last], false) == guard.Hidden {
		return unix.ESTALE
	}
	return nil
}
