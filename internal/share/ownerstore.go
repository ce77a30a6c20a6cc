package share

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ownerStore reads and writes the records of a share's files (owner.go). Its methods may be
// called by several goroutines at once; who changes a record holds the node's lock.
type ownerStore struct {
	table  *ownerTable
	locks  [64]sync.Mutex
	plain  sync.Map // of uint64: devices whose file systems have no user attributes
	plains atomic.Int32
}

func newOwnerStore() *ownerStore { return &ownerStore{table: newOwnerTable()} }

// What a record may take on the host: a block, and where attributes count as files (tmpfs),
// one of these.
const (
	recordBytes  = inodeBytes
	recordInodes = 1
)

// lock locks the record of a node for a change. The caller calls unlock.
func (s *ownerStore) lock(n *node) (unlock func()) {
	m := &s.locks[n.id%uint64(len(s.locks))]
	m.Lock()
	return m.Unlock
}

// file is an open directory and a name in it, or a descriptor of the file itself (no
// name).
type file struct {
	fd   int
	name string
}

// path leads to the file for system calls that take no descriptor of a place (O_PATH).
func (f file) path() string {
	if f.name == "" {
		return magic(f.fd)
	}
	return magic(f.fd) + "/" + f.name
}

// hasAttributes reports whether a file may have extended attributes of a user's own
// (xattr(7)).
func (s *ownerStore) hasAttributes(st *unix.Statx_t) bool {
	if typ := st.Mode & unix.S_IFMT; typ != unix.S_IFREG && typ != unix.S_IFDIR {
		return false
	}
	if s.plains.Load() == 0 {
		return true
	}
	_, plain := s.plain.Load(device(st))
	return !plain
}

// noAttributes notes that a file's file system has no user attributes.
func (s *ownerStore) noAttributes(st *unix.Statx_t) {
	if _, known := s.plain.LoadOrStore(device(st), true); !known {
		s.plains.Add(1)
	}
}

// read returns a file's record, or nil if it has none. One that does not parse, or may not
// be read, is none.
func (s *ownerStore) read(at file, st *unix.Statx_t) *ownership {
	if !s.hasAttributes(st) {
		return s.table.get(keyOf(st))
	}
	var buf [maxRecord + 1]byte
	n, err := getRecord(at, &buf)
	if errors.Is(err, unix.EOPNOTSUPP) {
		s.noAttributes(st)
		return s.table.get(keyOf(st))
	}
	if err != nil {
		return nil
	}
	if o, ok := parseOwnership(string(buf[:n])); ok {
		return &o
	}
	return nil
}

// write sets the record of the file at a descriptor, or removes it (nil). The server may
// write to the file.
func (s *ownerStore) write(fd int, st *unix.Statx_t, record *ownership) error {
	if !s.hasAttributes(st) {
		s.table.set(keyOf(st), record)
		return nil
	}
	var err error
	if record == nil {
		if err = unix.Removexattr(magic(fd), ownerAttribute); errors.Is(err, unix.ENODATA) {
			err = nil
		}
	} else {
		err = unix.Setxattr(magic(fd), ownerAttribute, []byte(record.String()), 0)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		s.noAttributes(st)
		s.table.set(keyOf(st), record)
		return nil
	}
	return err
}

// knownOwner is what a node knows of its file's record. It is guarded by the tree's mutex.
type knownOwner struct {
	valid  bool
	ctime  unix.StatxTimestamp // of the file when the record was read
	at     int64               // when that was (Unix time, ns)
	record *ownership
	shown  ownership // as the guest was told last
}

// holds reports whether the record is still that of the file: each change of an attribute
// changes the file's ctime, which has the resolution of the host's clock tick (settled).
func (k *knownOwner) holds(st *unix.Statx_t) bool {
	return k.valid && k.ctime == st.Ctime && k.at-(st.Ctime.Sec*1e9+int64(st.Ctime.Nsec)) > int64(settled)
}

// ownership returns what the guest sees of a node's file, which lies at the place.
func (f *fileSystem) ownership(n *node, at file, st *unix.Statx_t) ownership {
	f.tree.mu.Lock()
	if n.owner.holds(st) {
		n.owner.shown = shown(n.owner.record, st)
		o := n.owner.shown
		f.tree.mu.Unlock()
		return o
	}
	f.tree.mu.Unlock()
	return f.know(n, st, f.owners.read(at, st))
}

// know notes the record that a node's file has, and returns what the guest sees of it.
func (f *fileSystem) know(n *node, st *unix.Statx_t, record *ownership) ownership {
	o := shown(record, st)
	f.tree.mu.Lock()
	defer f.tree.mu.Unlock()
	n.owner = knownOwner{valid: true, ctime: st.Ctime, at: time.Now().UnixNano(), record: record, shown: o}
	n.privileged.Store(o.privileged())
	return o
}

// setOwnership makes the guest see a node's file as it wants. The caller holds the node's
// lock, and knows the file by a descriptor.
func (f *fileSystem) setOwnership(n *node, fd int, st *unix.Statx_t, want ownership) error {
	typ := st.Mode & unix.S_IFMT
	if !mayChange(st) {
		return f.setForeign(fd, st, want)
	}
	if typ == unix.S_IFLNK {
		want.mode = st.Mode & modeBits
	}
	mode := hostMode(typ, want.mode) | want.mode&keptSpecial(st)
	if typ == unix.S_IFLNK {
		mode = want.mode
	}
	record := recordOf(want, st, mode)
	if record != nil {
		if err := f.space.take(recordBytes, recordInodes); err != nil {
			return err
		}
		defer f.space.give(recordBytes, recordInodes)
	}
	if f.owners.hasAttributes(st) && st.Mode&0o600 != 0o600 { // its owner may not set attributes
		if err := unix.Chmod(magic(fd), uint32(mode)); err != nil {
			return err
		}
	}
	err := f.owners.write(fd, st, record)
	if err != nil {
		_ = unix.Chmod(magic(fd), uint32(st.Mode&permissions|keptSpecial(st))) // as it was
		return err
	}
	if typ == unix.S_IFLNK {
		err = touch(fd)
	} else {
		err = unix.Chmod(magic(fd), uint32(mode)) // which sets the file's ctime in any case
	}
	now, serr := statFD(fd)
	if err = errors.Join(err, serr); err != nil {
		return err
	}
	f.know(n, now, record)
	return nil
}

// keptSpecial returns the specialBits on the host of a file that a change of its mode may
// leave there. Set-user-ID and set-group-ID of a regular file go: the host's kernel takes
// them away when the guest writes to the file, and a change that began before that write
// must not put them back onto what the guest wrote.
func keptSpecial(st *unix.Statx_t) uint16 {
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return st.Mode & unix.S_ISVTX
	}
	return st.Mode & specialBits
}

// recordOf returns the record of a file that has the mode on the host, or nil if the guest
// sees it as it should without one.
func recordOf(want ownership, st *unix.Statx_t, mode uint16) *ownership {
	if want == (ownership{uid: st.Uid, gid: st.Gid, mode: mode}) {
		return nil
	}
	return &want
}

// setForeign is setOwnership for a file of another user of the host, as far as that lets
// the server's user.
func (f *fileSystem) setForeign(fd int, st *unix.Statx_t, want ownership) error {
	had := ownershipOf(st)
	if want.uid != had.uid || want.gid != had.gid || want.mode&^had.mode&(unix.S_ISUID|unix.S_ISGID) != 0 {
		return unix.EPERM
	}
	return unix.Chmod(magic(fd), uint32(want.mode))
}

// touch sets a file's ctime.
func touch(fd int) error { return unix.Fchownat(fd, "", -1, -1, unix.AT_EMPTY_PATH) }

// dropPrivileges takes set-user-ID and set-group-ID away from a node's file, whose contents
// are to change.
func (f *fileSystem) dropPrivileges(n *node, fd int) error {
	if !n.privileged.Load() {
		return nil
	}
	defer f.owners.lock(n)()
	st, err := statFD(fd)
	if err != nil {
		return err
	}
	had := f.know(n, st, f.owners.read(file{fd: fd}, st))
	want := had.withoutPrivileges()
	if want == had || n.isDir() {
		return nil
	}
	return f.setOwnership(n, fd, st, want)
}
