// Package template keeps saved machines from which new sandboxes start.
//
// # Theory of operation
//
// A template is a machine that has booted and readied what all sandboxes of its
// kind have in common, and was then saved: its memory, packed (qemu.PackRAM),
// and the state of its devices. It has seen no project, person or secret. A new
// sandbox gets a copy of the memory and goes on from there, as itself: it is
// given its own random seed, keys, names, addresses, disk and shares before
// anything of the sandbox runs.
//
// What kind a machine is of is one hash over everything that must be the same
// when it is saved and restored: QEMU (the file and what it says of itself),
// its whole argument list, the files it boots from, the accelerator and, with
// KVM, the processor and the host's kernel. Whatever differs makes another kind;
// nothing needs to be compared at a restore, and a stale template is one that
// nobody asks for any more.
//
// Templates are entries of the cache (package cache): digests, locks, and
// whole or not there.
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

	"brig.dev/brig/internal/cache"
	"brig.dev/brig/internal/progress"
	"brig.dev/brig/internal/qemu"
)

// Names in the cache.
const (
	kind      = "template"
	ramFile   = "ram"   // packed memory
	stateFile = "state" // QEMU's migration stream
)

// format changes when templates are readied or kept differently.
const format = "1"

// keep is how many templates stay; beyond, the longest unused goes. One is
// some 120 MB.
const keep = 6

// ErrNone means that there is no usable template of the kind.
var ErrNone = errors.New("no template")

// Meta is what is known of a template without restoring it.
type Meta struct {
	Kernel string    `json:"kernel"` // uname -r, as the guest said
	Made   time.Time `json:"made"`
}

// Template is one that is whole.
type Template struct {
	Kind string
	Meta Meta

	entry *cache.Entry
}

// Kind is the kind of machine that m is: what Lookup and Save call it.
func Kind(q qemu.Binary, m *qemu.Machine) (string, error) {
	h := sha256.New()
	say := func(what string, v any) { fmt.Fprintf(h, "%s %q\n", what, fmt.Sprint(v)) }
	say("format", format)
	say("qemu", q.Build)
	for _, path := range append([]string{q.Path, m.Kernel, m.Initrd}, diskPaths(m)...) {
		id, err := identity(path)
		if err != nil {
			return "", fmt.Errorf("kind of machine: %w", err)
		}
		say(path, id)
	}
	say("accel", m.Accel.Kind)
	if m.Accel.OK() {
		id, err := hostIdentity()
		if err != nil {
			return "", fmt.Errorf("kind of machine: %w", err)
		}
		say("host", id)
	}
	say("arguments", m.Args())
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// diskPaths are the read-only disks, which are part of the kind; of the others
// only the size is.
func diskPaths(m *qemu.Machine) []string {
	var paths []string
	for _, d := range m.Disks {
		if d.ReadOnly {
			paths = append(paths, d.File.Name())
		}
	}
	return paths
}

// identity tells versions of a file apart without reading it.
func identity(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat(real, &st); err != nil {
		return "", fmt.Errorf("%s: %w", real, err)
	}
	return fmt.Sprintf("%s %d %d %d", real, st.Size, st.Ino, st.Mtim.Nano()), nil
}

// hostIdentity is what a guest on KVM sees of the host: the processor with all
// its flags and microcode, and the kernel that runs it.
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

// Store is where templates are kept.
type Store struct{ cache cache.Dir }

// Open returns the templates in the cache folder.
func Open(folder string) Store { return Store{cache.Open(folder)} }

// Lookup returns the template of the kind. The error is within ErrNone when
// there is none, or it is damaged.
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
	now := time.Now()
	_ = os.Chtimes(filepath.Dir(e.File(ramFile)), now, now) // for Prune; a read-only cache prunes nothing
	return t, nil
}

// Unpack fills ram with the template's memory.
func (t *Template) Unpack(ram *os.File) error {
	f, err := os.Open(t.entry.File(ramFile))
	if err != nil {
		return err
	}
	defer f.Close()
	return qemu.UnpackRAM(ram, f)
}

// State opens the state of the template's devices.
func (t *Template) State() (io.ReadCloser, error) { return os.Open(t.entry.File(stateFile)) }

// Source is a machine that is ready to be saved.
type Source interface {
	// Save pauses the machine and writes its state and its packed memory.
	Save(ctx context.Context, state, ram io.Writer) (Meta, error)
}

// Make keeps the machine that boot readies as the template of the kind, unless
// there is one by then. Of several that ask at once, one makes it.
func (s Store) Make(ctx context.Context, k string, boot func(context.Context) (Source, error)) error {
	_, err := s.cache.Ensure(ctx, kind, k, progress.Silent, func(ctx context.Context, dir string) (any, error) {
		m, err := boot(ctx)
		if err != nil {
			return nil, err
		}
		return save(ctx, m, dir)
	})
	if err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	return s.prune(k)
}

func save(ctx context.Context, m Source, dir string) (Meta, error) {
	state, err := os.OpenFile(filepath.Join(dir, stateFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Meta{}, err
	}
	defer state.Close()
	ram, err := os.OpenFile(filepath.Join(dir, ramFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Meta{}, err
	}
	defer ram.Close()
	meta, err := m.Save(ctx, state, ram)
	if err != nil {
		return meta, err
	}
	return meta, errors.Join(state.Close(), ram.Close())
}

// prune removes the templates that were unused longest, and never k.
func (s Store) prune(k string) error {
	keys, err := s.cache.Keys(kind)
	if err != nil {
		return err
	}
	used := map[string]time.Time{}
	for _, key := range keys {
		if fi, err := os.Stat(filepath.Join(s.cache.Path(), kind, key)); err == nil {
			used[key] = fi.ModTime()
		}
	}
	used[k] = time.Now()
	slices.SortFunc(keys, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, key := range keys[min(keep, len(keys)):] {
		err = errors.Join(err, s.cache.Remove(kind, key))
	}
	return err
}

// Remove deletes the template of a kind, which did not work.
func (s Store) Remove(k string) error { return s.cache.Remove(kind, k) }
