// Package versions reads the private versions of a guest, for the person on the host.
//
// # Theory of operation
//
// The server of a share keeps what a guest writes to guarded paths in a store (package share,
// private.go): a directory "d:NAME" for each directory of the share, and in it a version
// "p:NAME" for each guarded name. A FIFO in place of a version means that the guest has removed
// the path. All below a version is an ordinary tree of the guest, which may lack what the host
// has.
//
// List walks the store and returns each file, symbolic link and removal with its path in
// the share. Nothing is followed through a symbolic link, no FIFO is opened, and the walk
// is bounded: the contents are the guest's.
package versions

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The first characters of names in a store.
const (
	SlotPrefix  = "p:"                    // a version
	DirPrefix   = "d:"                    // a directory of the share
	DraftPrefix = "t:"                    // a version that is being made
	asidePrefix = "a:"                    // a version that Drop compares
	droppedName = DraftPrefix + "dropped" // one that Drop removes
)

// Kind is the type of a version.
type Kind string

// The kinds.
const (
	File    Kind = "file"
	Link    Kind = "link" // symbolic
	Removed Kind = "removed"
)

// Version is what the guest has at a path in place of the host's.
type Version struct {
	Path   string // in the share
	Slot   string // the guarded path that it belongs to: itself, or a directory above
	Kind   Kind
	Exec   bool   // of a file: somebody may execute it
	Size   int64  // of a file, in bytes
	Data   []byte // of a file, unless it is larger than the caller asked for
	Whole  bool   // Data is all of it
	Target string // of a link

	Changed time.Time // when the guest last changed it or its attributes, by the host's clock
}

// Bounds of a walk. The store itself is bounded by the server (docs/limits.md).
const (
	entryLimit = 16384
	depthLimit = 256
)

// ErrTooMany means that a store has more entries than a server makes.
var ErrTooMany = errors.New("the store of private versions holds too many files")

// List returns the versions in a store, by path. Files of up to limit bytes are read; with 0, none
// is. A store that is not there is empty.
func List(store string, limit int64) ([]Version, error) {
	w := &walker{limit: limit}
	if err := inStore(store, func(fd int) error { return w.store(fd, "", 0) }); err != nil {
		return nil, fmt.Errorf("read %s: %w", store, err)
	}
	sortByPath(w.list)
	return w.list, nil
}

// inStore calls f for a store, unless that is not there.
func inStore(store string, f func(fd int) error) error {
	fd, err := unix.Open(store, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

func sortByPath(list []Version) {
	slices.SortFunc(list, func(a, b Version) int { return cmp.Compare(a.Path, b.Path) })
}

type walker struct {
	limit  int64
	looked int
	list   []Version
}

// names lists an open directory.
func (w *walker) names(dir, depth int) ([]string, error) {
	if depth > depthLimit {
		return nil, ErrTooMany
	}
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	list, err := f.Readdirnames(entryLimit + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if w.looked += len(list); w.looked > entryLimit {
		return nil, ErrTooMany
	}
	return list, nil
}

// below calls f for the directory at a name. One that is gone by now is left out.
func below(dir int, name string, f func(fd int) error) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(fd)
}

// store walks the store's directory for a directory of the share.
func (w *walker) store(dir int, at string, depth int) error {
	list, err := w.names(dir, depth)
	if err != nil {
		return err
	}
	for _, name := range list {
		if sub, ok := strings.CutPrefix(name, DirPrefix); ok && plain(sub) {
			err = below(dir, name, func(fd int) error { return w.store(fd, path.Join(at, sub), depth+1) })
		} else if sub, ok := strings.CutPrefix(name, SlotPrefix); ok && plain(sub) {
			slot := path.Join(at, sub)
			err = w.version(dir, name, slot, slot, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plain reports whether a name is one of a file.
func plain(name string) bool { return name != "" && name != "." && name != ".." }

// version adds what lies at a name, and all below it.
func (w *walker) version(dir int, name, at, slot string, depth int) error {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	v := Version{Path: at, Slot: slot, Changed: time.Unix(st.Ctim.Unix())}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return below(dir, name, func(fd int) error { return w.tree(fd, at, slot, depth+1) })
	case unix.S_IFREG:
		v.Kind, v.Exec, v.Size = File, st.Mode&0o111 != 0, st.Size
		if w.limit > 0 {
			v.Data, v.Whole, err = w.read(fd)
		}
	case unix.S_IFLNK:
		v.Kind = Link
		v.Target, err = readlink(fd)
	case unix.S_IFIFO:
		if at != slot {
			return nil
		}
		v.Kind = Removed
	default:
		return nil
	}
	if err == nil {
		w.list = append(w.list, v)
	}
	return err
}

func (w *walker) tree(dir int, at, slot string, depth int) error {
	list, err := w.names(dir, depth)
	if err != nil {
		return err
	}
	for _, name := range list {
		if err := w.version(dir, name, path.Join(at, name), slot, depth); err != nil {
			return err
		}
	}
	return nil
}

// read reads the regular file at an O_PATH descriptor.
func (w *walker) read(at int) (data []byte, whole bool, err error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(at), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, false, err
	}
	f := os.NewFile(uintptr(fd), "private version")
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, w.limit+1))
	if err != nil || int64(len(data)) > w.limit {
		return nil, false, err
	}
	return data, true, nil
}

func readlink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(n, 0)]), err
}

// Same reports whether two versions hold the same.
func (v Version) Same(o Version) bool {
	return v.Kind == o.Kind && v.Exec == o.Exec && v.Target == o.Target && v.Whole == o.Whole && bytes.Equal(v.Data, o.Data)
}

// Drop removes from a store the versions of those guarded paths that the host has taken over, so that
// the guest sees the host's files again. Each goes as a whole, if it still is what taken has of it.
// The caller has called Recover. Drop returns how many guarded paths the guest shares with the host
// again. An error at one does not keep it from the others.
func Drop(store string, slots []string, taken []Version) (dropped int, err error) {
	of := map[string][]Version{}
	for _, v := range taken {
		of[v.Slot] = append(of[v.Slot], v)
	}
	for _, slot := range slots {
		ok, derr := drop(store, slot, of[slot])
		if derr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", slot, derr))
		}
		if ok {
			dropped++
		}
	}
	return dropped, err
}

// drop reports whether the guest shares the path of a slot with the host afterwards.
func drop(store, slot string, taken []Version) (bool, error) {
	name, aside := SlotPrefix+path.Base(slot), asidePrefix+path.Base(slot)
	dir, err := openSlotDir(store, slot)
	if err == nil {
		defer unix.Close(dir)
		// First aside, then compared: what the guest changes meanwhile is not lost.
		err = unix.Renameat2(dir, name, dir, aside, unix.RENAME_NOREPLACE)
	}
	if errors.Is(err, unix.ENOENT) {
		return true, nil // the guest has removed its version
	}
	if err != nil {
		return false, err
	}
	w := &walker{limit: max(1, maxTaken(taken))}
	err = w.version(dir, aside, slot, slot, 0)
	sortByPath(w.list)
	sortByPath(taken)
	same := func(a, b Version) bool { return a.Path == b.Path && a.Same(b) }
	if err != nil || !slices.EqualFunc(w.list, taken, same) {
		return false, errors.Join(err, unix.Renameat2(dir, aside, dir, name, unix.RENAME_NOREPLACE))
	}
	// In one step no version any more: part of one must never be put back.
	if err := unix.Renameat2(dir, aside, dir, droppedName, unix.RENAME_NOREPLACE); err != nil {
		return false, err
	}
	return true, removeAll(dir, droppedName, 0)
}

// openSlotDir opens the directory of a store in which a slot lies. The caller closes it.
func openSlotDir(store, slot string) (int, error) {
	at := "."
	if dir := path.Dir(slot); dir != "." {
		at = DirPrefix + strings.ReplaceAll(dir, "/", "/"+DirPrefix)
	}
	root, err := unix.Open(store, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, at, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// Recover finishes a Drop that was killed: the version that it was comparing is put back. One that the guest
// has made again since is the one that counts.
func Recover(store string) error {
	if err := inStore(store, func(fd int) error { return (&walker{}).putBack(fd, 0) }); err != nil {
		return fmt.Errorf("restore %s: %w", store, err)
	}
	return nil
}

func (w *walker) putBack(dir, depth int) error {
	list, err := w.names(dir, depth)
	if err != nil {
		return err
	}
	for _, name := range list {
		if strings.HasPrefix(name, DirPrefix) {
			err = below(dir, name, func(fd int) error { return w.putBack(fd, depth+1) })
		} else if name == droppedName {
			err = removeAll(dir, name, depth)
		} else if slot, ok := strings.CutPrefix(name, asidePrefix); ok {
			err = unix.Renameat2(dir, name, dir, SlotPrefix+slot, unix.RENAME_NOREPLACE)
			if errors.Is(err, unix.EEXIST) {
				err = removeAll(dir, name, depth)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func maxTaken(list []Version) (size int64) {
	for _, v := range list {
		size = max(size, int64(len(v.Data)))
	}
	return size
}

func removeAll(dir int, name string, depth int) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) || depth > depthLimit {
		return err
	}
	err = below(dir, name, func(fd int) error {
		list, err := (&walker{}).names(fd, depth)
		for _, n := range list {
			err = errors.Join(err, removeAll(fd, n, depth+1))
		}
		return err
	})
	return errors.Join(err, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR))
}
