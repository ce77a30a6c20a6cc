// Package snapshot keeps a sandbox's machine at one point in time: one that is suspended,
// and one to restore or to fork.
//
// # Theory of operation
//
// A snapshot is a folder: the machine's memory, packed (memory.Pack); the state
// of its devices; the state of its share servers and its network; and for
// snapshots that are more than a suspension, a copy of the sandbox's disk. It is
// written under another name and renamed when it is whole, so a process that is
// killed leaves nothing that looks like a snapshot.
//
// Memory and disk belong together. A suspended machine's disk is the sandbox's
// own, and is not written until the machine is resumed; before that the snapshot must
// be removed (Remove), or a later start would use an old memory with a newer disk.
//
// Memory is compressed with S2, because it is fast: a machine's memory shrinks to
// a third, and to compress takes less time than to write the rest would, to expand less
// than to read it. S2 carries checksums, and snapshot.json has one of every file, so that
// a crash of the host while writing, or a bad disk, shows as ErrDamaged and never as a
// machine with a torn memory or disk. The sums protect against accidents, not against
// attacks: a program that can write here can also write to the sandbox's disk.
//
// A disk is copied while the machine runs, or while it is paused where a copy takes no
// time (reflinks), and the sum of the copy is made when the machine runs again (Commit).
// It is verified before a restore begins, so that nothing has been given up for a
// snapshot that turns out to be damaged.
//
// # Not safe
//
// The memory of a machine holds whatever its programs held, and so does a snapshot. Its
// folder is in the sandbox's, which only the user can enter.
package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"

	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/diskuse"
	"bawn.dev/bawn/internal/sys/sparse"
)

// Names of a snapshot's files.
const (
	metaFile  = "snapshot.json"
	ramFile   = "machine.ram"
	stateFile = "machine.state"
	diskFile  = "disk.raw"
)

// format changes when snapshots are kept differently.
const format = 2

// S2 compresses blocks of memory independently of each other.
const (
	block  = 1 << 20 // bytes
	coders = 2       // blocks at a time
)

// draftPrefix begins the names of drafts. No sandbox or snapshot has such a name.
const draftPrefix = ".new-"

var (
	// ErrNone means that there is no snapshot there.
	ErrNone = errors.New("no such snapshot")
	// ErrDamaged means that a snapshot is not what was written.
	ErrDamaged = errors.New("the snapshot is damaged")
)

// Meta is the description of a snapshot.
type Meta struct {
	Format int       `json:"format"`
	Kind   string    `json:"kind"` // of machine (template.Kind): only a machine of the same kind can be resumed from it
	Made   time.Time `json:"made"`

	Spec    *sandbox.Spec   `json:"spec"` // the sandbox's, at that time
	Shares  []Share         `json:"shares"`
	Network json.RawMessage `json:"network,omitempty"`

	Files map[string]File `json:"files"`
	// Disk describes the copy of the disk. A suspension has none; nor has a snapshot that
	// was made before this field was, whose disk cannot be verified.
	Disk *File `json:"disk,omitempty"`
}

// Share is a share of the machine.
type Share struct {
	Plan   json.RawMessage `json:"plan"`   // what it serves and where, as the supervisor writes it
	Device json.RawMessage `json:"device"` // how the guest's driver had set it up, as the machine's back end writes it
	State  json.RawMessage `json:"state"`  // what the guest knew of its files (share.Control.Save)
}

// File is the size and checksum that a file must have.
type File struct {
	Size int64  `json:"size"` // bytes
	Sum  uint32 `json:"crc32c"`
}

// Draft is a snapshot in the making.
type Draft struct {
	path  string
	files map[string]File
	disk  bool
}

// Begin starts a snapshot that will be among others in the folder, which is made if it
// is missing. Drafts of processes that were killed are removed, so the caller must hold
// the sandbox's lock. The caller ends the draft with Commit or Discard.
func Begin(folder string) (*Draft, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	Clean(folder)
	path, err := os.MkdirTemp(folder, draftPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return &Draft{path: path, files: map[string]File{}}, nil
}

// Clean removes all drafts from a folder, as far as it can.
func Clean(folder string) {
	old, err := filepath.Glob(filepath.Join(folder, draftPrefix+"*"))
	if err != nil {
		return
	}
	for _, p := range old {
		_ = os.RemoveAll(p) // the next Clean tries again
	}
}

// Discard removes the draft. After Commit it does nothing.
func (d *Draft) Discard() { _ = os.RemoveAll(d.path) }

// RAM packs and compresses the memory of a paused machine.
func (d *Draft) RAM(ram *os.File) error {
	return d.write(ramFile, func(w io.Writer) error {
		c := s2.NewWriter(w, s2.WriterConcurrency(coders), s2.WriterBlockSize(block))
		_, err := memory.Pack(c, ram)
		return errors.Join(err, c.Close())
	})
}

// State writes the state of the machine's devices.
func (d *Draft) State(save func(io.Writer) error) error { return d.write(stateFile, save) }

// Disk copies the disk at path. A block that the machine writes meanwhile may be in the
// copy or not; Update corrects that. When ctx ends, Disk stops with ctx's cause.
func (d *Draft) Disk(ctx context.Context, path string) error {
	d.disk = true
	return CopyDisk(ctx, filepath.Join(d.path, diskFile), path)
}

// Update lets do change the copy of the disk that Disk made.
func (d *Draft) Update(do func(copied *os.File) error) error {
	f, err := os.OpenFile(filepath.Join(d.path, diskFile), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return errors.Join(do(f), f.Close())
}

// CanClone reports whether a copy of the disk at path takes no time, because the file system
// lets it share all blocks.
func (d *Draft) CanClone(path string) bool {
	src, err := os.Open(path)
	if err != nil {
		return false
	}
	defer src.Close()
	try, err := os.CreateTemp(d.path, "clone-*")
	if err != nil {
		return false
	}
	defer try.Close()
	_ = os.Remove(try.Name())
	return sparse.Clone(try, src)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (d *Draft) write(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(filepath.Join(d.path, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s := &checksum{w: f}
	if err := errors.Join(write(s), f.Close()); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	d.files[name] = File{s.size, s.sum}
	return nil
}

// checksum passes bytes on to w and computes their size and sum.
type checksum struct {
	w    io.Writer
	size int64
	sum  uint32
}

func (s *checksum) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	s.size += int64(n)
	s.sum = crc32.Update(s.sum, castagnoli, b[:n])
	return n, err
}

// Commit turns the draft into the snapshot at path, which must be in the folder of Begin,
// and replaces one that is there. When ctx ends while the disk is read, Commit stops with
// ctx's cause and leaves path as it was.
func (d *Draft) Commit(ctx context.Context, path string, m Meta) error {
	m.Format, m.Files, m.Disk = format, d.files, nil
	if d.disk {
		disk, err := sumDisk(ctx, filepath.Join(d.path, diskFile))
		if err != nil {
			return fmt.Errorf("snapshot: sum the disk: %w", err)
		}
		m.Disk = &disk
	}
	if m.Made.IsZero() {
		m.Made = time.Now().UTC()
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := os.WriteFile(filepath.Join(d.path, metaFile), b, 0o600); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := remove(path); err != nil {
		return err
	}
	if err := os.Rename(d.path, path); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// remove deletes a snapshot so that its remains never look like a snapshot, not even when
// the host loses power right after: a suspended memory that came back beside a newer disk
// would destroy the file system on that disk.
func remove(path string) error {
	gone := filepath.Join(filepath.Dir(path), draftPrefix+"gone-"+filepath.Base(path))
	_ = os.RemoveAll(gone)
	err := os.Rename(path, gone)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	_ = os.RemoveAll(gone) // Clean tries again
	return nil
}

// syncFolder waits until a folder's entries are on disk.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Snapshot is a snapshot that was opened.
type Snapshot struct {
	Path string
	Meta Meta
}

// Exists reports whether there is a snapshot at path, damaged or not.
func Exists(path string) bool {
	_, err := os.Lstat(filepath.Join(path, metaFile))
	return err == nil
}

// Open reads the description of the snapshot at path. It does not check the other files;
// see Probe and Verify. Its errors are ErrNone and ErrDamaged, among others.
func Open(path string) (*Snapshot, error) {
	b, err := os.ReadFile(filepath.Join(path, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNone, filepath.Base(path))
	}
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Path: path}
	if err := json.Unmarshal(b, &s.Meta); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.Meta.Format != format {
		return nil, fmt.Errorf("%w: another version of bawn wrote it (format %d)", ErrDamaged, s.Meta.Format)
	}
	if s.Meta.Spec == nil {
		return nil, fmt.Errorf("%w: the description of its machine is missing", ErrDamaged)
	}
	for name := range s.Meta.Files { // Clone links them
		if name != ramFile && name != stateFile {
			return nil, fmt.Errorf("%w: it has no file %q", ErrDamaged, name)
		}
	}
	return s, nil
}

// Probe checks that the files of a snapshot with a disk are there and have their sizes,
// which takes no time. It returns ErrDamaged if not.
func (s *Snapshot) Probe() error {
	for _, name := range []string{ramFile, stateFile} {
		if err := s.probe(name, s.Meta.Files[name].Size); err != nil {
			return err
		}
	}
	if s.Meta.Disk == nil {
		return s.probe(diskFile, -1)
	}
	return s.probe(diskFile, s.Meta.Disk.Size)
}

// probe checks that a file has a size, or is there at all if the size is negative.
func (s *Snapshot) probe(name string, size int64) error {
	fi, err := os.Stat(filepath.Join(s.Path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: no %s", ErrDamaged, name)
	}
	if err == nil && size >= 0 && fi.Size() != size {
		err = fmt.Errorf("%w: %s has %d bytes instead of %d", ErrDamaged, name, fi.Size(), size)
	}
	return err
}

// Verify reads all of a snapshot with a disk, and returns ErrDamaged if any of it is not
// as it was written. When ctx ends while the disk is read, its cause is the error, and
// says nothing about the disk.
func (s *Snapshot) Verify(ctx context.Context) error {
	if err := s.Probe(); err != nil {
		return err
	}
	for _, name := range []string{ramFile, stateFile} {
		f, err := s.open(name)
		if err != nil {
			return err
		}
		f.Close()
	}
	if s.Meta.Disk == nil {
		return nil
	}
	disk, err := sumDisk(ctx, s.Disk())
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // which says nothing about the disk
	}
	if err == nil && disk != *s.Meta.Disk {
		err = errors.New("its checksum is wrong")
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDamaged, diskFile, err)
	}
	return nil
}

// Size returns how much room the snapshot takes on the host, in bytes.
func (s *Snapshot) Size() int64 {
	var n int64
	for _, name := range []string{metaFile, ramFile, stateFile, diskFile} {
		n += diskuse.Of(filepath.Join(s.Path, name))
	}
	return n
}

// Disk returns the path of its copy of the disk.
func (s *Snapshot) Disk() string { return filepath.Join(s.Path, diskFile) }

// Unpack fills ram, which must be empty and of the machine's size, with its memory.
func (s *Snapshot) Unpack(ram *os.File) error {
	f, err := os.Open(filepath.Join(s.Path, ramFile))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer f.Close()
	r, w := io.Pipe()
	defer r.Close()
	go func() { // decompresses and checks the next blocks while the last ones are copied
		_, err := s2.NewReader(f, s2.ReaderMaxBlockSize(block)).DecodeConcurrent(w, coders)
		w.CloseWithError(err)
	}()
	if err := memory.UnpackStream(ram, r); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// State opens the state of its devices, after it has checked it. The caller closes it.
func (s *Snapshot) State() (io.ReadCloser, error) { return s.open(stateFile) }

// open opens a file and checks that it has its checksum.
func (s *Snapshot) open(name string) (*os.File, error) {
	want, ok := s.Meta.Files[name]
	if !ok {
		return nil, fmt.Errorf("%w: no %s", ErrDamaged, name)
	}
	f, err := os.Open(filepath.Join(s.Path, name))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	sum := &checksum{w: io.Discard}
	_, err = io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	if err == nil && (File{sum.size, sum.sum}) != want {
		err = fmt.Errorf("%w: %s has %d bytes of %d, or its checksum is wrong", ErrDamaged, name, sum.size, want.Size)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Clone makes another snapshot at path, without the disk. Memory and state are hard
// links: these files never change.
func (s *Snapshot) Clone(path string) error {
	d, err := Begin(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Discard()
	for name := range s.Meta.Files {
		if err := os.Link(filepath.Join(s.Path, name), filepath.Join(d.path, name)); err != nil {
			return fmt.Errorf("snapshot: %w", err)
		}
	}
	d.files = s.Meta.Files
	return d.Commit(context.Background(), path, s.Meta) // there is no disk to sum
}

// Remove deletes the snapshot. When it returns, the snapshot stays deleted also after a
// power failure.
func (s *Snapshot) Remove() error { return remove(s.Path) }

// IsDraft reports whether a name in a folder of snapshots is that of a draft.
func IsDraft(name string) bool { return strings.HasPrefix(name, draftPrefix) }
