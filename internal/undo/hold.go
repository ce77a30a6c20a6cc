package undo

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Recorders remove old restore points, and they run in other processes than an undo. So an undo that is
// being applied holds the points: a lock (flock(2)) on the file holdName, shared. A Recorder takes it
// alone for the time in which it removes, and removes nothing if it does not get it at once. It holds the
// points itself while it makes one.

// maxHold bounds how long is waited for a Recorder that is removing points.
const maxHold = 10 * time.Second

// hold keeps Recorders of other processes from removing restore points of a store until release is called.
func hold(store int) (release func(), err error) {
	f, err := openFile(store, holdName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(maxHold); ; time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("wait until old restore points have made room: %w", err)
		}
	}
}

// mayRemove reports whether the Recorder may remove restore points now: an undo's own those that it does not
// need. The caller calls release when it
// has done so.
func (r *Recorder) mayRemove() (release func(), ok bool) {
	if r.floor > 0 {
		return func() {}, true // of the process that holds them
	}
	f, err := openFile(r.store, holdName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, false
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		f.Close()
		return nil, false
	}
	return func() { f.Close() }, true
}

// errMadeRoom means that a plan cannot be carried out.
var errMadeRoom = errors.New("restore points that it needs have made room for new ones since it was planned: nothing was changed (`bawn undo --list` shows what is left)")

// complete returns an error if points that a plan was made of are gone.
func (s *Store) complete(points []int) error {
	list, err := numbers(s.fd)
	if err != nil {
		return err
	}
	for _, n := range points {
		if !slices.Contains(list, n) {
			return errMadeRoom
		}
		folder, err := openDir(s.fd, folderName(n))
		if err != nil {
			return err
		}
		_, err = head(folder)
		unix.Close(folder)
		if errors.Is(err, unix.ENOENT) { // a damaged one says so in the plan
			return errMadeRoom
		}
	}
	return nil
}
