package undo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// This file puts files in their place, and takes them away, for an undo. The making of a file and the
// record of what it replaces take time for large files, and the person may save the path meanwhile.
// So what an undo replaces or removes gets a temporary name first, in one step, and is compared
// with what the plan says of it. If it is something else, it is put back.

// undoPrefix begins the name of a file that an undo makes.
const undoPrefix = TempPrefix + "undo-"

// keptPrefix begins the name of a file of the host that could not be put back.
const keptPrefix = TempPrefix + "kept-"

// mark notes which file may have a temporary name because of a step. ino is that of the finished file
// that takes the place of the path; 0 as long as it is being made, or if the path is to be removed.
func (a *applier) mark(s Step, temp string, ino uint64) error {
	v := mark{Root: a.root.Name(), Path: []byte(s.Path), Temp: temp, Ino: ino}
	if s.now.present {
		v.Was = s.now.bytes()
	}
	return a.marks.set(v)
}

// put gives the path of a step the file that was made under the temporary name. It returns errChanged if
// the path is not as the plan says. Nothing has the temporary name afterwards.
func (a *applier) put(dir int, name string, s Step) error {
	made, err := lookAt(dir, a.temp)
	if err == nil {
		err = a.mark(s, a.temp, made.ino)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, a.temp, 0)
		return err
	}
	flags := uint(unix.RENAME_EXCHANGE)
	if !s.now.present {
		flags = unix.RENAME_NOREPLACE
	}
	err = unix.Renameat2(dir, a.temp, dir, name, flags)
	switch {
	case errors.Is(err, unix.EINVAL): // the file system has no such flags: it was compared a moment ago
		err = unix.Renameat(dir, a.temp, dir, name)
	case errors.Is(err, unix.EEXIST), gone(err):
		err = errChanged
	case err == nil && s.now.present:
		return a.replaced(dir, name, s, made.ino)
	}
	_ = unix.Unlinkat(dir, a.temp, 0) // not made, or rename(2) left it since both were names of one file
	return err
}

// replaced removes what a step has replaced, which has the temporary name now, unless that is not what the
// plan says. ino is that of what took its place.
func (a *applier) replaced(dir int, name string, s Step, ino uint64) error {
	was, err := lookAt(dir, a.temp)
	if err == nil && (was.same(s.now) || was.ino == ino) { // the latter: both were names of one file
		return unix.Unlinkat(dir, a.temp, 0)
	}
	v := mark{Path: []byte(s.Path), Temp: a.temp, Ino: ino}
	return errors.Join(errChanged, err, v.putBack(dir, name))
}

// take removes the file of a step. It returns errChanged if the path is not as the plan says.
func (a *applier) take(dir int, name string, s Step) error {
	temp := takenPrefix + "undo-" + rand.Text()
	if err := a.mark(s, temp, 0); err != nil {
		return err
	}
	err := unix.Renameat2(dir, name, dir, temp, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // as in put
		return unix.Unlinkat(dir, name, 0)
	}
	if err != nil {
		return err
	}
	was, err := lookAt(dir, temp)
	if err == nil && was.same(s.now) {
		return unix.Unlinkat(dir, temp, 0)
	}
	v := mark{Path: []byte(s.Path), Temp: temp}
	return errors.Join(errChanged, err, v.putBack(dir, name))
}

// setAside returns the name of a file of the host that cannot be put back. The temporary name of an undo, which
// the same undo removes when it goes on, is changed.
func (v *mark) setAside(dir int) string {
	to := keptPrefix + rand.Text()
	if !strings.HasPrefix(v.Temp, undoPrefix) || unix.Renameat2(dir, v.Temp, dir, to, unix.RENAME_NOREPLACE) != nil {
		return v.Temp
	}
	return to
}

// lookAt returns what has a name in an open directory.
func lookAt(dir int, name string) (slot, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, statMask, &st); err != nil {
		return slot{}, fmt.Errorf("%s: %w", name, err)
	}
	return slotOf(&st), nil
}
