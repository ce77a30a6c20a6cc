package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/progress"
)

// Lock is held by one process (and one caller in it) at a time. It ends with
// Unlock or with the process.
type Lock struct {
	dir  Dir
	name string
	f    *os.File
}

// Lock waits for the lock of that name until ctx ends. Lock files are never
// removed: a lock on a removed file would lock nothing.
func (d Dir) Lock(ctx context.Context, name string, r progress.Reporter) (*Lock, error) {
	l, err := d.openLock(name)
	if err != nil {
		return nil, err
	}
	if err := l.wait(ctx, r); err != nil {
		l.Unlock()
		return nil, err
	}
	return l, nil
}

// ErrBusy means that somebody else holds the lock.
var ErrBusy = errors.New("another bawn is preparing the same")

// TryLock is Lock that does not wait: its error is ErrBusy then.
func (d Dir) TryLock(name string) (*Lock, error) {
	l, err := d.openLock(name)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(l.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrBusy
	}
	if err != nil {
		l.Unlock()
		return nil, err
	}
	return l, nil
}

func (d Dir) openLock(name string) (*Lock, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(d.path, lockFolder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return &Lock{dir: d, name: name, f: f}, nil
}

func (l *Lock) wait(ctx context.Context, r progress.Reporter) (err error) {
	var task progress.Task
	for {
		err = unix.Flock(int(l.f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
		if task == nil {
			task = r.Start("Waiting for another bawn that is preparing the same", 0, progress.Steps)
			defer func() { task.Done(err) }()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPoll):
		}
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.f.Name(), err)
	}
	return nil
}

// Unlock lets go.
func (l *Lock) Unlock() { l.f.Close() }

// Scratch makes an empty folder on the cache's file system for the holder to
// work in, after removing those that earlier holders left behind when killed.
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
		if builder(de.Name()) == l.name {
			RemoveAll(filepath.Join(tmp, de.Name()))
		}
	}
	return os.MkdirTemp(tmp, l.name+".*")
}

// builder is the name of the lock under which a scratch folder was made:
// LOCK.RANDOM, or LOCK.RANDOM.old for an entry on its way out.
func builder(folder string) string {
	folder = strings.TrimSuffix(folder, oldSuffix)
	if i := strings.LastIndexByte(folder, '.'); i >= 0 {
		return folder[:i]
	}
	return folder
}

// Sweep removes the scratch folders of builders that are no longer there.
func (d Dir) Sweep() error {
	left, err := d.Abandoned()
	for _, path := range left {
		RemoveAll(path)
	}
	return err
}

// Abandoned are the scratch folders that Sweep removes.
func (d Dir) Abandoned() ([]string, error) {
	tmp := filepath.Join(d.path, tmpFolder)
	des, err := os.ReadDir(tmp)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var left []string
	for _, de := range des {
		if d.idle(builder(de.Name())) {
			left = append(left, filepath.Join(tmp, de.Name()))
		}
	}
	return left, err
}

// idle says whether nobody holds the lock of that name.
func (d Dir) idle(name string) bool {
	f, err := os.OpenFile(filepath.Join(d.path, lockFolder, name), os.O_RDWR, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}
