package process

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxUmask is the bits of a file mode creation mask (umask(2)).
const maxUmask = 0o777

// WithUmask calls start with the file mode creation mask for the children that start makes,
// and for the files. Other goroutines keep theirs: the mask belongs to a thread's file system
// attributes (clone(2), CLONE_FS), so start runs on a thread of its own.
func WithUmask(mask uint32, start func() (*Process, error)) (*Process, error) {
	var p *Process
	var err error
	var done sync.WaitGroup
	done.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			err = fmt.Errorf("umask: %w", err)
			return
		}
		unix.Umask(int(mask & maxUmask))
		p, err = start()
	})
	done.Wait()
	return p, err
}

var raising sync.Mutex

// AllowOpenFiles raises the soft limit of open files of this process, and so of the children
// that it starts from then on, to n or to the hard limit. It lowers nothing.
func AllowOpenFiles(n uint64) error {
	raising.Lock()
	defer raising.Unlock()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if n = min(n, l.Max); n <= l.Cur {
		return nil
	}
	l.Cur = n
	// Package syscall's own function: children keep what it sets.
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}
