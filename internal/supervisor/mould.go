package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"brig.dev/brig/internal/confine"
	"brig.dev/brig/internal/qemu"
	"brig.dev/brig/internal/sandbox"
	"brig.dev/brig/internal/template"
	"brig.dev/brig/internal/wire"
)

// Making templates. After a cold start the command line launches a process that
// boots a second machine of the same kind, at the lowest priority, readies it
// and saves it. The process ends by itself: when it is done, when it failed, or
// at makeLimit.

// TemplateVerb is the hidden verb of the process that makes a template.
const TemplateVerb = "__template"

// templateEnv turns templates off where it is "off".
const templateEnv = "BRIG_TEMPLATES"

func templatesOn() bool { return os.Getenv(templateEnv) != "off" }

// makeLimit ends a template's making that hangs. A boot at the lowest priority
// beside busy sandboxes takes long under software emulation.
const makeLimit = 15 * time.Minute

// makeNice is the priority of the making (setpriority(2)): the lowest.
const makeNice = 19

// LaunchTemplate starts the making of the template that the sandbox in d could
// have started from, unless there is one. It does not wait.
func LaunchTemplate(d sandbox.Dir) error {
	if !templatesOn() {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(d.File(sandbox.SupervisorLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(self, TemplateVerb, d.Path)
	cmd.Dir = "/"
	cmd.Env = supervisorEnv()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	return cmd.Process.Release()
}

// MakeTemplate makes the template that a sandbox like the one in d starts from.
func MakeTemplate(ctx context.Context, d sandbox.Dir) error {
	ctx, cancel := context.WithTimeout(ctx, makeLimit)
	defer cancel()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, makeNice); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	spec, err := d.Spec()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cache, err := sandbox.CacheDir()
	if err != nil {
		return err
	}
	m := &mould{spec: spec, self: self, log: slog.New(slog.NewTextHandler(os.Stderr, logOptions()))}
	defer m.close()
	if err := m.prepare(ctx, cache); err != nil {
		return err
	}
	kind, err := kindOf(m.binary, m.machine, spec)
	if err != nil {
		return err
	}
	if err := checkSpace(cache, spec.Memory); err != nil {
		return err
	}
	return template.Open(cache).Make(ctx, kind, func(ctx context.Context) (template.Source, error) {
		return m, m.boot(ctx)
	})
}

// checkSpace makes sure that a template would not fill the disk.
func checkSpace(dir string, memory int64) error {
	want := min(memory, 512<<20) // some 120 MB are usual
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < 2*want { //nolint:gosec // below 8 EiB
		return fmt.Errorf("no template is made: only %s are free in %s", sandbox.FormatSize(free), dir)
	}
	return nil
}

// mould is the machine that becomes a template.
type mould struct {
	spec    *sandbox.Spec
	self    string
	log     *slog.Logger
	binary  qemu.Binary
	machine *qemu.Machine

	process *qemu.Process
	agent   *agent
	kernel  string
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

// prepare describes the machine, with a disk of the right size that holds
// nothing.
func (m *mould) prepare(ctx context.Context, cache string) error {
	var err error
	if m.binary, err = qemu.Find(ctx, cache); err != nil {
		return err
	}
	accel, err := qemu.Accelerator(ctx, cache)
	if err != nil {
		return err
	}
	blank, err := qemu.NewRAM(m.spec.Disk) // in memory, where nothing is left behind
	if err != nil {
		return err
	}
	defer blank.Close()
	m.machine = describe(m.binary, accel, m.spec)
	disks, closeDisks, err := openDisks(&m.spec.Boot, fmt.Sprintf("/proc/self/fd/%d", blank.Fd()))
	if err != nil {
		return err
	}
	m.machine.Disks = disks
	m.cleanup = append(m.cleanup, closeDisks)
	return nil
}

// boot brings the machine to where it is saved.
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
	if m.process, err = m.machine.Start(ctx, m.self, confine.NewSpawner()); err != nil {
		return err
	}
	m.agent = newAgent(c.control, c.mux, m.log)
	var hello wire.HelloReply
	if err := m.agent.call(ctx, wire.OpHello, struct{}{}, &hello); err != nil {
		return err
	}
	m.kernel = printable(hello.Kernel)
	err = m.agent.call(ctx, wire.OpPrepare, wire.PrepareRequest{ImageSerial: serialImage, ModulesSerial: serialModules}, nil)
	if err != nil {
		return err
	}
	return settle(ctx, ram)
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
		var st unix.Stat_t
		if err := unix.Fstat(int(ram.Fd()), &st); err != nil {
			return err
		}
		if quiet++; st.Blocks != last {
			last, quiet = st.Blocks, 0
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

// Save implements template.Source.
func (m *mould) Save(ctx context.Context, state, ram io.Writer) (template.Meta, error) {
	meta := template.Meta{Kernel: m.kernel, Made: time.Now().UTC()}
	if err := m.process.SaveState(ctx, state); err != nil {
		return meta, err
	}
	n, err := qemu.PackRAM(ram, m.machine.RAM)
	m.log.Info("template", "bytes", n)
	return meta, err
}
