package undo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Result is what an undo did.
type Result struct {
	Done []Step `json:"done"`
	Kept []Kept `json:"kept"` // what the plan left, what changed since the plan was made, and what the host refused
	// Lost are paths of Done that this undo cannot be taken back of: what it replaced there was not kept.
	Lost []Kept `json:"lost,omitempty"`
	// Point is the restore point that takes this undo back, or 0 if nothing was done.
	Point int `json:"point,omitempty"`
}

// underWay is an undo that is being applied: the contents of planName.
type underWay struct {
	To     int      `json:"to"`
	Before int      `json:"before"` // the restore point of the undo itself
	Paths  [][]byte `json:"paths,omitempty"`
	Token  string   `json:"token"` // in the names of temporary files

	// Aside are paths at which a directory may lie for a moment that is to be moved back.
	Aside [][]byte `json:"aside,omitempty"`
}

// maxPlan bounds the file planName, in bytes.
const maxPlan = 16 << 20

// Unfinished returns the request of an undo that was interrupted, for Plan and Apply, or
// nil.
func (s *Store) Unfinished() (*Request, error) {
	u, err := s.underWay()
	if u == nil || err != nil {
		return nil, err
	}
	q := &Request{To: u.To, before: u.Before}
	for _, p := range u.Paths {
		q.Paths = append(q.Paths, string(p))
	}
	for _, p := range u.Aside {
		if checkPath(string(p)) == nil {
			q.aside = append(q.aside, string(p))
		}
	}
	return q, nil
}

func (s *Store) underWay() (*underWay, error) {
	f, err := openFile(s.fd, planName, unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPlan))
	if err != nil {
		return nil, err
	}
	var u underWay
	if json.Unmarshal(b, &u) != nil || !isToken(u.Token) {
		return nil, s.clear() // its writer was killed before it changed anything
	}
	return &u, nil
}

// clear says that no undo is under way any more.
func (s *Store) clear() error {
	if err := unix.Unlinkat(s.fd, planName, 0); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// begin writes down that a request is being applied, before anything is changed.
func (s *Store) begin(u *underWay) error {
	b, err := json.Marshal(u)
	if err == nil && len(b) > maxPlan {
		err = errors.New("the undo is too large: undo some of its paths first")
	}
	if err != nil {
		return err
	}
	_ = unix.Unlinkat(s.fd, planName+".new", 0)
	f, err := openFile(s.fd, planName+".new", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	return unix.Renameat(s.fd, planName+".new", s.fd, planName)
}

// newToken returns a token for the names of temporary files.
func newToken() string { return fmt.Sprintf("%016x", time.Now().UnixNano()) }

func isToken(s string) bool { return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == "" }

// Apply carries out a plan. What cannot be done at a path is in the result, and keeps no other from being
// undone. Where the host has no room, or cannot go on for another reason that is not about the path, Apply
// stops, and can be called again with the request of Unfinished. The caller has shown the plan. If
// restore points that it was made of are gone, nothing is changed.
func (s *Store) Apply(root *os.File, q Request, p *Plan) (*Result, error) {
	res := &Result{Done: []Step{}, Kept: slices.Clone(p.Kept)}
	release, err := hold(s.fd)
	if err != nil {
		return res, err
	}
	defer release()
	if err := s.complete(p.points); err != nil {
		return res, err
	}
	list, err := numbers(s.fd)
	if err != nil {
		return res, err
	}
	u, err := s.underWay()
	if err != nil {
		return res, err
	}
	if u == nil {
		u = &underWay{To: q.To, Before: list[len(list)-1] + 1, Token: newToken()}
		for _, path := range q.Paths {
			u.Paths = append(u.Paths, []byte(path))
		}
	}
	if len(p.Steps) > 0 {
		if err := s.begin(u); err != nil {
			return res, err
		}
	}
	m, err := openMarks(s.fd)
	if err != nil {
		return res, err
	}
	a := &applier{
		store: s, root: root, temp: undoPrefix + u.Token, rec: NewRecorder(s.fd, WhyUndo), marks: m, res: res,
		linked: map[uint64]name{}, under: u,
	}
	a.rec.floor = q.To
	err = a.steps(p)
	res.Point = a.rec.end()
	err = errors.Join(err, m.close())
	if err == nil {
		err = s.clear()
	}
	return res, err
}

// applier carries out steps.
type applier struct {
	store *Store
	root  *os.File
	temp  string // name of a file that is being made
	rec   *Recorder
	marks *marks
	res   *Result

	linked map[uint64]name // by the inode before: a name of each file with several that came back
	under  *underWay
}

// errChanged means that a path is not as it was when the plan was made.
var errChanged = errors.New("it was changed while the undo was under way")

// steps carries out a plan: first what concerns directories and what goes, then what comes
// back.
func (a *applier) steps(p *Plan) error {
	first := func(s Step) bool { return s.Action != Restore }
	tangle := slices.DeleteFunc(slices.Clone(p.Steps), func(s Step) bool { return !first(s) })
	if err := a.rearrange(slices.Concat(tangle, p.rooms)); err != nil {
		return err
	}
	for _, s := range slices.DeleteFunc(slices.Clone(p.Steps), first) {
		if err := a.note(s, a.step(s)); err != nil {
			return err
		}
	}
	return nil
}

// keptFiles is why a directory stays that was to be removed.
const keptFiles = "there are files in it that the guest did not make"

// note keeps the outcome of a step. It returns an error that ends the undo.
func (a *applier) note(s Step, err error) error {
	if err == nil {
		a.res.Done = append(a.res.Done, s)
		return nil
	}
	if endsUndo(err) {
		return fmt.Errorf("%s: %w", s.Path, err)
	}
	why := err.Error()
	if errors.Is(err, unix.ENOTEMPTY) {
		why = keptFiles
	}
	a.res.Kept = append(a.res.Kept, Kept{s.Path, why})
	return nil
}

// endsUndo reports whether an error is not about one path, but would come at the others as well until the
// person has done something about it.
func endsUndo(err error) bool {
	return slices.ContainsFunc([]error{
		unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ESTALE, unix.ENOTCONN,
	}, func(e error) bool { return errors.Is(err, e) })
}

// step removes or restores a path.
func (a *applier) step(s Step) error {
	dir, name, err := parent(a.root, s.Path)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	_ = unix.Unlinkat(dir, a.temp, 0) // of an undo that was killed
	now, _, err := look(a.root, s.Path)
	if err != nil {
		return err
	}
	made := s.Kind == Dir && s.Action == Restore && !s.now.present && now.mode&unix.S_IFMT == unix.S_IFDIR
	if !now.same(s.now) && !made {
		return errChanged
	}
	e := a.rec.beforeName(dir, name, s.Path)
	if s.Action == Remove {
		err = a.remove(dir, name, s)
	} else {
		err = a.restore(dir, name, s)
	}
	if err != nil {
		return err
	}
	a.rec.afterName(e, dir, name)
	switch {
	case e == nil:
		a.res.Lost = append(a.res.Lost, Kept{s.Path, "the restore point of this undo is full"})
	case e.lost != "":
		a.res.Lost = append(a.res.Lost, Kept{s.Path, e.lost})
	}
	return nil
}

// remove removes what lies at a path, which the step has seen.
func (a *applier) remove(dir int, name string, s Step) error {
	switch {
	case !s.now.present:
		return nil
	case s.now.mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
	}
	return a.take(dir, name, s)
}

func (a *applier) restore(dir int, name string, s Step) error {
	w := s.state
	switch w.Kind {
	case Dir:
		fd, err := openDir(dir, name)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return attributes(fd, w)
	case Link:
		if err := a.mark(s, a.temp, 0); err != nil {
			return err
		}
		if err := unix.Symlinkat(string(w.Target), dir, a.temp); err != nil {
			return err
		}
		ts := times(w)
		_ = unix.UtimesNanoAt(dir, a.temp, ts, unix.AT_SYMLINK_NOFOLLOW) // a file system may not have them
	case File:
		if err := a.mark(s, a.temp, 0); err != nil {
			return err
		}
		if a.link(dir, s) {
			break
		}
		if err := a.file(dir, s); err != nil {
			_ = unix.Unlinkat(dir, a.temp, 0)
			return err
		}
	default:
		return fmt.Errorf("cannot restore a path of the kind %s", w.Kind)
	}
	if err := a.put(dir, name, s); err != nil {
		return err
	}
	a.cameBack(dir, name, s)
	return nil
}

// file makes the file of a step under its temporary name.
func (a *applier) file(dir int, s Step) error {
	in, err := a.store.blob(s.point, s.state.Blob)
	if err != nil {
		return err
	}
	defer in.Close()
	if fi, err := in.Stat(); err != nil || fi.Size() != s.state.Size {
		return errors.Join(err, fmt.Errorf("the contents in restore point %d are damaged: the path stays as it is", s.point))
	}
	out, err := openFile(dir, a.temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer out.Close()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		if err := CopyContents(int(out.Fd()), int(in.Fd())); err != nil {
			return err
		}
	}
	if err := CopyAttributes(int(out.Fd()), int(in.Fd()), ofTheUser); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := attributes(int(out.Fd()), s.state); err != nil {
		return err
	}
	return out.Sync()
}

// attributes gives an open file those of a state. Set-user-ID and set-group-ID are never
// given.
func attributes(fd int, w *State) error {
	mode := w.Mode & permissions
	if w.Kind == Dir {
		mode = w.Mode & (permissions | unix.S_ISVTX)
	}
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, int(w.UID), int(w.GID)); err != nil {
			return err
		}
	}
	if w.Owner == nil {
		_ = unix.Fremovexattr(fd, ownerAttribute) // it need not have one
	} else if err := unix.Fsetxattr(fd, ownerAttribute, w.Owner, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, magic(fd), times(w), 0)
}

func times(w *State) []unix.Timespec {
	t := unix.NsecToTimespec(w.Mtime)
	return []unix.Timespec{{Nsec: unix.UTIME_OMIT}, t}
}

// moveOne carries out a move to a place where nothing lies.
func (a *applier) moveOne(s Step) error {
	from, fromName, err := parent(a.root, s.From)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, toName, err := parent(a.root, s.Path)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	if now, err := lookAt(from, fromName); err != nil {
		return err
	} else if !now.same(s.now) {
		return errChanged
	}
	replaced := a.rec.beforeName(to, toName, s.Path)
	a.rec.Names.Lock()
	if err = unix.Renameat2(from, fromName, to, toName, unix.RENAME_NOREPLACE); err == nil {
		if now, serr := lookAt(to, toName); serr != nil || !now.same(s.now) { // exchanged a moment ago
			err = errors.Join(errChanged, unix.Renameat2(to, toName, from, fromName, unix.RENAME_NOREPLACE))
		}
	}
	if err == nil {
		a.rec.Moved(s.From, s.Path, s.now.ino)
	}
	a.rec.Names.Unlock()
	if err == nil {
		a.rec.After(replaced, nil)
	} else {
		a.rec.afterName(replaced, to, toName)
	}
	return err
}
