package share

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/guard"
)

// renameFlags are the flags of renameat2(2) that a guest may use: not the one that makes
// whiteouts, which are devices.
const renameFlags = unix.RENAME_NOREPLACE | unix.RENAME_EXCHANGE

// Rename implements fuse.RawFileSystem.
func (f *fileSystem) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&^uint32(renameFlags) != 0 {
		return fuse.EINVAL
	}
	a, b, err := f.renameDirs(in, from, to)
	if err != nil {
		return status(err)
	}
	if f.rules != nil {
		f.moves.Lock()
		defer f.moves.Unlock()
	}
	w := who{in.Pid}
	pa, err := f.toChange(w, a, from, false, false)
	if err != nil {
		return status(err)
	}
	defer pa.close()
	moved, err := statAt(pa.dir.fd, pa.name)
	if err != nil {
		return status(err)
	}
	pb, err := f.toChange(w, b, to, true, moved.Mode&unix.S_IFMT == unix.S_IFDIR)
	if err != nil {
		return status(err)
	}
	defer pb.close()
	other, oerr := statAt(pb.dir.fd, pb.name)
	if oerr == nil && pb.slot && pb.removed {
		oerr = unix.ENOENT
	}
	if oerr != nil {
		other = nil
	} else {
		f.tree.pinKnown(pb.dir.fd, pb.name, keyOf(other))
	}
	if other != nil && f.vanished.has(keyOf(other)) {
		return status(unix.EXDEV)
	}
	defer f.lockNames(spot{a, from}, spot{b, to})()
	r := &renaming{w: w, flags: uint(in.Flags), a: a, b: b, from: from, to: to, pa: &pa, pb: &pb, moved: moved, other: other}
	return status(f.rename(r))
}

func (f *fileSystem) renameDirs(in *fuse.RenameIn, from, to string) (a, b *node, err error) {
	if a, err = f.dirFor(changeName, in.NodeId, from); err == nil {
		b, err = f.dirFor(changeName, in.Newdir, to)
	}
	return a, b, err
}

// renaming is a rename: the directories and names, the places, and what lies there.
type renaming struct {
	w            who
	flags        uint
	a, b         *node
	from, to     string
	pa, pb       *spotAt
	moved, other *unix.Statx_t // other is nil if nothing lies there
}

func (f *fileSystem) rename(r *renaming) error {
	if r.pa.private != r.pb.private {
		return f.renameAcross(r)
	}
	if err := f.checkRename(r); err != nil {
		return err
	}
	done := r.pb.makeRoom()
	err := f.renameKept(r)
	done(err)
	if err != nil {
		return err
	}
	exchanged := r.flags&unix.RENAME_EXCHANGE != 0
	switch {
	case r.other == nil || keyOf(r.other) == keyOf(r.moved):
	case exchanged:
		f.tree.moved(r.b, r.to, r.a, r.from, keyOf(r.other), r.pa.slot)
	default:
		f.gone(r.b, r.to, r.other)
	}
	f.tree.moved(r.a, r.from, r.b, r.to, keyOf(r.moved), r.pb.slot)
	if f.rules == nil {
		return nil
	}
	if !r.pb.private {
		f.noteMade(r.pb, r.to)
		return f.moveVersions(r)
	}
	if exchanged {
		return nil
	}
	return f.left(r.pa, r.from)
}

// renameAcross is a rename from the share into its store: of a regular file, by a copy. Others,
// and a rename the other way, are between file systems for the guest (EXDEV), as programs
// know it from mv(1).
func (f *fileSystem) renameAcross(r *renaming) error {
	if r.pa.private || r.moved.Mode&unix.S_IFMT != unix.S_IFREG || r.flags&unix.RENAME_EXCHANGE != 0 {
		return unix.EXDEV
	}
	if r.other != nil && r.flags&unix.RENAME_NOREPLACE != 0 {
		return unix.EEXIST
	}
	if r.other != nil && r.other.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	f.keepName(r.a, r.pa, r.from, r.moved)
	defer f.leftName(r.pa)
	now, err := f.private.copyIn(r.pa.dir.fd, r.pa.name, r.pb.dir.fd, r.pb.name, r.pb.slot)
	if err != nil {
		return err
	}
	f.separator.names.RLock()
	err = unix.Unlinkat(r.pa.dir.fd, r.pa.name, 0)
	f.separator.names.RUnlock()
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if r.other != nil {
		f.gone(r.b, r.to, r.other)
	}
	f.tree.moved(r.a, r.from, r.b, r.to, keyOf(r.moved), r.pb.slot)
	f.tree.becomes(keyOf(r.moved), now)
	return nil
}

// becomes notes that a node's file was replaced by a copy of it.
func (t *tree) becomes(old, now key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byKey[old]
	if n == nil || n == t.root {
		return
	}
	delete(t.byKey, old)
	t.closeFD(n)
	t.unpin(n)
	n.key, t.byKey[now] = now, n
	n.told, n.own, n.stamp = report{}, report{}, stamp{}
}

// checkRename returns the error for a rename on the host that would take a guarded path, or a directory that such
// paths lie in, to another place, or something to the place of one.
func (f *fileSystem) checkRename(r *renaming) error {
	if f.rules == nil || r.pb.private {
		return nil
	}
	if err := f.checkMoved(r.w, r.pb, r.to, r.pa, r.moved); err != nil {
		return err
	}
	ends := []struct {
		st       *unix.Statx_t
		from, at *spotAt
		name, to string
		as       *spotAt
	}{{r.moved, r.pa, r.pa, r.from, r.to, r.pb}}
	if r.flags&unix.RENAME_EXCHANGE != 0 && r.other != nil {
		if err := f.checkMoved(r.w, r.pa, r.from, r.pb, r.other); err != nil {
			return err
		}
		if r.pa.view.protects(r.from, r.other.Mode&unix.S_IFMT == unix.S_IFDIR) {
			f.events.note(r.w, guard.Refused, r.pa.view.chain.names, r.from)
			return unix.EXDEV
		}
		ends = append(ends, ends[0])
		ends[1].st, ends[1].from, ends[1].name, ends[1].to, ends[1].as = r.other, r.pb, r.to, r.from, r.pa
	}
	for _, e := range ends {
		if e.st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if f.rules.MayLeadAway(f.placeAt(e.from, e.name)) {
			f.events.note(r.w, guard.Refused, e.from.view.chain.names, e.name)
			return unix.EXDEV // an undo would bring it back, with what the guest makes in it meanwhile
		}
		m := &mover{fs: f, left: maxMoved, inRepository: func() bool { return f.inRepository(e.as) }}
		if m.holds(e.from.dir.fd, e.name, append(e.from.view.chain.names[:len(e.from.view.chain.names):len(e.from.view.chain.names)], e.name),
			append(e.as.view.chain.names[:len(e.as.view.chain.names):len(e.as.view.chain.names)], e.to)) {
			f.events.note(r.w, guard.Refused, e.from.view.chain.names, e.name)
			return unix.EXDEV
		}
	}
	return nil
}

// checkMoved is checkNew for what lies at a place and gets another name.
func (f *fileSystem) checkMoved(w who, to *spotAt, name string, from *spotAt, st *unix.Statx_t) error {
	typ, target := st.Mode&unix.S_IFMT, ""
	if typ == unix.S_IFLNK {
		target = targetOf(from.dir.fd, from.name)
	}
	return f.checkNew(w, to, name, typ, target)
}
