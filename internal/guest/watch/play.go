// Package watch makes watchers in the guest see what the host changes in a share: it finds out
// what is watched, and plays the events that the host reports.
package watch

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// A player plays file events on a thread of its own, which does nothing else: the
// share's server answers each of its requests without carrying it out (package share,
// fileevents.go).
type player struct {
	thread uint32
	work   chan func()
}

// newPlayer starts the thread. The caller closes it.
func newPlayer() *player {
	p := &player{work: make(chan func())}
	started := make(chan uint32)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		started <- uint32(unix.Gettid())
		for f := range p.work {
			f()
		}
	}()
	p.thread = <-started
	return p
}

func (p *player) close() { close(p.work) }

// do calls f on the thread and returns when it is done.
func (p *player) do(f func()) {
	done := make(chan struct{})
	p.work <- func() { defer close(done); f() }
	<-done
}

// play plays events in the share whose root is mounted at a path, and returns when all were
// played. What cannot be played any more, since names were changed again, is left out:
// a further event follows.
func (p *player) play(root string, events []wire.FileEvent) error {
	fd, err := openRoot(root)
	if err != nil {
		return fmt.Errorf("share %s: %w", root, err)
	}
	defer unix.Close(fd)
	for i, e := range events {
		dir, err := openDir(fd, e.Dir)
		if err != nil {
			continue
		}
		to := -1
		if e.Kind == wire.FileRenamed {
			if to, err = openDir(fd, e.ToDir); err != nil {
				unix.Close(dir)
				continue
			}
		}
		p.playOne(i, e, dir, to)
		unix.Close(dir)
		if to >= 0 {
			unix.Close(to)
		}
	}
	return nil
}

// openRoot opens the root of a share. Where its mount is read-only it opens a copy of the mount that
// is not and that no program sees: the kernel makes no event for a call that it refuses itself.
func openRoot(root string) (int, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return -1, err
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// openDir opens a directory below the root of a share, and of no other file system.
func openDir(root int, path []byte) (int, error) {
	p := "."
	if len(path) > 0 {
		p = string(path)
	}
	return unix.Openat2(root, p, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
	})
}

// knownFor is longer than the guest's kernel relies on a name that it has looked up, or
// on its absence (internal/share, staleAfter).
const knownFor = 60 * time.Millisecond

// playOne plays one event, and once more if the kernel still relied on what it knew of the
// name before.
func (p *player) playOne(i int, e wire.FileEvent, dir, to int) {
	var err error
	again := func() {
		if err = mayPlay(i, dir); err == nil {
			err = playCall(e, dir, to)
		}
	}
	p.do(again)
	if e.Kind == wire.FileRemoved && errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) {
		time.Sleep(knownFor)
		p.do(again)
	}
}

// mayPlay announces the event of a number to the server of the share that holds a directory. It
// is an error if that does not answer as one that plays the event: something else may be mounted
// there.
func mayPlay(i, dir int) error {
	value := make([]byte, 2*len(wire.FileEventValue))
	n, err := unix.Lgetxattr("/proc/self/fd/"+strconv.Itoa(dir)+"/.", wire.FileEventAttribute+strconv.Itoa(i), value)
	if err != nil {
		return err
	}
	if string(value[:n]) != wire.FileEventValue {
		return unix.EPERM
	}
	return nil
}

// playCall makes the system call that causes an event of the kind.
func playCall(e wire.FileEvent, dir, to int) error {
	name := string(e.Name)
	now := time.Now()
	mtime := unix.NsecToTimespec(now.UnixNano())
	switch e.Kind {
	case wire.FileCreated:
		switch e.Type {
		case unix.S_IFDIR:
			return unix.Mkdirat(dir, name, 0o700)
		case unix.S_IFLNK:
			return unix.Symlinkat("-", dir, name)
		case unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK:
			return unix.Mknodat(dir, name, e.Type|0o600, 0)
		}
	case wire.FileRemoved:
		flags := 0
		if e.Type == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
		}
		return unix.Unlinkat(dir, name, flags)
	case wire.FileRenamed:
		return unix.Renameat(dir, name, to, string(e.ToName))
	case wire.FileWritten: // notify_change in Linux reports IN_MODIFY for mtime alone
		return unix.UtimesNanoAt(dir, name, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	case wire.FileChanged:
		return unix.UtimesNanoAt(dir, name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW)
	case wire.FileClosed:
		fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
	return nil
}
