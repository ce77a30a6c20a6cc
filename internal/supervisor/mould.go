package supervisor

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
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/confine"
	"bawn.dev/bawn/internal/image"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/share"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/sys/size"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// Making templates. After a cold start the command line launches a process that
// boots a second machine of the same kind, at the lowest priority, readies it
// and saves it. The process ends by itself: when it is done, when it failed, or
// at makeLimit.

// TemplateVerb is the hidden verb of the process that makes a template.
const TemplateVerb = "__template"

// templateEnv turns templates off where it is "off".
const templateEnv = "BAWN_TEMPLATES"

func templatesOn() bool { return os.Getenv(templateEnv) != "off" }

// makeLimit ends a template's making that hangs. A boot at the lowest priority
// beside busy sandboxes takes long under software emulation.
const makeLimit = 15 * time.Minute

// makeNice is the priority of the making (setpriority(2)): the lowest. sessionNice
// is that of its session beside others: a third of an ordinary one's share, so that
// it also comes to an end on a host that is always busy.
const (
	makeNice    = 19
	sessionNice = 5
)

// LaunchTemplate starts the making of the template that the sandbox in d could
// have started from, unless there is one. It does not wait.
func LaunchTemplate(d store.Dir) error {
	if !templatesOn() {
		return nil
	}
	return launchBeside(d, TemplateVerb)
}

// MakeTemplate makes the template that a sandbox like that of the spec starts from.
func MakeTemplate(ctx context.Context, spec *sandbox.Spec, user wire.User) error {
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
	m := &mould{spec: spec, user: user, self: self, spawner: confine.NewSpawner(), saved: map[template.Point]json.RawMessage{}, log: slog.New(slog.NewTextHandler(os.Stderr, logOptions()))}
	defer m.close()
	if err := m.prepare(ctx, cache); err != nil {
		return err
	}
	kind, err := kindOf(m.binary, m.machine, spec, common(spec, user))
	if err != nil {
		return err
	}
	if err := checkSpace(cache, spec.Memory); err != nil {
		return err
	}
	return template.Open(cache).Make(ctx, kind, m.build)
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
		return fmt.Errorf("no template is made: only %s are free in %s", size.Format(free), dir)
	}
	return nil
}

// mould is the machine that becomes a template.
type mould struct {
	spec    *sandbox.Spec
	user    wire.User
	self    string
	spawner *confine.Spawner
	log     *slog.Logger
	binary  qemu.Binary
	machine *qemu.Machine

	process *qemu.Process
	agent   *agent
	kernel  string
	shares  []*shareServer // of nothing: so that the guest has the devices already
	saved   map[template.Point]json.RawMessage
	cleanup []func()
}

func (m *mould) close() {
	if m.process != nil {
		m.process.Kill()
		_ = m.process.Wait() // killed: nothing to learn
	}
	for i := len(m.cleanup) - 1; i >= 0; i-- {
		m.cleanup[i]()
	}
}

// prepare describes the machine.
func (m *mould) prepare(ctx context.Context, cache string) error {
	var err error
	if m.binary, err = qemu.Find(ctx, cache); err != nil {
		return err
	}
	accel, err := qemu.Accelerator(ctx, cache)
	if err != nil {
		return err
	}
	m.machine = describe(m.binary, accel, m.spec)
	return nil
}

// build boots the machine and saves it at both points.
func (m *mould) build(ctx context.Context, d *template.Draft) (template.Meta, error) {
	var none template.Meta
	disk, err := m.openDisks()
	if err != nil {
		return none, err
	}
	if err := m.boot(ctx); err != nil {
		return none, err
	}
	common := wire.PrepareRequest{ImageSerial: serialImage, ModulesSerial: serialModules}
	if common.Tags, err = m.plugShares(ctx); err != nil {
		return none, err
	}
	if err := m.agent.call(ctx, wire.OpPrepare, common, nil); err != nil {
		return none, err
	}
	frozen, err := m.save(ctx, d, template.Bare, nil)
	if err != nil {
		return none, err
	}
	if err := putBack(ctx, m.process, m.shares, frozen); err != nil {
		return none, err
	}
	if err := m.process.Resume(ctx); err != nil {
		return none, err
	}
	if err := m.agent.call(ctx, wire.OpSetup, m.setup(), nil); err != nil {
		return none, err
	}
	if err := m.agent.call(ctx, wire.OpQuiesce, struct{}{}, nil); err != nil {
		return none, err
	}
	if _, err := m.save(ctx, d, template.Ready, disk); err != nil {
		return none, err
	}
	m.log.Info("template", "memory", size.Format(allocated(m.machine.RAM)))
	return template.Meta{Kernel: m.kernel, Made: time.Now().UTC(), Shares: m.saved}, nil
}

// plugShares plugs as many shares as the sandbox has, of an empty directory, where
// they can be taken out again for a save. It returns their tags.
func (m *mould) plugShares(ctx context.Context) (tags []string, err error) {
	if !m.machine.Freezable() {
		return nil, nil
	}
	dir, err := os.MkdirTemp("", "bawn-template-*")
	if err != nil {
		return nil, err
	}
	m.cleanup = append(m.cleanup, func() { _ = os.Remove(dir) })
	for i := range 1 + len(m.spec.Mounts) {
		plan := sharePlan{Options: share.Options{Root: dir}, Mount: wire.Mount{Tag: shareTag(i)}}
		sh, err := startShare(m.self, m.spawner, plan, func(err error) { m.lost(dir, err) })
		if err != nil {
			return nil, err
		}
		m.cleanup = append(m.cleanup, sh.kill)
		m.shares = append(m.shares, sh)
		if err := sh.plug(ctx, m.process); err != nil {
			return nil, err
		}
		tags = append(tags, plan.Mount.Tag)
	}
	return tags, nil
}

// lost ends the machine, which hangs without a server.
func (m *mould) lost(dir string, err error) {
	m.log.Error("lost the server of "+dir, "error", err)
	m.process.Kill()
}

// save saves the machine, which stays paused, and returns the shares that were
// taken out for it.
func (m *mould) save(ctx context.Context, d *template.Draft, p template.Point, disk *os.File) ([]snapshot.Share, error) {
	if err := settle(ctx, m.machine.RAM); err != nil {
		return nil, err
	}
	if err := m.process.Pause(ctx); err != nil {
		return nil, err
	}
	frozen, err := takeOut(ctx, m.process, m.shares)
	if err != nil {
		return nil, err
	}
	if frozen != nil {
		if m.saved[p], err = json.Marshal(frozen); err != nil {
			return nil, err
		}
	}
	return frozen, d.Save(ctx, p, m.process, m.machine.RAM, disk)
}

// setup is a sandbox's, but for its identity: keys and addresses are missing,
// and the names are nobody's.
func (m *mould) setup() wire.SetupRequest {
	r := common(m.spec, m.user)
	seed := make([]byte, 64)
	_, _ = rand.Read(seed) // never fails (crypto/rand)
	r.Identity = wire.Identity{Hostname: "template", MachineID: machineID("template"), Seed: seed, Time: time.Now()}
	return r
}

// openDisks opens the disks, with an empty one in the place of a sandbox's own.
func (m *mould) openDisks() (own *os.File, err error) {
	dir, err := os.MkdirTemp("", "bawn-template-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // it stays open
	path := filepath.Join(dir, store.DiskFile)
	if err := image.NewDisk(path, m.spec.Disk); err != nil {
		return nil, err
	}
	disks, closeDisks, err := openDisks(&m.spec.Boot, path)
	if err != nil {
		return nil, err
	}
	m.cleanup = append(m.cleanup, closeDisks)
	m.machine.Disks = disks
	return disks[len(disks)-1].File, nil
}

// boot brings the machine up, until its agent answers.
func (m *mould) boot(ctx context.Context) error {
	ram, err := qemu.NewRAM(m.spec.Memory)
	if err != nil {
		return err
	}
	m.cleanup = append(m.cleanup, func() { ram.Close() })
	m.machine.RAM = ram
	c, err := fit(m.machine)
	if err != nil {
		return err
	}
	m.cleanup = append(m.cleanup, c.close)
	go func() { _, _ = io.Copy(io.Discard, c.console) }()
	go func() { _, _ = io.Copy(io.Discard, c.link) }()
	if m.process, err = m.machine.Start(ctx, m.self, m.spawner); err != nil {
		return err
	}
	m.agent = newAgent(c.control, c.mux, m.log)
	var hello wire.HelloReply
	if err := m.agent.call(ctx, wire.OpHello, struct{}{}, &hello); err != nil {
		return err
	}
	m.kernel = printable(hello.Kernel)
	return nil
}

// Settling: what the boot freed goes back to the host some seconds later (free
// page reporting), and what has gone need not be copied at each restore.
const (
	settlePoll  = 500 * time.Millisecond
	settleQuiet = 6                // polls without a change
	settleLimit = 30 * time.Second // whatever changes
)

func settle(ctx context.Context, ram *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	last, quiet := int64(-1), 0
	for quiet < settleQuiet {
		quiet++
		if now := allocated(ram); now != last {
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

// allocated is how many bytes of a file are no holes.
func allocated(f *os.File) int64 {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0
	}
	return st.Blocks * 512 // stat(2)
}
