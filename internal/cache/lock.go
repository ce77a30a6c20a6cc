package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/progress"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// Lock is held by one caller in one process at a time, until Unlock or the end of the
// process.
type Lock struct {
	dir  Dir
	name string
	l    *lockfile.Lock
}

// ErrBusy means that somebody else holds the lock.
var ErrBusy = errors.New("another bawn command is preparing the same files")

// Lock takes the lock of that name. While another holds it, Lock waits, which it
// reports to r, and ends with the cause of ctx when that ends.
//
// Lock files are never removed: a lock on a removed file would lock nothing.
func (d Dir) Lock(ctx context.Context, name string, r progress.Reporter) (*Lock, error) {
	l, err := d.TryLock(name)
	if !errors.Is(err, ErrBusy) {
		return l, err
	}
	task := r.Start("Waiting for another bawn command that is preparing the same files", 0, progress.Steps)
	path := d.lockPath(name)
	held, err := lockfile.Acquire(ctx, path)
	task.Done(err)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{dir: d, name: name, l: held}, nil
}

// TryLock is Lock without waiting: its error is ErrBusy while another holds the lock.
func (d Dir) TryLock(name string) (*Lock, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	path := d.lockPath(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	l, err := lockfile.TryAcquire(path)
	if errors.Is(err, unix.EAGAIN) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{dir: d, name: name, l: l}, nil
}

func (d Dir) lockPath(name string) string { return filepath.Join(d.path, lockFolder, name) }

// Unlock releases the lock.
func (l *Lock) Unlock() { l.l.Close() }

// Scratch makes an empty folder on the cache's file system for the holder of the lock
// to work in, which the caller removes with RemoveAll. It first removes those that
// earlier holders left behind when they were killed.
func (l *Lock) Scratch() (string, error) {
	tmp := filepath.Join(l.dir.path, tmpFolder)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return "", err
	}
	des, err := os.ReadDir(tmp)
	if err != nil {
		return "", err
	}
	for _, de := range des {
		if scratchOwner(de.Name()) == l.name {
			RemoveAll(filepath.Join(tmp, de.Name()))
		}
	}
	return os.MkdirTemp(tmp, l.name+".*")
}

// scratchOwner returns the name of the lock under which a scratch folder was made. The
// folder is called LOCK.RANDOM, or LOCK.RANDOM.old for a replaced entry that is being
// removed.
func scratchOwner(folder string) string {
	folder = strings.TrimSuffix(folder, oldSuffix)
	if i := strings.LastIndexByte(folder, '.'); i >= 0 {
		return folder[:i]
	}
	return folder
}
