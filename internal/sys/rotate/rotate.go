// Package rotate keeps log files of bounded size, and reads them while another
// process writes.
//
// A log at PATH is two files: PATH, which is written, and PATH.1, which is the full
// one before it. When PATH is full it takes the place of PATH.1.
package rotate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Old returns the path of the older file of the log at path.
func Old(path string) string { return path + ".1" }

// File is a log that is written. Its methods may be called by several goroutines at
// once, but there must be only one File for a path.
type File struct {
	limit int64 // bytes of each of the two files

	mu     sync.Mutex
	path   string
	f      *os.File // nil after the file could not be opened anew
	size   int64
	closed bool
}

// Open opens the log at path, which it creates (mode 0600) if need be, to write at its
// end. limit bounds each of the two files, in bytes; a longer write makes a longer file.
func Open(path string, limit int64) (*File, error) {
	l := &File{limit: limit, path: path}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *File) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, fi.Size()
	return nil
}

// Size returns how many bytes PATH holds.
func (l *File) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size
}

// Write appends b to PATH, and never splits it between the two files. After an error
// the log can still be used: a later write may find room again.
func (l *File) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, os.ErrClosed
	}
	if l.f != nil && l.size > 0 && l.size+int64(len(b)) > l.limit {
		l.rotate()
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return 0, err
		}
	}
	n, err := l.f.Write(b)
	l.size += int64(n)
	return n, err
}

// rotate makes PATH the older file. Where it cannot be renamed it is emptied: the
// bound holds all the same.
func (l *File) rotate() {
	l.f.Close()
	l.f = nil
	if os.Rename(l.path, Old(l.path)) != nil {
		_ = os.Truncate(l.path, 0)
	}
}

// Move renames PATH, to another path on the same file system, and continues there.
// PATH.1 stays where it is.
func (l *File) Move(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := os.Rename(l.path, path); err != nil {
		return err
	}
	l.path = path
	return nil
}

// Close closes the log. Later writes fail.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.f == nil {
		l.closed = true
		return nil
	}
	l.closed = true
	return l.f.Close()
}

// Lossy returns a writer to w that never fails: what w does not take is lost. It is
// for output that must not stop its writer when the disk is full.
func Lossy(w io.Writer) io.Writer { return lossy{w} }

type lossy struct{ w io.Writer }

func (l lossy) Write(b []byte) (int, error) {
	_, _ = l.w.Write(b)
	return len(b), nil
}

// openBoth opens the two files of a log at one moment: old is the file that was full
// when current became the one to write. Either is nil where it does not exist.
func openBoth(path string) (old, current *os.File, err error) {
	for range 10 { // a log that is rotated that often meanwhile loses its older part
		if current, err = openIfThere(path); err != nil {
			return nil, nil, err
		}
		if old, err = openIfThere(Old(path)); err != nil {
			closeAll(current)
			return nil, nil, err
		}
		if current == nil || !replaced(current, path) {
			break
		}
		closeAll(old, current)
	}
	return old, current, nil
}

func openIfThere(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return f, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// replaced reports whether path names another file than f, or none.
func replaced(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 != nil || err2 != nil || !os.SameFile(a, b)
}
