package undo

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file replays journals backwards. It works on a tree of what lies in the project now,
// and moves its branches back to where they were; a branch that no record is about is not in
// the tree.

// branch is a place in the project as it was, and what lies there now.
type branch struct {
	kids map[string]*branch

	here bool   // something of the present lies here, if the project still has it
	disk string // where that lies in the project now
	ino  uint64 // of what was moved here, as it was when it was renamed; 0 for others

	was   *State // what was here; nil if no record says it
	point int    // of was
	after slot   // how the guest left what lies here
	known bool   // after was written

	changed bool // by more than what a person took over
}

// kid returns the branch at a name.
func (b *branch) kid(name string) *branch {
	k := b.kids[name]
	if k == nil {
		if b.kids == nil {
			b.kids = map[string]*branch{}
		}
		k = &branch{here: b.here, disk: join(b.disk, name)}
		b.kids[name] = k
	}
	return k
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// at returns the branch at a path.
func (b *branch) at(path string) *branch {
	for name := range strings.SplitSeq(path, "/") {
		b = b.kid(name)
	}
	return b
}

// replay is the project as it was at a restore point.
type replay struct {
	root     *branch
	size     int          // components of all paths
	obsolete []*branch    // made by the guest where something else was moved back to
	accepted map[int]bool // restore points at which a person took something over
	notes    []string
}

// maxBranches bounds what a store can make an undo keep in memory: a path of a forged record
// can have two thousand components.
const maxBranches = 8 << 20

// at returns the branch at the path of a record.
func (r *replay) at(path []byte) *branch {
	r.size += 1 + bytes.Count(path, []byte("/"))
	return r.root.at(string(path))
}

// was goes back over a record of opWas.
func (r *replay) was(point int, v *record, after io.ReaderAt) {
	b := r.at(v.Path)
	if b.was != nil && b.was.Kind == Absent && v.State.Kind == Dir {
		r.drop(b) // the guest made what lies here after this directory was gone
		*b = branch{was: v.State, changed: b.changed}
	}
	left, known := readSlot(after, v.Slot)
	switch {
	case b.was == nil: // the latest record of what lies here
		b.after, b.known = left, known && !left.mixed
	case known && (left.mixed || !left.isOf(b.was)):
		b.known = false // the host changed it before the guest changed it again
	}
	b.was, b.point = v.State, point
	b.changed = b.changed || !r.accepted[point]
}

// moved goes back over a rename.
func (r *replay) moved(v *record) {
	from, to := r.at(v.Path), r.at(v.To)
	r.drop(from)
	*from = *to
	from.ino = v.Ino
	*to = branch{} // nothing was there, unless an earlier record says so
}

// drop keeps what the guest made at a branch that something else takes the place of.
func (r *replay) drop(b *branch) {
	if b.was != nil && b.here {
		c := *b
		c.kids = nil
		r.obsolete = append(r.obsolete, &c)
	}
	for _, k := range b.kids {
		r.drop(k)
	}
}

func (r *replay) swapped(v *record) {
	a, b := r.at(v.Path), r.at(v.To)
	*a, *b = *b, *a
	a.ino, b.ino = v.Ino, v.ToIno
}

// replay goes back over the restore points, the newest first.
func (s *Store) replay(points []int) (*replay, error) {
	r := &replay{root: &branch{here: true}, accepted: s.acceptedIn(points)}
	for i := len(points) - 1; i >= 0; i-- {
		if err := s.replayPoint(r, points[i]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (s *Store) replayPoint(r *replay, n int) error {
	var list []*record
	damaged, err := s.read(n, func(_ int, v *record) bool {
		if v.Op == opFull {
			r.notes = append(r.notes, "some changes were not recorded: "+v.Why)
		}
		list = append(list, v)
		return len(list) <= 3*MaxRecords // a Recorder writes fewer
	})
	if err != nil {
		return err
	}
	if damaged || len(list) > 3*MaxRecords {
		r.notes = append(r.notes, "the last records are damaged: what they were about is taken for a change on the host")
	}
	after, err := s.after(n)
	if err != nil {
		return err
	}
	defer after.Close()
	for i := len(list) - 1; i >= 0; i-- {
		if r.size > maxBranches {
			return errors.New("the records of changes are too many (is the store of undo damaged?)")
		}
		switch v := list[i]; v.Op {
		case opWas:
			r.was(n, v, after)
		case opMoved:
			if !within(string(v.Path), string(v.To)) {
				r.moved(v)
			}
		case opSwapped:
			if !within(string(v.Path), string(v.To)) {
				r.swapped(v)
			}
		}
	}
	return nil
}

// within reports whether one of two paths is the other or lies below it: the kernel renames
// no directory like this, so no Recorder writes it.
func within(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// after opens the slots of a point.
func (s *Store) after(n int) (*os.File, error) {
	folder, err := openDir(s.fd, folderName(n))
	if err != nil {
		return nil, err
	}
	defer unix.Close(folder)
	return openFile(folder, afterName, unix.O_RDONLY)
}

// moved is a branch that was moved, for resolve.
type moved struct {
	branch *branch
	path   string // where it was
	lay    string // where it lies unless an undo that was interrupted has moved it or a directory above it
	found  string // where it lies
}

// away reports whether a branch, with a name in another one and so with a path, is not where that would have it. stays
// means that it lies at its path, while the directory that was there before it is gone: what has that directory's
// name now may be moved away with it.
func (k *branch) away(b *branch, name, at string) (moved, stays bool) {
	switch {
	case !k.here:
		return false, false
	case b.here:
		return k.disk != join(b.disk, name), false
	}
	return k.disk != at, k.disk == at && k.ino != 0
}

// resolve finds out where directories lie that the records say were moved, after an undo that was interrupted: in
// their old place, at one of the paths aside, or in another directory that has moved. One that is not found was removed. What
// has its name now was made after that.
func (r *replay) resolve(root *os.File, aside []string) {
	var list []*moved
	collect(r.root, "", &list)
	find := func(m *moved, paths ...string) bool {
		for _, at := range paths {
			if now, _, err := look(root, at); err == nil && now.present && now.ino == m.branch.ino {
				m.found = at
				return true
			}
		}
		return false
	}
	lost := slices.DeleteFunc(slices.Clone(list), func(m *moved) bool { return find(m, m.lay) })
	if len(lost) == 0 {
		return
	}
	lay := map[string]*moved{}
	for _, m := range list {
		lay[m.lay] = m
	}
	for further := true; further; {
		left := slices.DeleteFunc(slices.Clone(lost), func(m *moved) bool {
			return find(m, append([]string{m.path, nowAt(m.lay, lay)}, aside...)...)
		})
		further = len(left) < len(lost)
		lost = left
	}
	for _, b := range r.obsolete {
		b.disk = nowAt(b.disk, lay)
	}
	for _, m := range lost {
		r.abandon(m.branch, m.lay)
	}
	for _, m := range list {
		if m.found != "" && m.found != m.lay {
			m.branch.lie(m.found)
		}
	}
}

// abandon notes that what lies at a branch, at a place of the project, is not what the records say was moved
// there, but was made later.
func (r *replay) abandon(b *branch, disk string) {
	if _, within := below(b.disk, disk, ""); !within || !b.here {
		return
	}
	b.here = false
	if b.was != nil {
		c := *b
		c.kids, c.here, c.was = nil, true, &State{Kind: Absent}
		r.obsolete = append(r.obsolete, &c)
	}
	for _, k := range b.kids {
		r.abandon(k, disk)
	}
}

// collect adds the branches below one that were moved.
func collect(b *branch, path string, list *[]*moved) {
	if len(path) >= unix.PathMax {
		return // the walk says so
	}
	for name, k := range b.kids {
		at := join(path, name)
		away, stays := k.away(b, name, at)
		if removed := k.known && !k.after.present; (away || stays) && !removed { // its inode may be another file's by now
			*list = append(*list, &moved{branch: k, path: at, lay: k.disk})
		}
		collect(k, at, list)
	}
}

// nowAt returns where a path leads after the innermost of the directories has moved in which it lay.
func nowAt(at string, lay map[string]*moved) string {
	for i := len(at) - 1; i > 0; i-- {
		if at[i] != '/' {
			continue
		}
		if m := lay[at[:i]]; m != nil {
			if m.found == "" {
				return at
			}
			return m.found + at[i:]
		}
	}
	return at
}

// lie changes where a branch lies, with those below that were not moved themselves.
func (b *branch) lie(at string) {
	was := b.disk
	b.disk = at
	for name, k := range b.kids {
		if k.here && k.disk == join(was, name) {
			k.lie(join(at, name))
		}
	}
}
