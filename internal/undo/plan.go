package undo

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Action is what an undo does with a path.
type Action string

// The actions.
const (
	Restore Action = "restore" // put back what was there
	Remove  Action = "remove"  // the guest made it
	Move    Action = "move"    // put a directory back to where it was
)

// Step is one action of a plan.
type Step struct {
	Action Action `json:"action"`
	Path   string `json:"path"`           // in the project: of Remove where it lies now, of others where it is then
	From   string `json:"from,omitempty"` // of Move
	Kind   Kind   `json:"kind,omitempty"` // of what comes back or goes
	Size   int64  `json:"size,omitempty"` // of a file, in bytes

	state *State
	point int
	now   slot // what lies there at the time of the plan
}

// Kept is a path that an undo leaves as it is.
type Kept struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

// Plan is what an undo would do.
type Plan struct {
	To    int      `json:"to"` // the restore point
	Steps []Step   `json:"steps"`
	Kept  []Kept   `json:"kept"`
	Notes []string `json:"notes,omitempty"`

	// rooms are directories that are made before others are moved into them (Restore), and those that must stay
	// where they are when the directory moves in which they lie (Move from Path to Path).
	rooms []Step

	points []int // the restore points that it was made of
}

// Request is what a person asks for.
type Request struct {
	// To is the restore point to go back to.
	To int
	// Paths limits the undo to these paths and what is below them, and takes back also what
	// was changed there on the host since. None means everything that only the guest changed.
	Paths []string
	// before limits the undo to points with lower numbers; 0 is none.
	before int
	// aside are paths at which an interrupted undo may have left directories.
	aside []string
}

// wants reports whether a path is part of the request.
func (r Request) wants(path string) bool {
	return len(r.Paths) == 0 || slices.ContainsFunc(r.Paths, func(p string) bool { return p == "." || within(path, p) })
}

// named reports whether the person named a path.
func (r Request) named(path string) bool {
	return slices.ContainsFunc(r.Paths, func(p string) bool { return p == "." || path == p || strings.HasPrefix(path, p+"/") })
}

// planner makes a plan.
type planner struct {
	store   *Store
	request Request
	root    *os.File
	plan    Plan
	moves   []Step
	removes []Step
	makes   []Step // files and links
	dirs    []Step
}

// Plan returns what an undo would do with the project at root. It changes nothing.
func (s *Store) Plan(root *os.File, q Request) (*Plan, error) {
	for i, p := range q.Paths {
		if q.Paths[i] = strings.Trim(p, "/"); q.Paths[i] != "." {
			if err := checkPath(q.Paths[i]); err != nil {
				return nil, err
			}
		}
	}
	list, err := numbers(s.fd)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(list, q.To) {
		return nil, fmt.Errorf("there is no restore point %d (`bawn undo --list` shows them)", q.To)
	}
	list = slices.DeleteFunc(list, func(n int) bool { return n < q.To || q.before > 0 && n >= q.before })
	r, err := s.replay(list)
	if err != nil {
		return nil, err
	}
	p := planner{store: s, request: q, root: root, plan: Plan{To: q.To, Steps: []Step{}, Kept: []Kept{}, Notes: r.notes, points: list}}
	r.resolve(root, q.aside)
	for _, b := range r.obsolete {
		p.discard(b)
	}
	if err := p.walk(r.root, ""); err != nil {
		return nil, err
	}
	deepFirst := func(a, b Step) int { return strings.Compare(b.Path, a.Path) }
	slices.SortFunc(p.removes, deepFirst)
	p.removes = slices.CompactFunc(p.removes, func(a, b Step) bool { return a.Path == b.Path })
	slices.SortFunc(p.dirs, deepFirst)
	slices.SortFunc(p.makes, func(a, b Step) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(p.plan.Kept, func(a, b Kept) int { return strings.Compare(a.Path, b.Path) })
	p.plan.Steps = slices.Concat(p.plan.Steps, p.removes, p.moves, p.makes, p.dirs)
	return &p.plan, nil
}

func (p *planner) keep(path, format string, args ...any) {
	p.plan.Kept = append(p.plan.Kept, Kept{path, fmt.Sprintf(format, args...)})
}

// discard plans the removal of what the guest made, from where it lies now.
func (p *planner) discard(b *branch) {
	now, st, err := look(p.root, b.disk)
	switch {
	case err != nil || !now.present || !p.request.wants(b.disk):
	case b.was.Kind != Absent || !b.known || !now.same(b.after) && !p.request.named(b.disk):
		p.keep(b.disk, "%s", hostChanged)
	default:
		p.removes = append(p.removes, Step{Action: Remove, Path: b.disk, Kind: stateOf(st).Kind, now: now})
	}
}

// hostChanged says why a path is left alone.
const hostChanged = "it was changed on the host since (name the path to undo it nevertheless)"

// walk plans what was at a branch and below it.
func (p *planner) walk(b *branch, path string) error {
	if len(path) >= unix.PathMax {
		return errors.New("a path in the records of changes is too long (is the store of undo damaged?)")
	}
	for _, name := range slices.Sorted(maps.Keys(b.kids)) {
		k, at := b.kids[name], join(path, name)
		if moved, stays := k.away(b, name, at); moved || stays {
			if moved && k.was != nil && k.was.Kind == Absent {
				p.made(k)
				continue
			}
			p.move(k, at, stays)
		}
		if k.was != nil && p.request.wants(at) {
			p.compare(k, at)
		}
		if err := p.walk(k, at); err != nil {
			return err
		}
	}
	return nil
}

// made plans the removal of a directory that the guest made and moved, with what it made in
// it.
func (p *planner) made(b *branch) {
	if b.was != nil && b.here {
		p.discard(b)
	}
	for _, k := range b.kids {
		p.made(k)
	}
}

// move plans to put a directory back. One that was put back before is there already.
func (p *planner) move(b *branch, path string, stays bool) {
	now, kind, moved := b.settle(p.root, path)
	if !moved || !p.request.wants(path) && !p.request.wants(b.disk) {
		return
	}
	if stays {
		p.plan.rooms = append(p.plan.rooms, Step{Action: Move, Path: path, From: path, Kind: kind, now: now})
	} else {
		p.moves = append(p.moves, Step{Action: Move, Path: path, From: b.disk, Kind: kind, now: now})
	}
}

// settle finds out where a directory lies that the records say was moved away from a path. It
// reports whether it lies elsewhere, and what lies there; otherwise it corrects the branch.
func (b *branch) settle(root *os.File, path string) (now slot, kind Kind, moved bool) {
	now, st, err := look(root, b.disk)
	if err == nil && now.present && now.ino == b.ino {
		return now, stateOf(st).Kind, true
	}
	if there, _, err := look(root, path); err == nil && there.present && there.ino == b.ino {
		b.relocate(b.disk, path)
		return slot{}, Absent, false
	}
	b.leave(b.disk) // it was removed; something else may lie there
	return slot{}, Absent, false
}

// leave notes that what lay in a directory of the project is gone.
func (b *branch) leave(disk string) {
	if b.disk == disk || strings.HasPrefix(b.disk, disk+"/") {
		b.here = false
	}
	for _, k := range b.kids {
		k.leave(disk)
	}
}

// relocate notes that what lies at a branch lies elsewhere in the project.
func (b *branch) relocate(from, to string) {
	if b.disk == from || strings.HasPrefix(b.disk, from+"/") {
		b.disk = to + b.disk[len(from):]
	}
	for _, k := range b.kids {
		k.relocate(from, to)
	}
}

// compare plans what is to be done at a path where something was.
func (p *planner) compare(b *branch, path string) {
	now := slot{}
	var st *unix.Statx_t
	if b.here {
		var err error
		if now, st, err = look(p.root, b.disk); err != nil {
			p.keep(path, "%v", err)
			return
		}
	}
	if p.store.isAs(p.root, b, now, st) {
		return
	}
	byGuest := !b.here || b.known && now.same(b.after) || p.madeRoom(b, now)
	switch {
	case !byGuest && !p.request.named(path):
		p.keep(path, "%s", hostChanged)
		return
	case b.was.Kind == Other:
		p.keep(path, "FIFOs and sockets are not restored")
		return
	case b.was.Lost != "":
		p.keep(path, "its contents were not kept: %s", b.was.Lost)
		return
	}
	if now.present && (b.was.Kind == Absent || stateOf(st).Kind == Dir != (b.was.Kind == Dir)) {
		p.removes = append(p.removes, Step{Action: Remove, Path: b.disk, Kind: stateOf(st).Kind, now: now})
		now = slot{}
	}
	step := Step{Action: Restore, Path: path, Kind: b.was.Kind, Size: b.was.Size, state: b.was, point: b.point, now: now}
	switch {
	case b.was.Kind == Dir:
		p.dirs = append(p.dirs, step)
		if !now.present {
			p.plan.rooms = append(p.plan.rooms, step)
		}
	case b.was.Kind != Absent:
		p.makes = append(p.makes, step)
	}
}

// madeRoom reports whether a directory is one that an interrupted undo has made, without giving it its attributes.
func (p *planner) madeRoom(b *branch, now slot) bool {
	return p.request.before > 0 && b.was.Kind == Dir && now.mode == unix.S_IFDIR|roomMode
}

// isAs reports whether what lies at a branch now is what was there. The guest can put back the
// times of a file that it has written, so contents are compared too.
func (s *Store) isAs(root *os.File, b *branch, now slot, st *unix.Statx_t) bool {
	w := b.was
	if !now.present {
		return w.Kind == Absent
	}
	is := stateOf(st)
	if is.Kind != w.Kind || w.Kind != Link && is.Mode != w.Mode {
		return false
	}
	switch w.Kind {
	case File:
		return is.Size == w.Size && is.Mtime == w.Mtime && bytes.Equal(w.Owner, ownerAt(root, b.disk)) && s.sameContents(root, b)
	case Link:
		t, err := targetAt(root, b.disk)
		return err == nil && bytes.Equal(t, w.Target)
	case Dir:
		return bytes.Equal(w.Owner, ownerAt(root, b.disk))
	}
	return true
}

// look returns what lies at a path of the project now.
func look(root *os.File, path string) (slot, *unix.Statx_t, error) {
	dir, name, err := parent(root, path)
	if gone(err) {
		return slot{}, nil, nil
	}
	if err != nil {
		return slot{}, nil, err
	}
	defer unix.Close(dir)
	var st unix.Statx_t
	err = unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, &st)
	if gone(err) {
		return slot{}, nil, nil
	}
	if err != nil {
		return slot{}, nil, fmt.Errorf("%s: %w", path, err)
	}
	return slotOf(&st), &st, nil
}

// gone reports whether an error means that a path leads to nothing. A symbolic link on the
// way is not followed, so what would lie behind it is not there.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// parent opens the directory of a path of the project, through no symbolic link. The caller
// closes it.
func parent(root *os.File, path string) (fd int, name string, err error) {
	dir, name := ".", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	fd, err = unix.Openat2(int(root.Fd()), dir, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return -1, name, fmt.Errorf("%s: %w", path, err)
	}
	return fd, name, nil
}

// openAt opens what lies at a path, without following a link (O_PATH). The caller closes it.
func openAt(root *os.File, path string) (int, error) {
	dir, name, err := parent(root, path)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dir)
	return unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func ownerAt(root *os.File, path string) []byte {
	fd, err := openAt(root, path)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	return owner(fd)
}

func targetAt(root *os.File, path string) ([]byte, error) {
	fd, err := openAt(root, path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return target(fd)
}
