package share

import (
	"os"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// newFile is what the guest asks for a file that it makes.
type newFile struct {
	caller fuse.Owner
	typ    uint16 // S_IFMT, as the host has it
	mode   uint16 // modeBits
	device uint16 // as in ownership
	rdev   uint32
	target string // of a symbolic link
}

// hostMode is the mode with which the file is made on the host.
func (n newFile) hostMode() uint32 { return uint32(hostMode(n.typ, n.mode)) }

// ownershipIn returns the ownership of the file, which the host has made with these
// attributes (inode(7)). A directory with set-group-ID gives its group.
func (n newFile) ownershipIn(dir ownership, st *unix.Statx_t) ownership {
	want := ownership{uid: n.caller.Uid, gid: n.caller.Gid, mode: n.mode, device: n.device, rdev: n.rdev}
	if (want.uid == uint32(os.Geteuid()) && want.gid == uint32(os.Getegid())) || want.uid == nobody || want.gid == nobody {
		want.uid, want.gid = st.Uid, st.Gid // the host's own rules for groups apply
	}
	if dir.mode&unix.S_ISGID != 0 {
		want.gid = dir.gid
		if n.typ == unix.S_IFDIR {
			want.mode |= unix.S_ISGID
		}
	}
	// An access list of the directory may have taken bits away, or the file system has
	// modes of its own.
	asked, got := hostMode(n.typ, n.mode), st.Mode&permissions
	if n.typ == unix.S_IFLNK || got&^asked != 0 {
		want.mode = got | want.mode&specialBits
	} else {
		want.mode &^= asked &^ got
	}
	want.mode |= st.Mode & specialBits
	return want
}

// shownDir returns what the guest was told last of a directory.
func (f *fileSystem) shownDir(n *node) ownership {
	if n == nil {
		return ownership{}
	}
	f.tree.mu.Lock()
	known, o := n.owner.valid, n.owner.shown
	f.tree.mu.Unlock()
	if known {
		return o
	}
	_, o, err := f.stat(n)
	if err != nil {
		return ownership{} // the request will fail
	}
	return o
}

// own records the ownership of a file that was just made in a directory, at the descriptor,
// if it is not what the host has. It brings st up to date, and returns the record.
func (f *fileSystem) own(dir *node, n newFile, fd func() (int, error), st *unix.Statx_t) (*ownership, error) {
	record := recordOf(n.ownershipIn(f.shownDir(dir), st), st, st.Mode&modeBits)
	if record == nil || !mayChange(st) && n.device == 0 {
		if !f.owners.hasAttributes(st) {
			f.owners.table.set(keyOf(st), nil) // of a file that had the number before
		}
		return nil, nil
	}
	if err := f.space.take(recordBytes, recordInodes); err != nil {
		return nil, err
	}
	defer f.space.give(recordBytes, recordInodes)
	at, err := fd()
	if err != nil {
		return nil, err
	}
	if err := f.owners.write(at, st, record); err != nil {
		return nil, err
	}
	if n.device != 0 && !f.owners.hasAttributes(st) {
		return nil, unix.EPERM // without the record it would be a file
	}
	now, err := statFD(at)
	if err == nil {
		*st = *now
	}
	return record, err
}

// ownAt is own for a file that has a name in an open directory. If it fails, the name is
// removed.
func (f *fileSystem) ownAt(dir *node, n newFile, dirFD int, name string, st *unix.Statx_t) (*ownership, error) {
	at := -1
	defer func() {
		if at >= 0 {
			unix.Close(at)
		}
	}()
	made := keyOf(st)
	record, err := f.own(dir, n, func() (int, error) {
		var err error
		if at, err = unix.Openat(dirFD, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err != nil {
			return -1, stale(err)
		}
		if now, err := statFD(at); err != nil || keyOf(now) != made {
			return -1, unix.ESTALE // replaced on the host
		}
		return at, nil
	}, st)
	if err != nil {
		f.discard(dirFD, name, made)
	}
	return record, err
}

// discard removes a file that was made and cannot be given its owner.
func (f *fileSystem) discard(dirFD int, name string, made key) {
	st, err := statAt(dirFD, name)
	if err != nil || keyOf(st) != made {
		return
	}
	flags := 0
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	_ = unix.Unlinkat(dirFD, name, flags) // it has the host's owner then
}
