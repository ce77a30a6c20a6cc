package undo

import "strings"

// Entry is a path that was recorded in a restore point.
type Entry struct {
	point *point
	slot  uint32
	ready chan struct{} // closed when the record is written
	lost  string        // why the contents were not kept; set before ready is closed

	// Guarded by Recorder.mu.
	mixed bool // slot.mixed
	left  slot // as it was written last
	known bool // left is set
}

// seen is the paths of a point that were recorded, as a tree, so that a directory is renamed
// in one step.
type seen struct {
	entry *Entry
	kids  map[string]*seen
}

// at returns the place of a path, which it makes.
func (s *seen) at(path string) *seen {
	for name := range strings.SplitSeq(path, "/") {
		next := s.kids[name]
		if next == nil {
			if s.kids == nil {
				s.kids = map[string]*seen{}
			}
			next = &seen{}
			s.kids[name] = next
		}
		s = next
	}
	return s
}

// find returns the entry of a path, or nil.
func (s *seen) find(path string) *Entry {
	for name := range strings.SplitSeq(path, "/") {
		if s = s.kids[name]; s == nil {
			return nil
		}
	}
	return s.entry
}

// move makes a path have what another one had, with all below it.
func (s *seen) move(from, to string) {
	a := s.at(from)
	moved := *a
	*a = seen{}
	*s.at(to) = moved
}

// swap exchanges two paths with all below them.
func (s *seen) swap(a, b string) {
	x, y := s.at(a), s.at(b)
	*x, *y = *y, *x
}
