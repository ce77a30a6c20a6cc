package versions

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Gone returns what the guest has removed from directories of the host of which it has a version,
// by path. root is the share. A file that the host made or changed after the guest got its version
// does not count as removed. skip reports whether the guest does not see a path.
func Gone(store string, root *os.File, skip func(at string) bool) ([]Version, error) {
	g := &gone{root: root, skip: skip}
	if err := inStore(store, func(fd int) error { return g.store(fd, "", 0) }); err != nil {
		return nil, fmt.Errorf("read %s: %w", store, err)
	}
	sortByPath(g.list)
	return g.list, nil
}

// gone compares directories of a store with the host's. looked counts the entries of both.
type gone struct {
	walker
	root *os.File
	skip func(at string) bool
}

// slotDir is a guarded directory of which the guest has a version.
type slotDir struct {
	path string
	made time.Time // when the guest got its version; zero if the file system does not say: nothing counts as removed
}

// store looks for versions that are directories in the store's directory for one of the share.
func (g *gone) store(dir int, at string, depth int) error {
	list, err := g.names(dir, depth)
	if err != nil {
		return err
	}
	for _, name := range list {
		if sub, ok := strings.CutPrefix(name, DirPrefix); ok && plain(sub) {
			err = below(dir, name, func(fd int) error { return g.store(fd, path.Join(at, sub), depth+1) })
		} else if sub, ok := strings.CutPrefix(name, SlotPrefix); ok && plain(sub) {
			err = below(dir, name, func(fd int) error { return g.slot(fd, path.Join(at, sub), depth+1) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *gone) slot(version int, at string, depth int) error {
	if g.skip(at) {
		return nil // the guest never saw what is hidden, and has removed nothing of it
	}
	s := slotDir{path: at}
	var st unix.Statx_t
	if err := unix.Statx(version, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err == nil && st.Mask&unix.STATX_BTIME != 0 {
		s.made = time.Unix(st.Btime.Sec, int64(st.Btime.Nsec))
	}
	host, err := unix.Openat2(int(g.root.Fd()), at, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return nil // the host has no such directory: there is nothing to remove
	}
	defer unix.Close(host)
	found, looked := len(g.list), g.looked
	err = g.compare(version, host, at, &s, depth)
	if errors.Is(err, ErrTooMany) { // the host's own files are not bounded: what the guest removed here is not known
		g.list, g.looked = g.list[:found], looked
		return nil
	}
	return err
}

// compare adds what a directory of the host has and the guest's version lacks. version is -1 if the
// guest has no such directory.
func (g *gone) compare(version, host int, at string, s *slotDir, depth int) error {
	has := map[string]bool{}
	if version >= 0 {
		mine, err := g.names(version, depth)
		if err != nil {
			return err
		}
		for _, name := range mine {
			has[name] = true
		}
	}
	list, err := g.names(host, depth)
	if err != nil {
		return err
	}
	slices.Sort(list)
	for _, name := range list {
		var st unix.Stat_t
		sub := path.Join(at, name)
		if unix.Fstatat(host, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || g.skip(sub) {
			continue
		}
		old := !s.made.IsZero() && !time.Unix(st.Ctim.Unix()).After(s.made) // the guest may have seen it
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if !has[name] && !old {
				continue // the host has put it here since
			}
			err = below(host, name, func(fd int) error { return g.directory(version, fd, name, sub, s, depth) })
		case unix.S_IFREG, unix.S_IFLNK:
			if !has[name] && old {
				g.list = append(g.list, Version{Path: sub, Slot: s.path, Kind: Removed})
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// directory compares a directory of the host with what the guest has at its name.
func (g *gone) directory(version, host int, name, at string, s *slotDir, depth int) error {
	fd := -1
	if version >= 0 {
		if sub, err := unix.Openat(version, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
			defer unix.Close(sub)
			fd = sub
		}
	}
	return g.compare(fd, host, at, s, depth+1)
}
