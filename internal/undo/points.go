package undo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Point is a restore point.
type Point struct {
	Number  int
	At      time.Time
	Why     string // WhySession, WhyStart, WhyUndo or WhyAccept
	Changes int    // paths that were changed
	Bytes   int64  // of copied contents
	Full    string // why later changes of the point were not recorded, or empty
	Damaged bool   // the last records cannot be read
}

// Store is an open store, for a person's undo. Its methods are for one goroutine.
type Store struct {
	fd   int
	lock *os.File
}

// ErrBusy means that another process works on the store.
var ErrBusy = errors.New("another undo of this sandbox is running: try again when it has ended")

// Open opens a store, exclusively among those who do. A store that does not exist is an
// fs.ErrNotExist: nothing was changed yet. The caller closes it.
func Open(path string) (*Store, error) {
	fd, err := unix.Open(path, dirFlags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	lock, err := openFile(fd, lockName, unix.O_RDWR|unix.O_CREAT)
	if err == nil {
		if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return &Store{fd, lock}, nil
		}
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrBusy
		}
	}
	unix.Close(fd)
	return nil, fmt.Errorf("%s: %w", path, err)
}

// OpenToRead opens a store only to read it. It waits for nobody: a point that is removed
// meanwhile is left out.
func OpenToRead(path string) (*Store, error) {
	fd, err := unix.Open(path, dirFlags, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Store{fd: fd}, nil
}

// Close ends the use of the store.
func (s *Store) Close() {
	if s.lock != nil {
		s.lock.Close()
	}
	unix.Close(s.fd)
}

// Points lists the restore points, the oldest first.
func (s *Store) Points() ([]Point, error) {
	list, err := numbers(s.fd)
	if err != nil {
		return nil, err
	}
	var points []Point
	for _, n := range list {
		p, err := s.point(n)
		if errors.Is(err, unix.ENOENT) {
			continue // it is being removed
		}
		if err != nil {
			return nil, fmt.Errorf("restore point %d: %w", n, err)
		}
		points = append(points, p)
	}
	return points, nil
}

func (s *Store) point(n int) (Point, error) {
	p := Point{Number: n}
	var err error
	p.Damaged, err = s.read(n, func(_ int, r *record) bool {
		switch r.Op {
		case opPoint:
			p.At, p.Why = time.Unix(0, r.At), r.Why
		case opFull:
			p.Full = r.Why
		default:
			p.Changes++
			if r.State != nil && r.State.Blob != "" && r.State.Blob[0] == copied {
				p.Bytes += r.State.Size
			}
		}
		return true
	})
	return p, err
}

// read calls yield for each record of a point with the descriptor of its folder.
func (s *Store) read(n int, yield func(folder int, r *record) bool) (damaged bool, err error) {
	folder, err := openDir(s.fd, folderName(n))
	if err != nil {
		return false, err
	}
	defer unix.Close(folder)
	f, err := openFile(folder, journalName, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return readJournal(f, func(r *record) bool { return yield(folder, r) })
}

// Last returns the number of the restore point at which the last session began that changed
// anything, or 0 if there is none.
func Last(points []Point) int {
	n := 0
	for _, p := range points {
		if p.Why != WhyStart || n == 0 {
			n = p.Number
		}
	}
	return n
}

// LastSession is Last without what a person did: undos, and versions that were accepted.
func LastSession(points []Point) int {
	return Last(slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return p.Why == WhyUndo || p.Why == WhyAccept }))
}
