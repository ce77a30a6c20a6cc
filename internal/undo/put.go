package undo

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// # Theory of operation: taking something over
//
// A person has seen what a path of the project holds, and what is to take its place. A Putter
// puts that there, in one step for each path: the new file is written under a name of its own,
// synced, and exchanged with the old one. If what comes out of the exchange is not what the
// person has seen, it is exchanged back. A kill leaves the path as before or as asked, and
// at most a file with a temporary name beside it, which goes with the next use (mark.go).
//
// Names that begin with TempPrefix are hidden from guests, so none can write to the new file
// before it has its place.

// TempPrefix begins the names of files that bawn makes in a project for a moment.
const TempPrefix = ".bawn-"

// The beginnings of a Putter's temporary names.
const (
	acceptPrefix = TempPrefix + "accept-" // of a replacement
	takenPrefix  = TempPrefix + "taken-"  // of a file that is to be removed
)

// Seen is what a person was shown of a path.
type Seen struct {
	Kind   Kind
	Mode   uint32 // permission bits of a file
	Sum    [32]byte
	Target string // of a link
}

// Replacement is what takes the place of a path.
type Replacement struct {
	Kind   Kind // Absent, File or Link
	Mode   uint32
	Data   []byte
	Target string
}

// ErrNotAsSeen means that a path is not as the person has seen it.
var ErrNotAsSeen = errors.New("it was changed on the host since it was shown: nothing was replaced")

// Look returns what a path of the project holds, and, of a file of at most limit bytes, the
// contents. A larger one has none, and is not to be replaced.
func Look(root *os.File, at string, limit int64) (Seen, []byte, error) {
	if err := checkPath(at); err != nil {
		return Seen{}, nil, err
	}
	dir, name, err := parent(root, at)
	if gone(err) {
		return Seen{Kind: Absent}, nil, nil
	}
	if err != nil {
		return Seen{}, nil, err
	}
	defer unix.Close(dir)
	seen, data, err := lookIn(dir, name, limit)
	if err != nil {
		err = fmt.Errorf("%s: %w", at, err)
	}
	return seen, data, err
}

// ErrTooLarge means that a file is larger than the caller reads.
var ErrTooLarge = errors.New("it is too large to be shown")

func lookIn(dir int, name string, limit int64) (Seen, []byte, error) {
	fd, st, err := place(Source{FD: dir, Name: name})
	if gone(err) {
		return Seen{Kind: Absent}, nil, nil
	}
	if err != nil {
		return Seen{}, nil, err
	}
	defer unix.Close(fd)
	state := stateOf(st)
	seen := Seen{Kind: state.Kind}
	switch state.Kind {
	case Link:
		t, err := target(fd)
		seen.Target = string(t)
		return seen, nil, err
	case File:
		seen.Mode = state.Mode
		in, err := unix.Open(magic(fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if err != nil {
			return seen, nil, err
		}
		f := os.NewFile(uintptr(in), name)
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, limit+1))
		if err == nil && int64(len(data)) > limit {
			return seen, nil, ErrTooLarge
		}
		seen.Sum = sha256.Sum256(data)
		return seen, data, err
	}
	return seen, nil, nil
}

// Putter replaces paths of a project.
type Putter struct {
	root  *os.File
	rec   *Recorder // nil: nothing is kept
	marks *marks
	limit int64 // bytes of a file
}

// NewPutter returns a Putter for a project, opened by its absolute path, or for another shared
// directory. If keep is set, what it replaces is kept in a restore point of the store. It replaces
// no file with more bytes than limit. The caller has called Store.Recover, and closes the Putter and
// then the store.
func NewPutter(root *os.File, s *Store, keep bool, limit int64) (*Putter, error) {
	m, err := openMarks(s.fd)
	if err != nil {
		return nil, err
	}
	p := &Putter{root: root, marks: m, limit: limit}
	if keep {
		p.rec = NewRecorder(s.fd, WhyAccept)
	}
	return p, nil
}

// Close ends the restore point, and returns its number, or 0 if there is none.
func (p *Putter) Close() (point int) {
	_ = p.marks.close() // a mark without its file does no harm
	if p.rec == nil {
		return 0
	}
	return p.rec.end()
}

// Put replaces what a path of the project holds, which the person has seen. Directories on the
// way are made. It returns ErrNotAsSeen if the path holds something else.
func (p *Putter) Put(at string, seen Seen, r Replacement) error {
	if err := checkPath(at); err != nil {
		return err
	}
	err := p.put(at, seen, r)
	if err != nil {
		err = fmt.Errorf("%s: %w", at, err)
	}
	return err
}

func (p *Putter) put(at string, seen Seen, r Replacement) error {
	if r.Kind != Absent {
		if err := p.rooms(path.Dir(at)); err != nil {
			return err
		}
	}
	dir, name, err := parent(p.root, at)
	if gone(err) && r.Kind == Absent {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if now, _, err := lookIn(dir, name, p.limit); err != nil {
		return err
	} else if now != seen {
		return ErrNotAsSeen
	}
	if seen.Kind == Dir || seen.Kind == Other {
		return fmt.Errorf("the host has a %s there", seen.Kind)
	}
	e := p.before(dir, name, at)
	if r.Kind == Absent {
		err = p.takeAway(dir, name, at, seen)
	} else {
		err = p.exchange(dir, name, at, seen, r)
	}
	if err == nil {
		p.after(e, dir, name)
	}
	return err
}

// rooms makes the directories of a path that are not there.
func (p *Putter) rooms(at string) error {
	if at == "." {
		return nil
	}
	if now, st, err := look(p.root, at); err != nil {
		return err
	} else if now.present {
		if stateOf(st).Kind != Dir {
			return fmt.Errorf("%s is no directory", at)
		}
		return nil
	}
	if err := p.rooms(path.Dir(at)); err != nil {
		return err
	}
	dir, name, err := parent(p.root, at)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	e := p.before(dir, name, at)
	if err := unix.Mkdirat(dir, name, 0o777); err != nil && !errors.Is(err, unix.EEXIST) { // less the umask
		return err
	}
	if err := giveOwner(dir, name); err != nil {
		return err
	}
	p.after(e, dir, name)
	return nil
}

func (p *Putter) before(dir int, name, at string) *Entry {
	if p.rec == nil {
		return nil
	}
	return p.rec.beforeName(dir, name, at)
}

func (p *Putter) after(e *Entry, dir int, name string) {
	if p.rec != nil {
		p.rec.afterName(e, dir, name)
	}
}

// giveOwner gives what root has made in a directory the owner of the directory.
func giveOwner(dir int, name string) error {
	var st unix.Stat_t
	if os.Geteuid() != 0 {
		return nil
	}
	if err := unix.Fstatat(dir, "", &st, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	return unix.Fchownat(dir, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
}

// takeAway removes a path that the person has seen.
func (p *Putter) takeAway(dir int, name, at string, seen Seen) error {
	if seen.Kind == Absent {
		return nil
	}
	temp := takenPrefix + rand.Text()
	if err := p.marks.set(mark{Root: p.root.Name(), Path: []byte(at), Temp: temp, Seen: &seen}); err != nil {
		return err
	}
	if err := unix.Renameat2(dir, name, dir, temp, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	if was, _, err := lookIn(dir, temp, p.limit); err != nil || was != seen {
		if back := unix.Renameat2(dir, temp, dir, name, unix.RENAME_NOREPLACE); back != nil {
			err = errors.Join(err, fmt.Errorf("%s lies beside its place as %s: %w", at, temp, back))
		}
		return errors.Join(ErrNotAsSeen, err)
	}
	return unix.Unlinkat(dir, temp, 0)
}

// exchange puts a replacement in the place of what the person has seen.
func (p *Putter) exchange(dir int, name, at string, seen Seen, r Replacement) error {
	temp := acceptPrefix + rand.Text()
	v := mark{Root: p.root.Name(), Path: []byte(at), Temp: temp, Seen: &seen}
	if err := p.marks.set(v); err != nil {
		return err
	}
	ino, err := makeTemp(dir, temp, name, seen, r)
	defer func() { _ = unix.Unlinkat(dir, temp, 0) }()
	if err != nil {
		return err
	}
	v.Ino = ino
	if err := p.marks.set(v); err != nil {
		return err
	}
	if seen.Kind == Absent {
		err := unix.Renameat2(dir, temp, dir, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EEXIST) {
			err = ErrNotAsSeen
		}
		return errors.Join(err, syncDir(dir))
	}
	err = unix.Renameat2(dir, temp, dir, name, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.EINVAL) { // the file system cannot exchange: it was compared a moment ago
		return errors.Join(unix.Renameat(dir, temp, dir, name), syncDir(dir))
	}
	if err != nil {
		return err
	}
	if was, _, err := lookIn(dir, temp, p.limit); err != nil || was != seen {
		return errors.Join(ErrNotAsSeen, err, unix.Renameat2(dir, temp, dir, name, unix.RENAME_EXCHANGE))
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Ino != ino {
		return errors.Join(errors.New("something else took its place at the same moment: look at it before you use it"), err)
	}
	return syncDir(dir)
}

func syncDir(dir int) error {
	fd, err := openDir(dir, ".")
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_ = unix.Fsync(fd) // a file system need not have it for directories
	return nil
}

// makeTemp makes the replacement under a temporary name, with the owner and the attributes of what
// it replaces, and returns its inode.
func makeTemp(dir int, temp, name string, seen Seen, r Replacement) (ino uint64, err error) {
	var st unix.Stat_t
	if r.Kind == Link {
		if err := unix.Symlinkat(r.Target, dir, temp); err != nil {
			return 0, err
		}
	} else if err := writeTemp(dir, temp, name, seen, r); err != nil {
		return 0, err
	}
	if err := unix.Fstatat(dir, temp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, err
	}
	if seen.Kind == Absent {
		return st.Ino, giveOwner(dir, temp)
	}
	var old unix.Stat_t
	if err := unix.Fstatat(dir, name, &old, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return 0, err
	}
	if old.Uid != st.Uid || old.Gid != st.Gid {
		err = unix.Fchownat(dir, temp, int(old.Uid), int(old.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	return st.Ino, err
}

func writeTemp(dir int, temp, name string, seen Seen, r Replacement) error {
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	out := os.NewFile(uintptr(fd), temp)
	defer out.Close()
	if _, err := io.Copy(out, bytes.NewReader(r.Data)); err != nil {
		return err
	}
	if seen.Kind == File {
		if in, err := openFile(dir, name, unix.O_RDONLY|unix.O_NOCTTY); err == nil {
			_ = CopyAttributes(fd, int(in.Fd()), ofTheUser) // where the file system has any
			in.Close()
		}
	}
	if err := unix.Fchmod(fd, r.Mode&permissions); err != nil {
		return err
	}
	return out.Sync()
}
