// Package kernel fetches the guest's kernel: Debian's cloud kernel, in the form
// that QEMU boots fastest.
//
// The package comes through apt, which checks Debian's signatures. From it are
// made, without any rights:
//
//   - the uncompressed kernel. On x86-64 that is the ELF vmlinux inside the bzImage,
//     which QEMU enters by the PVH protocol: under software emulation the kernel would
//     take a second to unpack itself. On arm64 it is the Image.
//   - a read-only ext4 disk with lib/modules/VERSION, modules uncompressed (the
//     guest would spend longer on xz than on loading), without the signatures
//     that the guest would check (apt has checked the package), and indexed by
//     depmod.
//   - the few modules that the guest needs before that disk can be mounted.
//
// Not safe: an uncompressed vmlinux has no kernel address randomization (the
// decompressor does it). The guest's kernel is the attacker's own in bawn's
// threat model, so nothing is lost by that.
package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bawn.dev/bawn/internal/cache"
	"bawn.dev/bawn/internal/debian"
	"bawn.dev/bawn/internal/progress"
)

// recipe changes when bawn makes other files from the same package: kernels made by an
// older bawn are then made again.
const recipe = "2"

// Names in the cache.
const (
	kind        = "kernel"
	current     = "kernel" // the pointer to the kernel in use, and the lock
	imageFile   = "vmlinux"
	modulesFile = "modules.ext4"
	bootFolder  = "boot"
)

// rootModules are needed before the root file system is mounted. Those that are
// built into the kernel are left out, and what they depend on is added.
var rootModules = []string{"virtio_blk", "overlay", "virtio_net"}

// Kernel is what a guest boots.
type Kernel struct {
	Version     string   // as uname -r prints it
	Image       string   // path of the kernel for QEMU's -kernel
	Modules     string   // path of the read-only ext4 disk that holds lib/modules/VERSION
	BootModules []string // paths of the modules to load first, in this order
	Digest      string   // sha256:HEX over all of these
}

// Store keeps kernels in a cache.
type Store struct {
	cache cache.Dir
	arch  string // Debian's name
}

// Open returns the store in bawn's cache folder, which need not exist.
func Open(path string) *Store {
	return &Store{cache: cache.Open(path), arch: debian.Arch()}
}

// meta is the cache's metadata of a kernel.
type meta struct {
	Version string `json:"version"`
	Package string `json:"package"` // version of the Debian package
}

// pointer names the entry in use. Recipe is that of the bawn that wrote it.
type pointer struct {
	Key    string `json:"key"`
	Recipe string `json:"recipe"`
}

func (s *Store) pointerName() string { return current + "-" + s.arch }

// Kernel returns the kernel in the cache, without the network. It fetches the newest one
// if there is none or it is damaged.
func (s *Store) Kernel(ctx context.Context, r progress.Reporter) (*Kernel, error) {
	return s.fetchUnless(ctx, s.cached, r)
}

// Refresh fetches the newest kernel of the Debian release, or does nothing if the cache
// has it. Sandboxes that run keep theirs until they are started again.
func (s *Store) Refresh(ctx context.Context, r progress.Reporter) (*Kernel, error) {
	return s.fetchUnless(ctx, func() (*Kernel, error) { return nil, cache.ErrAbsent }, r)
}

// fetchUnless returns what present finds, or makes the newest kernel the current one.
func (s *Store) fetchUnless(ctx context.Context, present func() (*Kernel, error), r progress.Reporter) (*Kernel, error) {
	return cache.Once(ctx, s.cache, s.pointerName(), r, present, func(dir string) (*Kernel, error) {
		return s.fetch(ctx, dir, r)
	})
}

// At returns the kernel whose image is the file at path: that of a suspended machine,
// which may not be the newest. The error wraps cache.ErrAbsent when the cache does not
// hold it any more.
func (s *Store) At(path string) (*Kernel, error) {
	e, err := s.cache.Lookup(kind, filepath.Base(filepath.Dir(path)))
	if err != nil {
		return nil, err
	}
	k, err := fromEntry(e)
	if err == nil && k.Image != path {
		return nil, fmt.Errorf("%s: %w", path, cache.ErrAbsent)
	}
	return k, err
}

// Has reports whether the cache holds the kernel that Kernel returns, whole.
func (s *Store) Has() bool {
	_, err := s.cached()
	return err == nil
}

func (s *Store) cached() (*Kernel, error) {
	var p pointer
	if err := s.cache.Pointer(kind, s.pointerName(), &p); err != nil {
		return nil, err
	}
	if p.Recipe != recipe {
		return nil, fmt.Errorf("the kernel of an older bawn: %w", cache.ErrAbsent)
	}
	e, err := s.cache.Lookup(kind, p.Key)
	if err != nil {
		return nil, err
	}
	return fromEntry(e)
}

// fetch makes the newest kernel the current one, with dir to work in. The caller holds the
// lock.
func (s *Store) fetch(ctx context.Context, dir string, r progress.Reporter) (*Kernel, error) {
	p, err := s.find(ctx, dir, r)
	if err != nil {
		return nil, fmt.Errorf("guest kernel: %w", err)
	}
	e, err := s.cache.Lookup(kind, p.key(s.arch))
	if err != nil {
		if e, err = s.make(ctx, dir, p, r); err != nil {
			return nil, fmt.Errorf("guest kernel: %w", err)
		}
	}
	if err := s.cache.Point(kind, s.pointerName(), pointer{Key: e.Key, Recipe: recipe}); err != nil {
		return nil, err
	}
	e.Used()
	if err := s.cache.Trim(kind, keep); err != nil {
		return nil, err
	}
	return fromEntry(e)
}

// keep is how many kernels stay in the cache: the newest, and earlier ones that sandboxes
// may still run. One takes some 170 MB.
const keep = 3

// pkg is the kernel package to fetch.
type pkg struct {
	apt     *debian.Apt
	name    string
	version string
	size    int64
}

func (p *pkg) key(arch string) string {
	return strings.NewReplacer("/", "_", ":", "_").Replace(p.version) + "-" + arch + "-r" + recipe
}

// find asks the mirror which package is the newest kernel: the one that the
// package linux-image-cloud-ARCH depends on.
func (s *Store) find(ctx context.Context, dir string, r progress.Reporter) (_ *pkg, err error) {
	const hundred = 100
	task := r.Start("Looking for the guest kernel", hundred, progress.Steps)
	defer func() { task.Done(err) }()
	m, err := debian.Host(ctx)
	if err != nil {
		return nil, err
	}
	apt, err := debian.NewApt(ctx, filepath.Join(dir, "apt"), s.arch, m)
	if err != nil {
		return nil, err
	}
	if err := apt.Update(ctx, advance(task, hundred)); err != nil {
		return nil, err
	}
	deps, err := apt.Depends(ctx, "linux-image-cloud-"+s.arch)
	if err != nil {
		return nil, err
	}
	p := &pkg{apt: apt}
	for _, d := range deps {
		if strings.HasPrefix(d, "linux-image-") {
			p.name = d
		}
	}
	if p.name == "" {
		return nil, fmt.Errorf("the mirror has no linux-image-cloud-%s in %s", s.arch, debian.Suite)
	}
	if p.version, err = apt.Candidate(ctx, p.name); err != nil {
		return nil, err
	}
	p.size, err = apt.Size(ctx, p.name)
	return p, err
}

// make fetches and converts the package, and puts the result into the cache.
func (s *Store) make(ctx context.Context, dir string, p *pkg, r progress.Reporter) (*cache.Entry, error) {
	task := r.Start("Fetching the guest kernel", p.size, progress.Bytes)
	task.Note(p.name)
	deb, err := p.apt.Download(ctx, p.name, advance(task, p.size))
	task.Done(err)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "out")
	if err := os.MkdirAll(filepath.Join(out, bootFolder), 0o700); err != nil {
		return nil, err
	}
	task = r.Start("Unpacking the guest kernel", 0, progress.Steps)
	version, err := convert(ctx, deb, filepath.Join(dir, "tree"), out, task)
	task.Done(err)
	if err != nil {
		return nil, err
	}
	return s.cache.Commit(kind, p.key(s.arch), out, meta{Version: version, Package: p.version})
}

// advance returns a function that takes percentages and adds to a task of that total.
func advance(task progress.Task, total int64) func(percent float64) {
	var done int64
	return func(percent float64) {
		now := min(total, int64(percent/100*float64(total)))
		if now > done {
			task.Add(now - done)
			done = now
		}
	}
}

func fromEntry(e *cache.Entry) (*Kernel, error) {
	var m meta
	if err := json.Unmarshal(e.Meta, &m); err != nil {
		return nil, fmt.Errorf("kernel in the cache: %w", err)
	}
	k := &Kernel{Version: m.Version, Image: e.File(imageFile), Modules: e.File(modulesFile), Digest: digest(e)}
	for _, name := range fileNames(e) {
		if strings.HasPrefix(name, bootFolder+"/") {
			k.BootModules = append(k.BootModules, e.File(name))
		}
	}
	return k, nil
}

// digest returns a digest of the names and hashes of the entry's files.
func digest(e *cache.Entry) string {
	h := sha256.New()
	for _, name := range fileNames(e) {
		fmt.Fprintf(h, "%s %s\n", e.Files[name].SHA256, name)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// fileNames returns the names of the entry's files, sorted.
func fileNames(e *cache.Entry) []string { return slices.Sorted(maps.Keys(e.Files)) }
