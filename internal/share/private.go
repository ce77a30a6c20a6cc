package share

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/share/versions"
)

// # Theory of operation: private versions
//
// The guest's changes of a guarded path, and what it makes with a hidden name, are kept in a
// store beside the sandbox's state: private versions. Where one exists, every request of the
// guest for that path goes there; the host's file stays as it was. The first change of a
// guarded file or directory copies it there as a whole. A FIFO in the store means that the
// guest has removed the path.
//
// A name to which a rule applies is a slot. The store has a directory for each directory of
// the share that has private versions, below those of its parents: "d:" and its name. In it,
// a version is "p:" and the name of the slot. All below a version is an ordinary tree of the
// guest.
//
// The guest can put nothing into the store but versions: it names no "d:", and a version is
// never a FIFO (Mknod).

// Bounds of the store of one share.
const (
	maxPrivateFiles = 4096     // files and directories
	maxPrivateBytes = 64 << 20 // of their contents
	maxPrivateDepth = 32       // levels of a directory that is copied
)

const (
	slotPrefix  = versions.SlotPrefix
	dirPrefix   = versions.DirPrefix
	draftPrefix = versions.DraftPrefix
)

// privateStore is a store of private versions. Its methods may be called by several
// goroutines at once.
type privateStore struct {
	root *dirFD
	dev  uint64
	any  atomic.Bool // there may be versions

	mu     sync.Mutex // held while a version is copied, and for the account
	drafts int
	files  int64
	bytes  int64
}

// openPrivate opens a store, which is made if it is not there.
func openPrivate(path string) (*privateStore, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	st, err := statFD(fd)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	s := &privateStore{root: &dirFD{fd: fd, users: 1}, dev: device(st)}
	s.count()
	s.any.Store(s.files > 0)
	return s, nil
}

// count brings the account up to date.
func (s *privateStore) count() {
	s.files, s.bytes = 0, 0
	s.countBelow(s.root.fd, maxPrivateDepth*4)
}

func (s *privateStore) countBelow(dir, depth int) {
	names, err := entries(dir)
	if err != nil || depth == 0 || s.files > 2*maxPrivateFiles {
		return
	}
	for _, name := range names {
		st, err := statAt(dir, name)
		if err != nil {
			continue
		}
		s.files++
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			s.bytes += max(int64(st.Size), int64(st.Blocks)*512) // there may be room behind its end (fallocate(2))
		case unix.S_IFDIR:
			if fd, err := openDirAt(dir, name); err == nil {
				s.countBelow(fd, depth-1)
				unix.Close(fd)
			}
		}
	}
}

// take returns ENOSPC if so much more does not fit.
func (s *privateStore) take(files, bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(files, bytes)
}

func (s *privateStore) takeLocked(files, bytes int64) error {
	fits := func() bool { return s.files+files <= maxPrivateFiles && s.bytes+bytes <= maxPrivateBytes }
	if !fits() {
		s.count() // something may have been removed
	}
	if !fits() {
		return unix.ENOSPC
	}
	s.files += files
	s.bytes += bytes
	s.any.Store(true)
	return nil
}

// path returns where the store keeps the versions in a directory.
func (s *privateStore) path(dir []string) string {
	if len(dir) == 0 {
		return "."
	}
	return dirPrefix + strings.Join(dir, "/"+dirPrefix)
}

// open opens the store's directory for one of the share; ENOENT if it has no versions.
func (s *privateStore) open(dir []string) (int, error) {
	if !s.any.Load() {
		return -1, unix.ENOENT
	}
	return openDirAt(s.root.fd, s.path(dir))
}

// make is open for a directory that may have no versions yet.
func (s *privateStore) make(dir []string) (int, error) {
	if fd, err := s.open(dir); err == nil {
		return fd, nil
	}
	for i := range dir {
		err := unix.Mkdirat(s.root.fd, s.path(dir[:i+1]), 0o700)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
	}
	s.any.Store(true)
	return s.open(dir)
}

// version reports whether a slot has a version, or that the guest has removed the path.
func (s *privateStore) version(dir []string, name string) (there, removed bool) {
	fd, err := s.open(dir)
	if err != nil {
		return false, false
	}
	defer unix.Close(fd)
	st, err := statAt(fd, slotPrefix+name)
	if err != nil {
		return false, false
	}
	gone := st.Mode&unix.S_IFMT == unix.S_IFIFO
	return !gone, gone
}

// isDir reports whether the version in a slot is a directory. A nil store has none.
func (s *privateStore) isDir(dir []string, name string) bool {
	if s == nil {
		return false
	}
	fd, err := s.open(dir)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	st, err := statAt(fd, slotPrefix+name)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// versions returns the names of the slots of a directory that have a version.
func (s *privateStore) versions(dir []string) []string {
	fd, err := s.open(dir)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	all, err := entries(fd)
	if err != nil {
		return nil
	}
	var names []string
	for _, name := range all {
		slot, ok := strings.CutPrefix(name, slotPrefix)
		if st, err := statAt(fd, name); ok && err == nil && st.Mode&unix.S_IFMT != unix.S_IFIFO {
			names = append(names, slot)
		}
	}
	slices.Sort(names)
	return names
}

// remove notes that the guest has removed what the host has in a slot.
func (s *privateStore) remove(dir []string, name string) error {
	if err := s.take(1, 0); err != nil {
		return err
	}
	fd, err := s.make(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Mknodat(fd, slotPrefix+name, unix.S_IFIFO|0o600, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// moveDir follows the rename of a directory of the share.
func (s *privateStore) moveDir(from, to []string) error {
	old, err := s.open(from)
	if err != nil {
		return nil //nolint:nilerr // it has no versions
	}
	unix.Close(old)
	s.dropDir(to)
	fd, err := s.make(to[:len(to)-1])
	if err != nil {
		return err
	}
	unix.Close(fd)
	return unix.Renameat2(s.root.fd, s.path(from), s.root.fd, s.path(to), 0)
}

// exchangeDirs follows the exchange of two names of the share.
func (s *privateStore) exchangeDirs(a, b []string) error {
	has := func(dir []string) bool {
		fd, err := s.open(dir)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	}
	switch hasA, hasB := has(a), has(b); {
	case hasA && hasB:
		return unix.Renameat2(s.root.fd, s.path(a), s.root.fd, s.path(b), unix.RENAME_EXCHANGE)
	case hasA:
		return s.moveDir(a, b)
	case hasB:
		return s.moveDir(b, a)
	}
	return nil
}

// dropDir forgets the versions below a directory that is gone.
func (s *privateStore) dropDir(dir []string) {
	if s.any.Load() && len(dir) > 0 {
		removeTree(s.root.fd, s.path(dir), maxPrivateDepth*4)
	}
}

func removeTree(dir int, name string, depth int) {
	if unix.Unlinkat(dir, name, 0) == nil || depth == 0 {
		return
	}
	fd, err := openDirAt(dir, name)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	names, _ := entries(fd)
	for _, n := range names {
		removeTree(fd, n, depth-1)
	}
	_ = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

func openDirAt(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// entries returns the names in a directory.
func entries(dir int) ([]string, error) {
	fd, err := unix.Open(magic(dir), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

// copied is a file of the host and the private version of it.
type copied struct{ from, to key }

// copier copies a file or directory of the host into the store.
type copier struct {
	store *privateStore
	skip  func(names []string) bool // what the guest does not see
	list  []copied
}

// copyUp makes a private version of what the host has at a name in an open directory. skip
// says which paths below it are left out.
func (s *privateStore) copyUp(host int, dir []string, name string, skip func(names []string) bool) ([]copied, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if there, removed := s.version(dir, name); there || removed {
		return nil, nil // another request has done it
	}
	fd, err := s.make(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	s.drafts++
	draft := fmt.Sprintf("%s%d", draftPrefix, s.drafts)
	removeTree(fd, draft, maxPrivateDepth*4) // of a server that was killed
	c := &copier{store: s, skip: skip}
	err = c.copy(host, name, fd, draft, []string{name})
	if err == nil { // in one directory: Landlock ABI 1 allows no other renames
		err = unix.Renameat2(fd, draft, fd, slotPrefix+name, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		removeTree(fd, draft, maxPrivateDepth*4)
		return nil, err
	}
	return c.list, nil
}

// copyIn makes a private version of a regular file at a name in an open directory, in place
// of what lies at a name in the store, which is a slot or not, and returns its identity.
func (s *privateStore) copyIn(host int, name string, to int, as string, slot bool) (key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drafts++
	draft := fmt.Sprintf("%s%d", draftPrefix, s.drafts)
	at := s.root.fd
	if slot { // else the guest would see the draft
		at = to
	}
	removeTree(at, draft, 1)
	c := &copier{store: s}
	err := c.copy(host, name, at, draft, nil)
	if err == nil {
		err = unix.Renameat2(at, draft, to, as, 0)
	}
	if err != nil {
		removeTree(at, draft, 1)
		return key{}, err
	}
	return c.list[0].to, nil
}

func (c *copier) copy(from int, name string, to int, as string, names []string) error {
	if len(names) > maxPrivateDepth {
		return unix.ENOSPC
	}
	at, err := unix.Openat(from, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	st, err := statFD(at)
	if err != nil {
		return err
	}
	size := int64(0)
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		size = int64(st.Size)
	}
	if err := c.store.takeLocked(1, size); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = copyFile(at, st, to, as)
	case unix.S_IFLNK:
		err = copyLink(at, to, as)
	case unix.S_IFDIR:
		err = c.copyDir(at, st, to, as, names)
	default:
		return nil // a FIFO or socket of the host is left out
	}
	if err != nil {
		return err
	}
	now, err := statAt(to, as)
	if err == nil {
		c.list = append(c.list, copied{keyOf(st), keyOf(now)})
	}
	return err
}

func copyLink(at, to int, as string) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, "", buf)
	if err != nil {
		return err
	}
	return unix.Symlinkat(string(buf[:n]), to, as)
}

func copyFile(at int, st *unix.Statx_t, to int, as string) error {
	in, err := reopen(at, unix.O_RDONLY, st)
	if err != nil {
		return err
	}
	r := os.NewFile(uintptr(in), "host's version")
	defer r.Close()
	out, err := unix.Openat(to, as, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	w := os.NewFile(uintptr(out), "private version")
	defer w.Close()
	if n, err := io.Copy(w, io.LimitReader(r, int64(st.Size)+1)); err != nil {
		return err
	} else if n > int64(st.Size) {
		return unix.EAGAIN // it grows
	}
	return copyAttributes(at, st, out)
}

func (c *copier) copyDir(at int, st *unix.Statx_t, to int, as string, names []string) error {
	if err := unix.Mkdirat(to, as, 0o700); err != nil {
		return err
	}
	fd, err := openDirAt(to, as)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	list, err := entries(at)
	if err != nil {
		return err
	}
	for _, name := range list {
		below := append(slices.Clip(names), name)
		if c.skip(below) {
			continue
		}
		if err := c.copy(at, name, fd, name, below); err != nil {
			return err
		}
	}
	return copyAttributes(at, st, fd)
}

// copyAttributes gives a copy the mode, the record of the owner and the times of a file.
func copyAttributes(from int, st *unix.Statx_t, to int) error {
	buf := make([]byte, maxRecord)
	if n, err := unix.Getxattr(magic(from), ownerAttribute, buf); err == nil {
		_ = unix.Setxattr(magic(to), ownerAttribute, buf[:n], 0) // else it has the host's owner
	}
	if err := unix.Chmod(magic(to), uint32(st.Mode)&permissions); err != nil {
		return err
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: st.Mtime.Sec, Nsec: int64(st.Mtime.Nsec)}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, magic(to), ts, 0)
}
