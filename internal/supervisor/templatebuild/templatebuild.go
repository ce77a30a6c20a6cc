// Package templatebuild makes templates: saved machines from which sandboxes start instead
// of booting (package template).
//
// After a cold start the command line launches a process that boots a second machine of
// the same kind, at the lowest priority, prepares it and saves it, at each of the points
// of package template. The process ends when it is done, when it failed, or at makeLimit.
package templatebuild

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/disk"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/diskuse"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/text"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// makeLimit ends the building of a template that hangs. A boot at the lowest priority
// beside busy sandboxes takes long under software emulation.
const makeLimit = 15 * time.Minute

// makeNice is the priority of the making (setpriority(2)): the lowest. sessionNice
// is that of its session beside others.
const (
	makeNice    = 19
	sessionNice = handoff.BackgroundNice
)

// Launch starts a background process that makes the template that the sandbox in d could
// have started from, unless there is one, and returns at once. It does nothing where
// templates are off.
func Launch(d store.Dir) error {
	if !handoff.TemplatesEnabled() {
		return nil
	}
	return launch.Beside(d, handoff.TemplateVerb)
}

// Make makes the template that sandboxes of the kind of spec start from. It lowers the
// priority of the whole process for good.
func Make(ctx context.Context, spec *sandbox.Spec, user wire.User) error {
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	if err := lowerPriority(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	b := &builder{
		spec: spec, user: user, self: self, spawner: proc.NewSpawner(), saved: map[template.Point]json.RawMessage{},
		log: slog.New(slog.NewTextHandler(os.Stderr, handoff.LogOptions())),
	}
	defer b.close()
	if err := b.prepare(ctx, cache); err != nil {
		return err
	}
	kind, err := vm.Kind(b.binary, b.machine, spec, vm.SetupRequest(spec, user))
	if err != nil {
		return err
	}
	if err := checkSpace(cache, spec.Memory); err != nil {
		return err
	}
	return template.Open(cache).Make(ctx, kind, b.build)
}

// lowerPriority gives this process and its children the lowest priority, and its
// session a lower one, where the kernel makes groups of sessions: without it, a
// priority counts only within the session (sched(7), autogroup).
func lowerPriority() error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, makeNice); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(sessionNice)), 0) // it exists, or nothing happens
	return nil
}

// checkSpace makes sure that a template would not fill the disk.
func checkSpace(dir string, memory int64) error {
	want := min(memory, 512<<20) // some 120 MB are usual
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < 2*want {
		return fmt.Errorf("no template was built: only %s are free in %s", size.Format(free), dir)
	}
	return nil
}

// builder holds the machine that becomes a template.
type builder struct {
	spec    *sandbox.Spec
	user    wire.User
	self    string
	spawner *proc.Spawner
	log     *slog.Logger
	binary  qemu.Binary
	machine *qemu.Machine

	process *qemu.Process
	agent   *agent.Client
	kernel  string
	shares  []*shareserver.Server // of an empty directory: so that the guest has the devices
	saved   map[template.Point]json.RawMessage
	cleanup []func() // in reverse
}

// close ends the machine and all that was opened for it, and returns when it is gone.
func (b *builder) close() {
	if b.process != nil {
		b.process.Kill()
		_ = b.process.Wait() // killed: nothing to learn
	}
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		b.cleanup[i]()
	}
}

// prepare describes the machine.
func (b *builder) prepare(ctx context.Context, cache string) error {
	var err error
	if b.binary, err = qemu.Find(ctx, cache); err != nil {
		return err
	}
	accel, err := qemu.Accelerator(ctx, cache)
	if err != nil {
		return err
	}
	b.machine = vm.Describe(b.binary, accel, b.spec)
	return nil
}

// build boots the machine and saves it at both points.
func (b *builder) build(ctx context.Context, d *template.Draft) (template.Meta, error) {
	var none template.Meta
	disk, err := b.openDisks()
	if err != nil {
		return none, err
	}
	if err := b.runMachine(ctx); err != nil {
		return none, err
	}
	common := wire.PrepareRequest{ImageSerial: vm.SerialImage, ModulesSerial: vm.SerialModules}
	if common.Tags, err = b.plugShares(ctx); err != nil {
		return none, err
	}
	if err := b.agent.Call(ctx, wire.OpPrepare, common, nil); err != nil {
		return none, err
	}
	detached, err := b.save(ctx, d, template.Bare, nil)
	if err != nil {
		return none, err
	}
	if err := shareserver.Attach(ctx, b.process, b.shares, detached); err != nil {
		return none, err
	}
	if err := b.process.Resume(ctx); err != nil {
		return none, err
	}
	if err := b.agent.Call(ctx, wire.OpSetup, b.setup(), nil); err != nil {
		return none, err
	}
	if err := b.agent.Call(ctx, wire.OpQuiesce, struct{}{}, nil); err != nil {
		return none, err
	}
	if _, err := b.save(ctx, d, template.Ready, disk); err != nil {
		return none, err
	}
	b.log.Info("template", "memory", size.Format(diskuse.OfFile(b.machine.RAM)))
	return template.Meta{Kernel: b.kernel, Made: time.Now().UTC(), Shares: b.saved}, nil
}

// plugShares plugs as many shares as the sandbox has, of an empty directory, where they
// can be detached again for a save. It returns their tags.
func (b *builder) plugShares(ctx context.Context) (tags []string, err error) {
	if !b.machine.CanDetachShares() {
		return nil, nil
	}
	dir, err := os.MkdirTemp(proc.TempDir(), "bawn-template-*")
	if err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, func() { _ = os.Remove(dir) })
	for i := range 1 + len(b.spec.Mounts) {
		plan := shareserver.Plan{Options: share.Options{Root: dir}, Mount: wire.Mount{Tag: shareserver.Tag(i)}}
		sh, err := shareserver.Start(b.self, b.spawner, plan, func(err error) { b.lost(dir, err) })
		if err != nil {
			return nil, err
		}
		b.cleanup = append(b.cleanup, sh.Kill)
		b.shares = append(b.shares, sh)
		if err := sh.Plug(ctx, b.process); err != nil {
			return nil, err
		}
		tags = append(tags, plan.Mount.Tag)
	}
	return tags, nil
}

// lost ends the machine, which hangs without a server.
func (b *builder) lost(dir string, err error) {
	b.log.Error("the share server ended for "+dir, "error", err)
	b.process.Kill()
}

// save saves the machine, which stays paused, and returns the shares that were
// detached for it.
func (b *builder) save(ctx context.Context, d *template.Draft, p template.Point, disk *os.File) ([]snapshot.Share, error) {
	if err := settle(ctx, b.machine.RAM); err != nil {
		return nil, err
	}
	if err := b.process.Pause(ctx); err != nil {
		return nil, err
	}
	detached, err := shareserver.Detach(ctx, b.process, b.shares)
	if err != nil {
		return nil, err
	}
	if detached != nil {
		if b.saved[p], err = json.Marshal(detached); err != nil {
			return nil, err
		}
	}
	return detached, d.Save(p, func(w io.Writer) error { return b.process.SaveState(ctx, w) }, b.machine.RAM, disk)
}

// setup returns a sandbox's set-up with an identity that no sandbox has, and without keys
// and addresses.
func (b *builder) setup() wire.SetupRequest {
	r := vm.SetupRequest(b.spec, b.user)
	seed := make([]byte, 64)
	_, _ = rand.Read(seed) // never fails (crypto/rand)
	r.Identity = wire.Identity{Hostname: "template", MachineID: vm.MachineID("template"), Seed: seed, Time: time.Now()}
	return r
}

// openDisks opens the disks, with an empty one in the place of a sandbox's own.
func (b *builder) openDisks() (own *os.File, err error) {
	dir, err := os.MkdirTemp(proc.TempDir(), "bawn-template-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // it stays open
	path := filepath.Join(dir, store.DiskFile)
	if err := disk.New(path, b.spec.Disk); err != nil {
		return nil, err
	}
	disks, closeDisks, err := vm.OpenDisks(&b.spec.Boot, path)
	if err != nil {
		return nil, err
	}
	b.cleanup = append(b.cleanup, closeDisks)
	b.machine.Disks = disks
	return disks[len(disks)-1].File, nil
}

// maxKernelName bounds the name that a guest gives its kernel, in characters.
const maxKernelName = 200

// runMachine boots the machine, and returns when its agent answers.
func (b *builder) runMachine(ctx context.Context) error {
	ram, err := memory.New(b.spec.Memory)
	if err != nil {
		return err
	}
	b.cleanup = append(b.cleanup, func() { ram.Close() })
	b.machine.RAM = ram
	c, err := vm.Connect(b.machine)
	if err != nil {
		return err
	}
	var drains sync.WaitGroup // what the guest prints and sends to its network is of no use
	for _, from := range []io.Reader{c.Console, c.Link} {
		drains.Go(func() { _, _ = io.Copy(io.Discard, from) })
	}
	b.cleanup = append(b.cleanup, func() { c.Close(); drains.Wait() })
	if b.process, err = b.machine.Start(ctx, b.self, b.spawner); err != nil {
		return err
	}
	b.agent = agent.New(c.Control, c.Mux, b.log)
	b.cleanup = append(b.cleanup, b.agent.Close)
	var hello wire.HelloReply
	if err := b.agent.Call(ctx, wire.OpHello, struct{}{}, &hello); err != nil {
		return err
	}
	b.kernel = text.Short(hello.Kernel, maxKernelName)
	return nil
}

// The guest gives memory that the boot freed back to the host some seconds later (free page
// reporting). A template is saved after that, because each restore copies what is left.
const (
	settlePoll  = 500 * time.Millisecond
	settleQuiet = 6                // polls without a change
	settleLimit = 30 * time.Second // whatever changes
)

// settle returns when the guest gives back no more memory, or after settleLimit.
func settle(ctx context.Context, ram *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	last, quiet := int64(-1), 0
	for quiet < settleQuiet {
		quiet++
		if now := diskuse.OfFile(ram); now != last {
			last, quiet = now, 0
		}
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return context.Cause(ctx)
			}
			return nil
		}
	}
	return nil
}
