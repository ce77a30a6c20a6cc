// Package lockfile locks files between processes.
//
// The locks are open-file-description locks (fcntl_locking(2), F_OFD_SETLK): the
// kernel releases one when the last descriptor of its open file is closed, however
// the process ends, and the descriptor can be handed to a child process together
// with the lock.
package lockfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Lock is an exclusive lock on a file, held until Close. A Lock may be used by
// several goroutines at once.
type Lock struct{ f *os.File }

// Acquire takes an exclusive lock on the file at path, which it creates (mode 0600)
// if need be. It waits while another process holds the lock, and gives up with the
// context's cause when ctx ends. A symbolic link at path is an error.
func Acquire(ctx context.Context, path string) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := lock(f, unix.F_OFD_SETLK); err == nil || !errors.Is(err, unix.EAGAIN) {
		return held(f, err)
	}
	done := make(chan error, 1)
	go func() { done <- lock(f, unix.F_OFD_SETLKW) }()
	select {
	case err := <-done:
		return held(f, err)
	case <-ctx.Done():
		go func() { // f cannot be closed while the system call uses it
			<-done
			f.Close()
		}()
		return nil, fmt.Errorf("waiting for another bawn command: %w", context.Cause(ctx))
	}
}

// TryAcquire is Acquire without waiting: its error is EAGAIN while another process
// holds the lock.
func TryAcquire(path string) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	return held(f, lock(f, unix.F_OFD_SETLK))
}

// Inherit returns the lock that the parent process took and passed on as the
// descriptor fd. It sets close-on-exec, so that no child inherits it further.
func Inherit(fd int) (*Lock, error) {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return nil, fmt.Errorf("inherited lock: %w", err)
	}
	unix.CloseOnExec(fd)
	return &Lock{os.NewFile(uintptr(fd), "lock")}, nil
}

// File returns the open file that holds the lock, for passing it to a child process.
// The Lock still owns it.
func (l *Lock) File() *os.File { return l.f }

// Close releases the lock, unless a child process still has its descriptor.
func (l *Lock) Close() error { return l.f.Close() }

// Held reports whether a process holds the lock on the file at path. It does not
// take the lock, not even for a moment: that could make another process's
// TryAcquire fail. A missing file is not locked.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	fl := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &fl); err != nil {
		return false, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return fl.Type != unix.F_UNLCK, nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
}

// lock takes the lock. how is F_OFD_SETLK or F_OFD_SETLKW.
func lock(f *os.File, how int) error {
	for {
		err := unix.FcntlFlock(f.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// held returns the Lock of f, or closes f where err says that lock failed.
func held(f *os.File, err error) (*Lock, error) {
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Lock{f}, nil
}
