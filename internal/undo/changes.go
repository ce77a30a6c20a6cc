package undo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file compares a project with what it was at a restore point, for a person who reviews
// what a guest did. Nothing that the guest says counts: which paths it touched the server of
// the share wrote down, and what they held is compared byte by byte.

// Change is a path that is not as it was at a restore point.
type Change struct {
	Path string // from the root of the project; where it was, if it is gone
	From string // where the directory lay that the guest moved here, or empty
	Was  State  // Absent: it was not there
	Now  State  // Absent: it is gone; without contents

	// Accepted means that a person took the path over (Putter), and that the guest changed it neither
	// before nor after.
	Accepted bool

	point int // of the contents in Was
}

// Changes are the differences between a project and a restore point.
type Changes struct {
	List  []Change // by path
	Notes []string // why some may be missing
}

// Changes returns how the project at root differs from what it was at the restore point to.
func (s *Store) Changes(root *os.File, to int) (*Changes, error) {
	list, err := numbers(s.fd)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(list, to) {
		return nil, fmt.Errorf("there is no restore point %d (`bawn undo --list` shows them)", to)
	}
	list = slices.DeleteFunc(list, func(n int) bool { return n < to })
	r, err := s.replay(list)
	if err != nil {
		return nil, err
	}
	c := comparer{store: s, root: root, accepted: r.accepted, changes: &Changes{Notes: r.notes}}
	r.resolve(root, nil)
	for _, b := range r.obsolete {
		c.compare(b, b.disk)
	}
	if err := c.walk(r.root, ""); err != nil {
		return nil, err
	}
	slices.SortFunc(c.changes.List, func(a, b Change) int { return strings.Compare(a.Path, b.Path) })
	c.changes.List = slices.CompactFunc(c.changes.List, func(a, b Change) bool { return a.Path == b.Path && a.From == b.From })
	return c.changes, nil
}

// acceptedIn returns those of the points at which a person took something over.
func (s *Store) acceptedIn(list []int) map[int]bool {
	accepted := map[int]bool{}
	for _, n := range list {
		folder, err := openDir(s.fd, folderName(n))
		if err != nil {
			continue
		}
		if h, err := head(folder); err == nil && h.Why == WhyAccept {
			accepted[n] = true
		}
		unix.Close(folder)
	}
	return accepted
}

// Contents opens what a file of a Change held before. The caller closes it.
func (s *Store) Contents(c *Change) (*os.File, error) {
	if c.Was.Kind != File || c.Was.Blob == "" {
		return nil, fmt.Errorf("%s: its contents were not kept: %s", c.Path, c.Was.Lost)
	}
	return s.blob(c.point, c.Was.Blob)
}

func (s *Store) blob(point int, name string) (*os.File, error) {
	folder, err := openDir(s.fd, folderName(point))
	if err != nil {
		return nil, fmt.Errorf("restore point %d: %w", point, err)
	}
	defer unix.Close(folder)
	f, err := openFile(folder, name, unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("contents in restore point %d: %w", point, err)
	}
	return f, nil
}

// OpenPath opens the regular file at a path of the project to read it, through no symbolic
// link. The caller closes it.
func OpenPath(root *os.File, path string) (*os.File, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	dir, name, err := parent(root, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	f, err := openFile(dir, name, unix.O_RDONLY|unix.O_NOCTTY)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// sameContents reports whether the file at a branch holds now what it held.
func (s *Store) sameContents(root *os.File, b *branch) bool {
	if b.was.Blob == "" {
		return b.was.Lost == ""
	}
	old, err := s.blob(b.point, b.was.Blob)
	if err != nil {
		return false
	}
	defer old.Close()
	now, err := OpenPath(root, b.disk)
	if err != nil {
		return false
	}
	defer now.Close()
	return sameBytes(old, now)
}

// sameBytes reports whether two readers yield the same.
func sameBytes(a, b io.Reader) bool {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, aerr := io.ReadFull(a, x)
		m, berr := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		aend := errors.Is(aerr, io.EOF) || errors.Is(aerr, io.ErrUnexpectedEOF)
		bend := errors.Is(berr, io.EOF) || errors.Is(berr, io.ErrUnexpectedEOF)
		if aend || bend || aerr != nil || berr != nil {
			return aend && bend
		}
	}
}

// comparer collects changes.
type comparer struct {
	store    *Store
	root     *os.File
	accepted map[int]bool
	changes  *Changes
}

func (c *comparer) walk(b *branch, path string) error {
	if len(path) >= unix.PathMax {
		return errors.New("a path in the records of changes is too long (is the store of undo damaged?)")
	}
	for _, name := range slices.Sorted(maps.Keys(b.kids)) {
		k, at := b.kids[name], join(path, name)
		if moved, _ := k.away(b, name, at); moved && (k.was == nil || k.was.Kind != Absent) {
			if _, kind, moved := k.settle(c.root, at); moved {
				c.changes.List = append(c.changes.List, Change{Path: k.disk, From: at, Was: State{Kind: kind}, Now: State{Kind: kind}})
			}
		}
		if k.was != nil {
			c.compare(k, at)
		}
		if err := c.walk(k, at); err != nil {
			return err
		}
	}
	return nil
}

// compare adds a branch whose path was at in the project, if it is not as it was.
func (c *comparer) compare(b *branch, at string) {
	change := Change{Path: at, Was: *b.was, Now: State{Kind: Absent}, Accepted: c.accepted[b.point] && !b.changed, point: b.point}
	if b.here {
		now, err := stateNow(c.root, b.disk)
		if err != nil {
			c.changes.Notes = append(c.changes.Notes, err.Error())
			return
		}
		if change.Now = now; now.Kind != Absent {
			change.Path = b.disk
		}
	}
	if !c.same(b, &change) {
		c.changes.List = append(c.changes.List, change)
	}
}

// stateNow returns the state of what lies at a path now, with the target of a link and without
// contents. It is Absent after an error, too.
func stateNow(root *os.File, path string) (State, error) {
	now, st, err := look(root, path)
	if err != nil || !now.present {
		return State{Kind: Absent}, err
	}
	s := *stateOf(st)
	if s.Kind == Link {
		s.Target, _ = targetAt(root, path)
	}
	return s, nil
}

// same reports whether what is at a branch is what was there. Times do not count.
func (c *comparer) same(b *branch, v *Change) bool {
	if v.Was.Kind != v.Now.Kind || v.Was.Kind != Link && v.Was.Mode != v.Now.Mode {
		return false
	}
	switch v.Was.Kind {
	case File:
		return v.Was.Size == v.Now.Size && c.store.sameContents(c.root, b)
	case Link:
		return bytes.Equal(v.Was.Target, v.Now.Target)
	}
	return true
}

// Touched returns paths that the guest changed since a time, by the records of the restore points
// that began then or later, and how they are now. It is for a first look: it reads no contents,
// a file that holds again what it did is in the list, and one that is below a directory which
// was renamed is left out. more is set if there are more paths than most.
func (s *Store) Touched(root *os.File, since time.Time, most int) (list []Change, more bool, err error) {
	all, err := numbers(s.fd)
	if err != nil {
		return nil, false, err
	}
	seen := map[string]bool{}
	for _, n := range slices.Backward(all) {
		recent, guests := true, true
		_, err := s.read(n, func(_ int, v *record) bool {
			if v.Op == opPoint {
				recent, guests = !time.Unix(0, v.At).Before(since), v.Why != WhyUndo && v.Why != WhyAccept
			}
			if v.Op == opFull {
				more = true
			}
			if !recent || !guests || v.Op != opWas || seen[string(v.Path)] {
				return recent && guests
			}
			if more = more || len(list) == most; more {
				return false
			}
			seen[string(v.Path)] = true
			now, _ := stateNow(root, string(v.Path)) // Absent after an error
			list = append(list, Change{Path: string(v.Path), Was: *v.State, Now: now, point: n})
			return true
		})
		if err != nil && !gone(err) {
			return nil, false, err
		}
		if !recent {
			break
		}
	}
	return list, more, nil
}
