// Package volume keeps named volumes on disk: directories that bawn owns, that guests write to,
// and that outlast sandboxes.
//
// Theory of operation. A volume is a folder of its name in the store's folder. It has the
// directory that guests see (sandbox.VolumeData), and beside it, where no guest reaches, the
// volume's settings. The directory is served to a guest as any other share (package share), so
// that what the guest deletes is free on the host at once, and the host parses nothing but a
// directory tree.
//
// A volume is made beside its place and renamed to it, and is renamed away before its files are
// removed: a process that is killed leaves no half of a volume, but a folder whose name begins
// with a dot, which is among the next Leftovers. Names of volumes cannot begin like that. Who
// removes such a folder holds a lock in it, and not the store's.
//
// # Not safe
//
// A guest decides about all that is in the directory, also for the next sandbox that uses the
// volume.
package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/workcopy"
)

// Names of files. All but the first two are in the folder of a volume.
const (
	lockFile  = "lock" // in the store's folder, and in one that is being removed
	dotPrefix = "."    // of what is being made or removed

	settingsFile = "volume.json"
	writerFile   = "writer" // name of the sandbox that writes to the volume, or wrote last
)

// lockTime is how long Lock waits for another process.
const lockTime = 10 * time.Second

// ErrNone means that there is no volume of that name.
var ErrNone = errors.New("no such volume")

// Store is the folder of all volumes of one user. Its methods that change something may be
// called by several processes at once if each holds the Lock.
type Store struct{ root string }

// Open returns the store in a folder, which need not exist.
func Open(root string) *Store { return &Store{root} }

// Root returns the store's folder.
func (s *Store) Root() string { return s.root }

// Volume is a volume on disk.
type Volume struct {
	Name    string
	Path    string // its folder
	Created time.Time
	Size    int64 // bytes of the host's disk that its files may take; 0 is no limit
}

// The limits of a volume's size, in bytes.
const (
	MinSize = 1 << 20
	MaxSize = sandbox.MaxDisk
)

// ValidSize reports whether a volume can have so many bytes; 0 is no limit.
func ValidSize(bytes int64) bool { return bytes == 0 || bytes >= MinSize && bytes <= MaxSize }

// settings is the content of settingsFile.
type settings struct {
	Created time.Time `json:"created"`
	Size    int64     `json:"size,omitempty"`
}

// Data returns the directory that guests see.
func (v *Volume) Data() string { return filepath.Join(v.Path, sandbox.VolumeData) }

// Writer returns the file with the name of the sandbox that has the volume for writing.
func (v *Volume) Writer() string { return filepath.Join(v.Path, writerFile) }

// WriterOf returns the file that Writer returns for the volume of that name, which may be damaged.
func (s *Store) WriterOf(name string) string { return filepath.Join(s.root, name, writerFile) }

// Lock takes the right to make and remove volumes, and to choose who writes to them.
func (s *Store) Lock(ctx context.Context) (*lockfile.Lock, error) {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	return lockfile.Acquire(ctx, filepath.Join(s.root, lockFile))
}

// checkName returns an error unless a volume can have that name.
func checkName(name string) error {
	if name == lockFile {
		return fmt.Errorf("no volume can be named %q: bawn has a file of that name", name)
	}
	return sandbox.CheckVolumeName(name)
}

// Get returns the volume of that name. The error is ErrNone if there is none.
func (s *Store) Get(name string) (*Volume, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return at(filepath.Join(s.root, name))
}

// Of returns the volume whose directory that guests see is data.
func Of(data string) (*Volume, error) { return at(filepath.Dir(data)) }

// at returns the volume in a folder.
func at(folder string) (*Volume, error) {
	name := filepath.Base(folder)
	v := &Volume{Name: name, Path: folder}
	b, err := os.ReadFile(filepath.Join(v.Path, settingsFile))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(v.Path); err == nil {
			return nil, fmt.Errorf("%s is damaged: it has no %s", v.Path, settingsFile)
		}
		return nil, fmt.Errorf("%w: %s", ErrNone, name)
	}
	if err != nil {
		return nil, err
	}
	var set settings
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(v.Path, settingsFile), err)
	}
	if set.Size < 0 || set.Size > MaxSize {
		return nil, fmt.Errorf("%s is damaged: a size of %d", filepath.Join(v.Path, settingsFile), set.Size)
	}
	v.Created, v.Size = set.Created, set.Size
	return v, nil
}

// Names returns the names of all volumes, sorted, also of damaged ones.
func (s *Store) Names() (names []string, err error) {
	entries, err := os.ReadDir(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() && sandbox.CheckVolumeName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Create makes an empty volume whose files may take so many bytes; 0 is no limit. The error is
// fs.ErrExist if there is one of that name. The caller holds the Lock.
func (s *Store) Create(name string, size int64) (_ *Volume, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if !ValidSize(size) {
		return nil, fmt.Errorf("a volume of %d bytes: must be %d to %d, or 0 for no limit", size, MinSize, MaxSize)
	}
	place := filepath.Join(s.root, name)
	if _, err := os.Lstat(place); err == nil {
		return nil, fmt.Errorf("volume %s: %w", name, fs.ErrExist)
	}
	draft, err := os.MkdirTemp(s.root, dotPrefix+name+"-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(draft)
		}
	}()
	b, err := json.Marshal(settings{Created: time.Now().UTC().Truncate(time.Second), Size: size})
	if err == nil {
		err = errors.Join(
			os.Mkdir(filepath.Join(draft, sandbox.VolumeData), 0o700),
			os.WriteFile(filepath.Join(draft, settingsFile), append(b, '\n'), 0o600),
		)
	}
	if err == nil {
		err = os.Rename(draft, place)
	}
	if err != nil {
		return nil, fmt.Errorf("make the volume %s: %w", name, err)
	}
	return s.Get(name)
}

// Gone is what is no volume any more: one that was taken out of the store, or what a killed
// process has left. Its files are still there. It may be removed without the store's Lock, so
// that a large one keeps nobody waiting.
type Gone struct {
	path string
	lock *lockfile.Lock // no other process removes it meanwhile
}

// Remove removes the files. The Gone is not to be used any more, also after an error: what is left
// is among the next Leftovers.
func (g *Gone) Remove() error {
	entries, err := os.ReadDir(g.path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // another process has removed it before the lock was taken
	}
	for _, e := range entries {
		if e.Name() != lockFile { // it goes last: another process would make and lock a new one
			err = errors.Join(err, workcopy.Remove(filepath.Join(g.path, e.Name())))
		}
	}
	if err == nil {
		err = os.RemoveAll(g.path)
	}
	if errors.Is(err, unix.ENOTEMPTY) {
		err = nil // another process has found the empty folder, and removes it
	}
	return errors.Join(err, g.lock.Close())
}

// takeGone returns the Gone in a folder, or nil if another process is removing it.
func takeGone(path string) (*Gone, error) {
	l, err := lockfile.TryAcquire(filepath.Join(path, lockFile))
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &Gone{path, l}, nil
}

// TakeOut takes the volume of that name, also a damaged one, out of the store. The caller holds
// the Lock, and knows that no sandbox has the volume.
func (s *Store) TakeOut(name string) (*Gone, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp(s.root, dotPrefix+name+"-")
	if err != nil {
		return nil, err
	}
	gone, err := takeGone(folder)
	if gone == nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	if err := os.Rename(filepath.Join(s.root, name), filepath.Join(folder, name)); err != nil {
		_ = gone.Remove()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNone, name)
		}
		return nil, err
	}
	return gone, nil
}

// Leftovers returns what killed processes have left, also with an error. The caller holds the
// Lock, and may give it back before it removes them.
func (s *Store) Leftovers() (list []*Gone, err error) {
	entries, err := os.ReadDir(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), dotPrefix) {
			continue
		}
		gone, gerr := takeGone(filepath.Join(s.root, e.Name()))
		if gone != nil {
			list = append(list, gone)
		}
		err = errors.Join(err, gerr)
	}
	return list, err
}
