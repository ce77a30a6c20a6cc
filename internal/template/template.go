// Package template keeps saved machines from which new sandboxes start.
//
// # Theory of operation
//
// A template is a machine that was booted and set up as far as all sandboxes of its
// kind are the same, and saved then: its memory, packed (memory.Pack), and the state
// of its devices. It has seen no project and no secret. A sandbox is started
// from a copy of the memory, with an identity of its own: it gets its own random seed, keys,
// names, addresses and shares before any process of the sandbox runs.
//
// It is saved at two points. At Bare it has booted and mounted the read-only disks;
// a sandbox whose disk has been used starts from there. At Ready it has set up the
// whole system on an empty disk, which is saved too; a new sandbox gets a copy of
// that disk and starts from there, which skips most of a start.
//
// The kind of a machine is a hash over everything that must be the same when it is
// saved and restored: the program that runs it (the file and its version), its whole
// argument list, the files it boots from, the accelerator and, with KVM, the processor
// and the host's kernel. A machine that differs in any of them is of another kind; so
// nothing needs to be compared at a restore, and a stale template is never looked up
// again, until Make deletes it.
//
// Templates are entries of the cache (package cache), which checks their files by
// digests and holds locks. A template is there as a whole or not at all.
package template

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/sys/fileid"
)

// kind is the name of templates in the cache.
const kind = "template"

// Point is the stage of its start at which a machine was saved.
type Point string

// The points.
const (
	Bare  Point = "bare"
	Ready Point = "ready"
)

// Names of a template's files: memory and state of each point, and the disk of Ready.
func (p Point) ramFile() string   { return string(p) + ".ram" }
func (p Point) stateFile() string { return string(p) + ".state" }

const diskFile = "ready.disk"

// format changes when templates are set up or kept differently.
const format = "2"

// keep is how many templates are kept; of more, the one unused for longest is deleted. A
// template takes some 300 MB.
const keep = 4

// ErrNone means that there is no usable template of the kind.
var ErrNone = errors.New("no template")

// Meta is the description of a template.
type Meta struct {
	Kernel string    `json:"kernel"` // uname -r, as the guest reported it
	Made   time.Time `json:"made"`
	// Shares are the shares that were detached at each point and have to be attached at a
	// restore, as the supervisor writes them.
	Shares map[Point]json.RawMessage `json:"shares,omitempty"`
}

// Template is a template in the cache.
type Template struct {
	Kind string
	Meta Meta

	entry *cache.Entry
}

// Machine has the properties of a machine that must be the same when it is saved and when it
// is restored, except those that Kind looks up by itself.
type Machine struct {
	Monitor   string   // the program that runs it and its version, as that reports them
	Files     []string // paths of the monitor and of all that the machine reads: kernel, initrd, read-only disks
	Accel     string   // how its code runs
	OnHostCPU bool     // the guest sees the host's processor, not an emulated one
	Arguments []string // the whole description of its devices
	Setup     string   // the set-up requests that it gets before its last point
}

// Kind returns the name of the kind of machine that m is, under which Lookup and Make
// know its template. It reads the files' attributes, not their contents.
func Kind(m Machine) (string, error) {
	h := sha256.New()
	add := func(what string, v any) { fmt.Fprintf(h, "%s %q\n", what, fmt.Sprint(v)) }
	add("setup", m.Setup)
	add("format", format)
	add("monitor", m.Monitor)
	for _, path := range m.Files {
		id, err := fileid.Version(path)
		if err != nil {
			return "", fmt.Errorf("kind of machine: %w", err)
		}
		add(path, id)
	}
	add("accel", m.Accel)
	if m.OnHostCPU {
		id, err := hostIdentity()
		if err != nil {
			return "", fmt.Errorf("kind of machine: %w", err)
		}
		add("host", id)
	}
	add("arguments", m.Arguments)
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// hostIdentity describes the host as far as a guest on KVM depends on it: the processor
// with all its flags and microcode, and the kernel.
func hostIdentity() (string, error) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	first, _, _ := strings.Cut(string(b), "\n\n")
	lines := slices.DeleteFunc(strings.Split(first, "\n"), func(l string) bool {
		return strings.HasPrefix(l, "cpu MHz") || strings.HasPrefix(l, "bogomips") // these vary
	})
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return strings.Join(lines, "\n") + unix.ByteSliceToString(u.Release[:]) + runtime.GOARCH, nil
}

// Store is the folder of the templates.
type Store struct{ cache cache.Dir }

// Open returns the templates in the cache folder.
func Open(folder string) Store { return Store{cache.Open(folder)} }

// Lookup returns the template of the kind. The error is ErrNone when there is none, or
// it is damaged.
func (s Store) Lookup(k string) (*Template, error) {
	e, err := s.cache.Lookup(kind, k)
	if errors.Is(err, cache.ErrAbsent) || errors.Is(err, cache.ErrDamaged) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if err != nil {
		return nil, err
	}
	t := &Template{Kind: k, entry: e}
	if err := json.Unmarshal(e.Meta, &t.Meta); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	e.Used()
	return t, nil
}

// Unpack fills ram, which must be empty and of the machine's size, with the memory at a
// point.
func (t *Template) Unpack(p Point, ram *os.File) error { return t.unpack(p.ramFile(), ram) }

// UnpackDisk fills an empty disk with the contents of the disk at Ready. The file must
// have the size of that disk.
func (t *Template) UnpackDisk(disk *os.File) error { return t.unpack(diskFile, disk) }

func (t *Template) unpack(name string, to *os.File) error {
	f, err := os.Open(t.entry.File(name))
	if err != nil {
		return err
	}
	defer f.Close()
	return memory.Unpack(to, f)
}

// State opens the state of the devices at a point.
func (t *Template) State(p Point) (io.ReadCloser, error) { return os.Open(t.entry.File(p.stateFile())) }

// Draft is a template in the making.
type Draft struct{ dir string }

// Save keeps a paused machine as a point. state writes the state of its devices; ram is
// its memory; disk is its own disk, nil for Bare.
func (d *Draft) Save(p Point, state func(io.Writer) error, ram, disk *os.File) error {
	err := d.write(p.stateFile(), func(f *os.File) error { return state(f) })
	if err != nil {
		return err
	}
	if err := d.pack(p.ramFile(), ram); err != nil || disk == nil {
		return err
	}
	return d.pack(diskFile, disk)
}

func (d *Draft) pack(name string, from *os.File) error {
	return d.write(name, func(f *os.File) error {
		_, err := memory.Pack(f, from)
		return err
	})
}

func (d *Draft) write(name string, write func(*os.File) error) error {
	f, err := os.OpenFile(filepath.Join(d.dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// Make lets build save a machine into a Draft and puts that into the cache as the
// template of the kind, unless there is one by then. Only one template is made at a
// time on the host: while another process makes one, Make does nothing and returns nil;
// a later cold start tries again.
func (s Store) Make(ctx context.Context, k string, build func(context.Context, *Draft) (Meta, error)) error {
	l, err := s.cache.TryLock(kind)
	if errors.Is(err, cache.ErrBusy) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	defer l.Unlock()
	if _, err := s.Lookup(k); err == nil {
		return nil
	}
	if err := s.build(ctx, l, k, build); err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	return s.cache.Trim(kind, keep)
}

func (s Store) build(ctx context.Context, l *cache.Lock, k string, build func(context.Context, *Draft) (Meta, error)) error {
	dir, err := l.Scratch()
	if err != nil {
		return err
	}
	defer cache.RemoveAll(dir)
	meta, err := build(ctx, &Draft{dir})
	if err != nil {
		return err
	}
	e, err := s.cache.Commit(kind, k, dir, meta)
	if err != nil {
		return err
	}
	e.Used()
	return nil
}

// Remove deletes the template of a kind, because it did not work.
func (s Store) Remove(k string) error { return s.cache.Remove(kind, k) }
