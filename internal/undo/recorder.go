package undo

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/reserve"
)

// Recorder writes down what a guest changes. Its methods may be called by several goroutines
// at once; the caller holds Names as it says.
//
// A failure to record never fails the guest's change: what could not be kept is said by the
// undo (State.Lost, opFull).
type Recorder struct {
	// Names is held for reading while a path is found and recorded (Before), and for
	// writing from before a directory is renamed until after Moved or Swapped.
	Names sync.RWMutex

	store int // descriptor of the store
	floor int // an undo's: points from this number on never make room, and the caller holds all; 0 is none
	gen   atomic.Uint64

	mu   sync.Mutex
	why  string    // of the next point
	at   time.Time // when it began
	cur  *point    // nil until something changes
	used int64     // bytes of copied contents in all points
	disk reserve.Room
}

// point is the restore point that is being recorded.
type point struct {
	number  int
	folder  int
	journal *os.File
	after   *os.File
	seen    seen
	slots   uint32
	full    bool
}

// NewRecorder returns a Recorder that writes to the store at a descriptor, which stays the
// caller's and must stay open. The first change makes a restore point.
func NewRecorder(store int, why string) *Recorder {
	r := &Recorder{store: store}
	r.Mark(why)
	return r
}

// Mark begins a new restore point. It makes none on disk until something changes.
func (r *Recorder) Mark(why string) {
	r.Names.Lock()
	defer r.Names.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.close()
	r.why, r.at = why, time.Now()
	r.gen.Add(1)
}

// Generation changes with each Mark. What was recorded under one need not be recorded again
// under the same.
func (r *Recorder) Generation() uint64 { return r.gen.Load() }

// Sync writes the records to disk.
func (r *Recorder) Sync() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sync()
}

func (r *Recorder) sync() {
	if r.cur != nil {
		_ = unix.Syncfs(r.cur.folder) // contents, records and slots; it is best effort
	}
}

// Close ends the recording.
func (r *Recorder) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.close()
}

// end is Close, and returns the number of the restore point, or 0 if there is none.
func (r *Recorder) end() (point int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != nil {
		point = r.cur.number
	}
	r.close()
	return point
}

func (r *Recorder) close() {
	if r.cur == nil {
		return
	}
	r.sync()
	r.cur.journal.Close()
	r.cur.after.Close()
	unix.Close(r.cur.folder)
	r.cur = nil
}

// Source is where a path leads now: a name in an open directory, or, without a name, an open
// file. FD must stay open during the call.
type Source struct {
	FD   int
	Name string
	// New is set if the caller is about to make the name, so that there is probably nothing.
	New bool
	// Also, if it is set, returns further names of a file with these attributes (and time of birth) that do not change, as far as they
	// are known.
	Also func(st *unix.Statx_t) []string
}

// Before records paths that are about to change, and that are all names of one file (hard
// links) or of nothing. It returns an entry for each, nil where nothing is recorded. The
// caller holds Names for reading. It waits while another goroutine records one of the paths.
func (r *Recorder) Before(src Source, paths ...string) []*Entry {
	entries := make([]*Entry, len(paths))
	var state *State
	for i := range paths {
		entries[i], _ = r.before(src, paths, i, &state)
	}
	return entries
}

// BeforeName is Before for one path. first is whether the path was not recorded before.
func (r *Recorder) BeforeName(src Source, path string) (e *Entry, first bool) {
	var state *State
	return r.before(src, []string{path}, 0, &state)
}

// before records the i-th of the paths. state is what was at all of them, or nil until that is known.
func (r *Recorder) before(src Source, paths []string, i int, state **State) (e *Entry, first bool) {
	path := paths[i]
	if checkPath(path) != nil {
		return nil, false
	}
	e, first = r.claim(path)
	if e == nil {
		return nil, false
	}
	if !first {
		<-e.ready
		return e, false
	}
	if *state == nil {
		*state = r.capture(e.point, src)
	}
	e.lost = (*state).Lost
	r.write(e.point, &record{Op: opWas, Slot: e.slot, Path: []byte(path), State: (*state).also(path, paths)})
	close(e.ready)
	return e, true
}

// also returns the state of a path, with another of the file's names if it has several.
func (s *State) also(path string, names []string) *State {
	if s.Ino == 0 {
		return s
	}
	c := *s
	for _, other := range slices.Concat(names, s.others) {
		if other != path && checkPath(other) == nil {
			c.Also = []byte(other)
			break
		}
	}
	return &c
}

// Seen returns the entries of those paths that were recorded in the present restore point.
// The caller holds Names for reading.
func (r *Recorder) Seen(paths ...string) []*Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var entries []*Entry
	for _, path := range paths {
		if r.cur == nil {
			break
		}
		if e := r.cur.seen.find(path); e != nil {
			entries = append(entries, e)
		}
	}
	return entries
}

// claim returns the entry of a path, and whether it is a new one, for which the caller
// writes the record.
func (r *Recorder) claim(path string) (e *Entry, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur == nil && !r.begin() {
		return nil, false
	}
	p := r.cur
	if p.full {
		return nil, false
	}
	s := p.seen.at(path)
	if s.entry != nil {
		return s.entry, false
	}
	if p.slots == MaxRecords {
		r.fill(fmt.Sprintf("more than %d paths were changed", MaxRecords))
		return nil, false
	}
	s.entry = &Entry{point: p, slot: p.slots, ready: make(chan struct{})}
	p.slots++
	return s.entry, true
}

// begin makes the folder of a point. The caller holds mu.
func (r *Recorder) begin() bool {
	n, kept, release, err := r.prepare()
	if err != nil {
		return false
	}
	defer release()
	r.used = 0
	for _, k := range kept {
		if folder, err := openDir(r.store, folderName(k)); err == nil {
			r.used += usage(folder)
			unix.Close(folder)
		}
	}
	err = unix.Mkdirat(r.store, folderName(n), 0o700)
	for errors.Is(err, unix.EEXIST) { // another process was faster
		n++
		err = unix.Mkdirat(r.store, folderName(n), 0o700)
	}
	if err != nil {
		return false
	}
	p := &point{number: n}
	if p.folder, err = openDir(r.store, folderName(n)); err != nil {
		return false
	}
	if p.journal, err = openFile(p.folder, journalName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_APPEND); err != nil {
		unix.Close(p.folder)
		return false
	}
	if p.after, err = openFile(p.folder, afterName, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); err != nil {
		p.journal.Close()
		unix.Close(p.folder)
		return false
	}
	r.cur = p
	r.append(p, &record{Op: opPoint, At: r.at.UnixNano(), Why: r.why})
	return true
}

// prepare removes the points that are too old or too many, and keeps others from doing so until release is
// called: a point without a journal looks like one that is being removed. It returns the points that are
// left, and a number that none has had.
func (r *Recorder) prepare() (next int, kept []int, release func(), err error) {
	kept, err = numbers(r.store)
	if err != nil {
		return 0, nil, nil, err
	}
	next = 1
	if len(kept) > 0 {
		next = kept[len(kept)-1] + 1
	}
	if r.floor > 0 {
		return next, kept, func() {}, nil // the undo holds the points
	}
	if done, ok := r.mayRemove(); ok {
		kept = prune(r.store, kept, time.Now())
		done()
	}
	release, err = hold(r.store)
	return next, kept, release, err
}

// fill ends the recording of the point. The caller holds mu.
func (r *Recorder) fill(why string) {
	if !r.cur.full {
		r.append(r.cur, &record{Op: opFull, Why: why})
		r.cur.full = true
	}
}

func (r *Recorder) write(p *point, v *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.append(p, v)
}

// append writes a record. One that cannot be written ends the recording of the point: what
// comes later would be undone without it. The caller holds mu.
func (r *Recorder) append(p *point, v *record) {
	if p.full || p != r.cur {
		return
	}
	b, err := v.line()
	if err == nil {
		_, err = p.journal.Write(b)
	}
	if err != nil {
		p.full = true
		b, _ = (&record{Op: opFull, Why: "the records cannot be written: " + err.Error()}).line()
		_, _ = p.journal.Write(append([]byte("\n"), b...)) // a part of the record may be there
	}
}

// Moved records that a directory was renamed. The caller holds Names for writing, and has
// recorded what was at to before. ino is the directory's.
func (r *Recorder) Moved(from, to string, ino uint64) {
	r.renamed(&record{Op: opMoved, Path: []byte(from), To: []byte(to), Ino: ino})
}

// Swapped records that two paths were exchanged of which one at least was a directory. The
// caller holds Names for writing. inoA and inoB are the inodes that a and b led to before.
func (r *Recorder) Swapped(a, b string, inoA, inoB uint64) {
	r.renamed(&record{Op: opSwapped, Path: []byte(a), To: []byte(b), Ino: inoA, ToIno: inoB})
}

func (r *Recorder) renamed(v *record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	from, to := string(v.Path), string(v.To)
	if checkPath(from) != nil || checkPath(to) != nil || r.cur == nil && !r.begin() || r.cur.full {
		return
	}
	p := r.cur
	if p.slots == MaxRecords {
		r.fill(fmt.Sprintf("more than %d paths were changed", MaxRecords))
		return
	}
	p.slots++ // so that renames are bounded too
	r.append(p, v)
	if v.Op == opSwapped {
		p.seen.swap(from, to)
	} else {
		p.seen.move(from, to)
	}
}

// After notes how the guest left the path of an entry: st is of the file there, or nil if
// the path was removed.
func (r *Recorder) After(e *Entry, st *unix.Statx_t) {
	if e == nil {
		return
	}
	s := slot{}
	if st != nil {
		s = slotOf(st)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.mixed = e.mixed; r.cur == e.point {
		e.leave(s)
	}
}

// leave writes down how the guest left a path, unless that is there already. The caller holds the
// Recorder's mutex.
func (e *Entry) leave(s slot) {
	if e.known && e.left == s {
		return
	}
	_, err := e.point.after.WriteAt(s.bytes(), int64(e.slot)*slotSize) // else the path counts as changed on the host
	e.left, e.known = s, err == nil
}

// Met notes what the guest finds at the path of an entry when it changes it again: st is of the file
// there, or nil if there is none. If the guest did not leave it so, the host changed it in
// between, and an undo leaves the path alone. The caller knows that the guest is not in the middle
// of a change of it.
func (r *Recorder) Met(e *Entry, st *unix.Statx_t) {
	if e == nil {
		return
	}
	found := slot{}
	if st != nil {
		found = slotOf(st)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != e.point || e.mixed {
		return
	}
	if left := e.left; e.known && !left.same(found) {
		e.mixed, left.mixed = true, true
		e.leave(left)
	}
}

// Mixed notes that the host changed the path of an entry between two changes of the guest: an undo leaves it
// alone.
func (r *Recorder) Mixed(e *Entry) {
	if e == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cur != e.point || e.mixed {
		return
	}
	left := e.left
	e.mixed, left.mixed = true, true
	e.leave(left)
}

// beforeName is Before for one name in a directory, for a caller that does not hold Names.
func (r *Recorder) beforeName(dir int, name, path string) *Entry {
	r.Names.RLock()
	defer r.Names.RUnlock()
	return r.Before(Source{FD: dir, Name: name}, path)[0]
}

// afterName is After for a name in a directory.
func (r *Recorder) afterName(e *Entry, dir int, name string) {
	var st unix.Statx_t
	if unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW, statMask, &st) != nil {
		r.After(e, nil)
		return
	}
	r.After(e, &st)
}

// capture returns the state of what is about to change, and keeps its contents.
func (r *Recorder) capture(p *point, src Source) *State {
	fd, st, err := place(src)
	if errors.Is(err, unix.ENOENT) {
		return &State{Kind: Absent}
	}
	if err != nil {
		return &State{Kind: File, Lost: err.Error()}
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	s := stateOf(st)
	at := fd
	if at < 0 {
		at = src.FD
	}
	switch s.Kind {
	case Link:
		s.Target, err = target(at)
		if err != nil {
			s.Kind = Other
		}
	case File:
		s.Owner = owner(at)
		s.Ino = st.Ino
		if src.Also != nil {
			s.others = src.Also(st)
		}
		r.keep(p, at, s)
	case Dir:
		s.Owner = owner(at)
	}
	return s
}

// keep copies the contents of the file at an O_PATH descriptor.
func (r *Recorder) keep(p *point, at int, s *State) {
	in, err := unix.Open(magic(at), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		s.Lost = err.Error()
		return
	}
	defer unix.Close(in)
	r.mu.Lock()
	number := p.slots
	p.slots++ // numbers of contents are those of slots that no record uses
	r.mu.Unlock()
	if s.Blob, s.Lost = r.copyIn(p, in, number, &s.Size); s.Lost == "" {
		var now unix.Stat_t
		if unix.Fstat(in, &now) == nil && now.Mtim.Nano() != s.Mtime {
			s.Mtime = now.Mtim.Nano() // the host wrote meanwhile
		}
	}
}

// copyIn makes a blob of an open file that has a size, which it corrects if the host writes to the file
// meanwhile. It returns why it did not otherwise.
func (r *Recorder) copyIn(p *point, in int, number uint32, size *int64) (blob, lost string) {
	name := fmt.Sprintf("%c%d", cloned, number)
	out, err := openFile(p.folder, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return "", err.Error()
	}
	defer out.Close()
	remove := func(why string) (string, string) {
		_ = unix.Unlinkat(p.folder, name, 0)
		return "", why
	}
	sized := func() error {
		var st unix.Stat_t
		err := unix.Fstat(int(out.Fd()), &st)
		*size = st.Size
		return err
	}
	_ = CopyAttributes(int(out.Fd()), in, ofTheUser) // where the store's file system has any
	if unix.IoctlFileClone(int(out.Fd()), in) == nil {
		if err := sized(); err != nil {
			return remove(err.Error())
		}
		return name, ""
	}
	if why := r.room(p, *size); why != "" {
		return remove(why)
	}
	taken := uint64(*size)
	err = errors.Join(CopyContents(int(out.Fd()), in), sized())
	r.mu.Lock()
	r.disk.Wrote(taken)
	r.mu.Unlock()
	if err != nil {
		return remove(err.Error())
	}
	copiedName := fmt.Sprintf("%c%d", copied, number)
	if err := unix.Renameat2(p.folder, name, p.folder, copiedName, unix.RENAME_NOREPLACE); err != nil {
		return remove(err.Error())
	}
	return copiedName, ""
}

// room takes bytes of the store, for which older points are removed if need be, and of the disk, where
// they are written next (r.disk). It returns why there is none.
func (r *Recorder) room(p *point, size int64) string {
	if size > MaxFile {
		return fmt.Sprintf("it had more than %d MiB", MaxFile>>20)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.used+size > maxBytes {
		list, err := numbers(r.store)
		if err != nil || len(list) == 0 || list[0] >= p.number || r.floor > 0 && list[0] >= r.floor {
			return fmt.Sprintf("more than %d MiB were changed", maxBytes>>20)
		}
		release, ok := r.mayRemove()
		if !ok {
			return "an undo was under way, which needs the older restore points"
		}
		freed, err := r.free(list[0])
		release() // before the next one: the lock would keep this process from it, too
		if err != nil {
			return err.Error()
		}
		r.used -= freed
	}
	left, err := r.disk.Left(r.store, uint64(size))
	if err != nil {
		return err.Error()
	}
	if reserve.Bytes(&left) < uint64(size) {
		return "the host's disk is nearly full"
	}
	r.used += size
	r.disk.Take(uint64(size))
	return ""
}

// free removes a point, and returns how many bytes its contents took.
func (r *Recorder) free(n int) (bytes int64, err error) {
	folder, err := openDir(r.store, folderName(n))
	if err != nil {
		return 0, err
	}
	bytes = usage(folder)
	unix.Close(folder)
	return bytes, removePoint(r.store, n)
}
