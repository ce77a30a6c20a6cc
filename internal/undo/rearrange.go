package undo

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// # Theory of operation: directories that were moved
//
// The guest may have moved directories into and past each other in any way: d to e/d and e/d/x to d. An
// undo moves each back by one rename(2), parents first. Nothing is put into a directory before that has
// come to its own place, since another directory may have its name meanwhile. The directory whose place is
// free and whose parent is in its place can go. If there is none, one that lies in the place of another gets a
// temporary name, which is written into the file planName before (underWay.Aside), so that the next undo
// finds it.

// rearrangement is the steps that put directories back, make those that are missing and remove what is in their
// way, as far as they are still to be done.
type rearrangement struct {
	*applier
	list    []Step
	targets map[string]int // paths that something is to be put at, and how many steps do that
}

// rearrange carries out such steps, as far as it can.
func (a *applier) rearrange(list []Step) error {
	r := &rearrangement{applier: a, list: slices.Clone(list), targets: map[string]int{}}
	for _, s := range list {
		if s.Action != Remove {
			r.targets[s.Path]++
		}
	}
	slices.SortStableFunc(r.list, func(x, y Step) int {
		switch {
		case x.Action == Remove && y.Action == Remove:
			return strings.Compare(y.Path, x.Path) // deep ones first
		case x.Action == Remove:
			return -1
		case y.Action == Remove:
			return 1
		}
		return strings.Compare(x.Path, y.Path) // parents first
	})
	for len(r.list) > 0 {
		further, err := r.pass()
		if err == nil && !further {
			further, err = r.untangle()
		}
		if err != nil {
			return err
		}
		if !further {
			break
		}
	}
	r.leftOver()
	return nil
}

// leftOver says which steps could not be done.
func (r *rearrangement) leftOver() {
	for _, s := range r.list {
		if s.Action == Restore || s.Action == Move && s.From == s.Path {
			continue // the later step of the former says it
		}
		why := keptFiles
		if s.Action == Move {
			why = "something else lies there now: " + s.From + " was not moved back"
		}
		r.res.Kept = append(r.res.Kept, Kept{s.Path, why})
	}
}

// pass does what can be done, and reports whether that was anything.
func (r *rearrangement) pass() (further bool, err error) {
	for i := 0; i < len(r.list); {
		s := r.list[i]
		err := r.one(s)
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) || gone(err) {
			i++ // after another one, maybe
			continue
		}
		if err := r.finish(i, err); err != nil {
			return true, err
		}
		if s.Action == Move && err == nil {
			r.follow(s.From, s.Path)
		}
		further = true
	}
	return further, nil
}

// finish takes a step off the list that was done, or failed with an error. It returns an error that ends the
// undo.
func (r *rearrangement) finish(i int, err error) error {
	s := r.list[i]
	r.list = slices.Delete(r.list, i, i+1)
	if s.Action != Remove {
		if r.targets[s.Path]--; r.targets[s.Path] == 0 {
			delete(r.targets, s.Path)
		}
	}
	if err == nil && (s.Action == Restore || s.Action == Move && s.From == s.Path) {
		return nil // the former has a step of its own later
	}
	return r.note(s, err)
}

// one does a step if its place is ready.
func (r *rearrangement) one(s Step) error {
	switch {
	case s.Action == Remove:
		return r.step(s)
	case !r.ready(s):
		return unix.ENOENT
	case s.Action == Move && s.From == s.Path:
		return nil
	case s.Action == Move:
		return r.moveOne(s)
	}
	err := r.room(s)
	if errors.Is(err, unix.EEXIST) && !slices.ContainsFunc(r.list, func(o Step) bool { return o.Action != Restore && o.at() == s.Path }) {
		return nil // it is the host's: its later step judges that
	}
	return err
}

// above returns the directories on the way to a path.
func above(at string) (dirs []string) {
	for i, c := range []byte(at) {
		if c == '/' {
			dirs = append(dirs, at[:i])
		}
	}
	return dirs
}

// ready reports whether all directories are in their places on the way to where a step puts something.
func (r *rearrangement) ready(s Step) bool {
	return !slices.ContainsFunc(above(s.Path), func(dir string) bool { return r.targets[dir] > 0 })
}

// untangle takes what is to be moved out of the way of something else: what lies where that is to be put, or in a
// directory that is to be removed. It reports whether there was anything.
func (r *rearrangement) untangle() (further bool, err error) {
	from, removed := map[string]int{}, map[string]bool{}
	for i, s := range r.list {
		switch s.Action {
		case Move:
			from[s.From] = i
		case Remove:
			removed[s.Path] = true
		}
	}
	to := map[int]string{} // by the step: temporary paths
	out := func(i int) {
		if _, ok := to[i]; !ok {
			to[i] = r.temp + "-" + strconv.Itoa(len(r.under.Aside))
			r.under.Aside = append(r.under.Aside, []byte(to[i])) // before anything lies there
		}
	}
	for j, s := range r.list {
		if i, ok := from[s.Path]; ok && s.Action != Remove && r.list[i].Path != s.Path && r.ready(s) {
			out(i)
		}
		if s.Action == Move && slices.ContainsFunc(above(s.From), func(dir string) bool { return removed[dir] }) {
			out(j)
		}
	}
	if len(to) == 0 {
		return false, nil
	}
	if err := r.store.begin(r.under); err != nil {
		return false, err
	}
	for i, temp := range to {
		s := r.list[i]
		from := s.From
		s.Path = temp
		if r.moveOne(s) == nil {
			r.list[i].From = temp
			r.follow(from, temp)
			further = true
		}
	}
	return further, nil
}

// follow changes where steps find what lay in a directory that was moved.
func (r *rearrangement) follow(from, to string) {
	for i := range r.list {
		r.list[i].lies(func(at string) string {
			if at == from {
				return at
			}
			at, _ = below(at, from, to)
			return at
		})
	}
}

// lies changes where a step finds what it moves or removes.
func (s *Step) lies(change func(at string) string) {
	switch s.Action {
	case Move:
		s.From = change(s.From)
	case Remove:
		s.Path = change(s.Path)
	}
}

// below returns where a path leads after a directory at from was moved to a place, if it is that or lies below it.
func below(at, from, to string) (string, bool) {
	if at == from || strings.HasPrefix(at, from+"/") {
		return to + at[len(from):], true
	}
	return at, false
}

// at returns where what a step is about lies before it.
func (s Step) at() string {
	if s.Action == Move {
		return s.From
	}
	return s.Path
}

// roomMode is the mode of a directory until everything is in it.
const roomMode = 0o700

// room makes the directory of a step. Its attributes come when everything is in it.
func (a *applier) room(s Step) error {
	dir, name, err := parent(a.root, s.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	e := a.rec.beforeName(dir, name, s.Path)
	if err := unix.Mkdirat(dir, name, roomMode); err != nil {
		return err
	}
	a.rec.afterName(e, dir, name)
	return nil
}
