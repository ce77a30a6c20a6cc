package share

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
	"bawn.dev/bawn/internal/undo"
)

// # Theory of operation: hard links that lead out
//
// Package managers and git link one file into several projects: pnpm's store, uv's cache, a
// clone of a local repository. Who writes to such a file in the share would change it for
// everybody. So a regular file that has more names than the guest is known to see is
// copied before its first change: the copy takes the place of the file at the names in the
// share, in one step each, and the node goes on with the copy's inode. Files that the guest
// has open are moved to the copy under the same descriptor number.
//
// A name is known if the guest looked it up or made it, and still leads to the file. So a
// file all of whose names are known stays one file. One of whose names in the share some were
// not looked up is split from these too; the log says so.
//
// The number of names is compared before each write, not only when the file is opened: a
// backup on the host may link the file meanwhile. So is the name by which it was opened
// (here.go): the host may have replaced the file there, and a name elsewhere is its only one.
//
// While names are counted the guest makes, removes and renames none: it could otherwise have one counted
// that is gone, in the place of the one outside. Names in one directory that differ only as a file system
// may fold them count as one.

// separator copies files whose hard links lead out of the share.
type separator struct {
	locks  [16]sync.Mutex // by node
	names  sync.RWMutex   // held for reading while the guest changes the names of files, and while names are counted
	logged atomic.Int32

	counting func() // of tests: called after the number of names was read
}

// maxSeparateLog bounds the lines that a server logs about copied files.
const maxSeparateLog = 200

// linkedOut reports whether a node's file may have names outside of the share. One whose name
// in the share is gone has none but these.
func (f *fileSystem) linkedOut(n *node, st *unix.Statx_t) bool {
	if isDir(st) || f.readOnly || f.file != "" { // the user named the one file, whatever other names it has
		return false
	}
	if st.Nlink > 1 {
		return true
	}
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	return st.Nlink == 1 && n.parent == nil && n != f.tree.root
}

// separate makes a node, which is about to be changed and is open at an O_PATH descriptor, a file
// of the share alone. here is what checkHere has found of it. It returns the descriptor to go on with, and its
// attributes. It takes over at, also after an error.
func (f *fileSystem) separate(n *node, at int, st *unix.Statx_t, here hostPath) (int, *unix.Statx_t, error) {
	if !f.linkedOut(n, st) && !f.unnamed(at, st, here) {
		return at, st, nil
	}
	err := f.separateNode(n, at)
	unix.Close(at)
	if err != nil {
		return -1, nil, err
	}
	return f.open(n)
}

// separateHandle is separate for an open file. st are its attributes as they were a moment ago, or nil.
func (f *fileSystem) separateHandle(h *handle, st *unix.Statx_t) (err error) {
	if st == nil || !f.tree.hasKey(h.node, st) { // another request may just have separated it
		st, err = statFD(h.fd)
	}
	if err == nil && f.linkedOut(h.node, st) {
		if err = f.separateNode(h.node, h.fd); err == nil {
			st, err = statFD(h.fd)
		}
	}
	if err != nil || st.Nlink == 0 || f.file != "" {
		return err
	}
	if !f.tree.hasKey(h.node, st) {
		return unix.ESTALE // it could not be opened again when the node was separated (reopenAt)
	}
	return nil
}

// hasKey reports whether attributes are of a node's inode.
func (t *tree) hasKey(n *node, st *unix.Statx_t) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.key == keyOf(st)
}

// separateNode separates a node whose file is open at a descriptor.
func (f *fileSystem) separateNode(n *node, at int) error {
	lock := &f.separator.locks[n.id%uint64(len(f.separator.locks))]
	lock.Lock()
	defer lock.Unlock()
	st, places, err := f.countPlaces(n, at)
	defer func() {
		for _, p := range places {
			p.close()
		}
	}()
	if err != nil {
		return err
	}
	f.tree.mu.Lock()
	same := n.key == keyOf(st)
	f.tree.mu.Unlock()
	if !same {
		return nil // another request has done it
	}
	if c, err := f.tree.chain(n); distinct(places) >= st.Nlink || err == nil && c.private {
		return nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return nil // what the guest changes of a link is not on the host, but for its times
	case unix.S_IFREG:
	default:
		return unix.EPERM
	}
	err = f.replace(n, at, st, places)
	f.logSeparated(n, st, err)
	return err
}

// countPlaces returns the attributes of a node, which is open at a descriptor, and the places of placesOf, as of
// one time. The caller closes the places.
func (f *fileSystem) countPlaces(n *node, at int) (*unix.Statx_t, []place, error) {
	f.separator.names.Lock()
	defer f.separator.names.Unlock()
	st, err := statFD(at)
	if err != nil {
		return nil, nil, err
	}
	if f.separator.counting != nil {
		f.separator.counting()
	}
	return st, f.placesOf(n), nil
}

// distinct returns how many names of a file the places are at least: in a directory that folds names, several
// spellings lead to one.
func distinct(places []place) uint32 {
	names := map[inName]bool{}
	for _, p := range places {
		st, err := statAt(p.dir.fd, "")
		if err != nil {
			continue
		}
		names[inName{keyOf(st), guard.Fold(p.name)}] = true
	}
	return uint32(len(names))
}

// placesOf opens the known places of a node that still lead to it. The caller closes them.
func (f *fileSystem) placesOf(n *node) []place {
	f.tree.mu.Lock()
	spots := append([]spot{{n.parent, n.name}}, n.also...)
	k := n.key
	f.tree.mu.Unlock()
	var list []place
	for _, s := range spots {
		if s.parent == nil {
			continue
		}
		p, err := f.tree.in(s.parent)
		if err != nil {
			continue
		}
		p.name = s.name
		if st, err := statAt(p.dir.fd, p.name); err != nil || keyOf(st) != k {
			p.close()
			continue
		}
		list = append(list, p)
	}
	return list
}

// replace puts a copy in the place of a file, at each of the places.
func (f *fileSystem) replace(n *node, at int, st *unix.Statx_t, places []place) error {
	if err := f.space.take(inodeBytes, 1); err != nil {
		return err
	}
	defer f.space.giveInode()
	dir := f.tree.root.fd.fd
	if len(places) > 0 {
		dir = places[0].dir.fd
	}
	fd, discard, err := f.cloneFile(dir, at, st)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	defer discard()
	now, err := statFD(fd)
	if err != nil {
		return err
	}
	for _, p := range places {
		if st, err := statAt(p.dir.fd, p.name); err == nil && keyOf(st) == keyOf(now) {
			continue // another spelling of a name before
		}
		if err := exchange(fd, p, n.key); err != nil {
			return err
		}
	}
	if now, err = statFD(fd); err != nil {
		return err
	}
	f.rebind(n, keyOf(st), keyOf(now), fd)
	if len(places) > 0 {
		f.nameHandles(n, places[0].dir.fd, places[0].name)
	}
	_, _ = f.leftNode(n, fd)
	return nil
}

// cloneFile makes a copy of the file at a descriptor, in a directory, with its owner, mode, times
// and extended attributes. It has no name, or a temporary one, which discard removes. The
// caller closes the copy.
func (f *fileSystem) cloneFile(dir, at int, st *unix.Statx_t) (fd int, discard func(), err error) {
	in, err := unix.Open(magic(at), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, nil, err
	}
	defer unix.Close(in)
	out, discard, err := tempFile(dir)
	if err != nil {
		return -1, nil, err
	}
	if unix.IoctlFileClone(out, in) != nil {
		err = f.copyContents(out, in, st.Size)
	}
	if err == nil {
		err = cloneAttributes(out, in, st)
	}
	if err == nil {
		var now *unix.Statx_t
		if now, err = statFD(in); err == nil && (now.Mtime != st.Mtime || now.Size != st.Size) {
			err = unix.EBUSY // the host writes to it
		}
	}
	if err != nil {
		discard()
		unix.Close(out)
		return -1, nil, err
	}
	return out, discard, nil
}

// copyContents copies the contents of an open file of a size to an empty one. A clone needs no room on
// the disk; a copy does.
func (f *fileSystem) copyContents(out, in int, size uint64) error {
	if err := f.space.take(size, 0); err != nil {
		return err
	}
	defer f.space.give(size, 0)
	return undo.CopyContents(out, in)
}

// tempFile makes a file in a directory without a name, or with a temporary one where the file
// system needs that; discard removes it.
func tempFile(dir int) (fd int, discard func(), err error) {
	fd, err = unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return fd, func() {}, err
	}
	name := tempName()
	fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	return fd, func() { _ = unix.Unlinkat(dir, name, 0) }, err
}

func tempName() string { return undo.TempPrefix + rand.Text() }

func cloneAttributes(out, in int, st *unix.Statx_t) error {
	now, err := statFD(out)
	if err != nil {
		return err
	}
	if now.Uid != st.Uid || now.Gid != st.Gid {
		if err := unix.Fchown(out, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	// Labels and access lists come from the directory.
	if err := undo.CopyAttributes(out, in, func(string) bool { return true }); err != nil {
		return err
	}
	if err := unix.Fchmod(out, uint32(st.Mode&modeBits)); err != nil {
		return err
	}
	ts := []unix.Timespec{{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)}, {Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, magic(out), ts, 0)
}

// exchange puts an open file in the place of the one with the key, in one step.
func exchange(fd int, p place, old key) error {
	temp := tempName()
	if err := unix.Linkat(unix.AT_FDCWD, magic(fd), p.dir.fd, temp, unix.AT_SYMLINK_FOLLOW); err != nil {
		return err
	}
	err := unix.Renameat2(p.dir.fd, temp, p.dir.fd, p.name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) { // the file system cannot exchange
		if err = unix.Renameat(p.dir.fd, temp, p.dir.fd, p.name); err == nil {
			return nil
		}
	}
	if err == nil {
		if st, serr := statAt(p.dir.fd, temp); serr != nil || keyOf(st) != old { // the host was faster
			if unix.Renameat2(p.dir.fd, temp, p.dir.fd, p.name, unix.RENAME_EXCHANGE) != nil {
				return unix.ESTALE // the temporary name has the host's file, which has no other name maybe
			}
			err = unix.ESTALE
		}
	}
	_ = unix.Unlinkat(p.dir.fd, temp, 0)
	return err
}

// rebind makes a node, and what the guest has open of it, lead to the file at a descriptor.
func (f *fileSystem) rebind(n *node, old, now key, fd int) {
	f.owners.table.set(now, f.owners.table.get(old))
	if v, ok := f.made.Load(old); ok {
		f.made.Store(now, v)
	}
	f.tree.mu.Lock()
	if f.tree.byKey[old] == n {
		delete(f.tree.byKey, old)
	}
	f.tree.unpin(n)
	n.key, f.tree.byKey[now] = now, n
	n.told, n.own, n.stamp, n.owner = report{}, report{}, stamp{}, knownOwner{shown: n.owner.shown}
	var open []*handle
	for h := range n.handles {
		open = append(open, h)
	}
	f.tree.mu.Unlock()
	for _, h := range open {
		f.reopenAt(h, fd)
	}
}

// reopenAt makes an open file, by the same descriptor number, that of another descriptor. One
// that cannot be opened so keeps the old file, and is refused when it is written.
func (f *fileSystem) reopenAt(h *handle, fd int) {
	f.mu.Lock()
	if h.released || f.handles[h.id] != h || h.fd < 0 {
		f.mu.Unlock()
		return
	}
	h.users++
	f.mu.Unlock()
	defer f.done(h)
	flags := h.flags &^ (unix.O_TRUNC | unix.O_CREAT | unix.O_EXCL | unix.O_TMPFILE)
	again, err := unix.Open(magic(fd), flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return
	}
	_ = unix.Dup3(again, h.fd, unix.O_CLOEXEC)
	unix.Close(again)
}

// logSeparated says what became of a file whose links lead out.
func (f *fileSystem) logSeparated(n *node, st *unix.Statx_t, err error) {
	switch lines := f.separator.logged.Add(1); {
	case lines > maxSeparateLog:
		return
	case lines == maxSeparateLog:
		fmt.Fprintln(os.Stderr, "share: further files with hard links that lead out are not logged")
		return
	}
	path, _ := f.tree.pathAt(spot{n, ""})
	if err != nil {
		fmt.Fprintf(os.Stderr, "share: %q has hard links that lead out of the share, and was not changed: %v\n", path, err)
		return
	}
	fmt.Fprintf(os.Stderr, "share: %q had hard links that lead out of the share, or were not seen in it: the guest has a copy of its own now (%d bytes)\n", path, st.Size)
}
