package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"bawn.dev/bawn/internal/disk"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/text"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// The start of a sandbox.
//
// Theory of operation. The chain of a start is, one verb a level:
//
//	engine      the verbs' start, in the process of the command line
//	launch.Start                  starts the supervisor's process
//	Run, live                     the supervisor's life
//	prepare                       gets a machine and makes it the sandbox
//	  obtainMachine               resumes, restores or boots
//	    startOrRestore, runMachine  one attempt of it
//	  adopt                       sets up network, shares and guest, opens SSH
//
// There are three ways to a machine whose agent answers, the quickest first:
//
//   - resume: the sandbox was suspended, and continues where it was (suspend.go).
//   - restore: there is a template of the machine's kind (package template). A fresh
//     sandbox starts from the template's point Ready, at which the guest is set up but for
//     its identity; one that has used its disk starts from the point Bare, because its
//     disk would not fit to the guest's memory of another.
//   - boot: a cold start.
//
// A way that fails leaves nothing behind and gives way to the next one. A template from
// which a machine did not become a sandbox is removed, so that it is in the way of no
// later start; another is made after the cold start.
//
// A pool member comes to its machine by restore, long before there is a sandbox
// (poolmember.go).

// prepare gets the sandbox's machine and makes it the sandbox.
func (s *supervisor) prepare(ctx context.Context) error {
	plan, err := s.planMachine(ctx)
	if err != nil {
		return err
	}
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	templates := template.Open(cache)
	if err := s.obtainMachine(ctx, plan, templates); err != nil {
		return err
	}
	err = s.adopt(ctx)
	if err == nil || !s.source.template || ctx.Err() != nil {
		return err
	}
	s.invalidateTemplate(templates, err) // what went wrong may be the template's fault
	s.discardMachine()
	if err := s.startOrRestore(ctx, plan, nil); err != nil {
		return err
	}
	return s.adopt(ctx)
}

// planMachine finds out what the machine runs on, and describes it.
func (s *supervisor) planMachine(ctx context.Context) (*qemu.Machine, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	s.report(handoff.StartEvent{Stage: "checking the accelerator"})
	p := &s.platform
	if p.accel, err = qemu.Accelerator(ctx, cache); err != nil {
		return nil, err
	}
	if p.binary, err = qemu.Find(ctx, cache); err != nil {
		return nil, err
	}
	plan := vm.Describe(p.binary, p.accel, s.spec)
	setup := vm.SetupRequest(s.spec, s.user)
	if p.kind, err = vm.Kind(p.binary, plan, s.spec, setup); err == nil && p.accel.Unsettled {
		underKVM := vm.Describe(p.binary, qemu.Accel{Kind: qemu.KVM}, s.spec)
		p.kvmKind, err = vm.Kind(p.binary, underKVM, s.spec, setup)
	}
	return plan, err
}

// obtainMachine resumes the suspended machine, restores one from the template of its kind,
// or boots one, and returns when its agent answers.
func (s *supervisor) obtainMachine(ctx context.Context, plan *qemu.Machine, templates template.Store) error {
	var err error
	if s.source.resumed, err = s.resume(ctx, plan); s.source.resumed || err != nil {
		return err
	}
	if t := s.findTemplate(templates); t != nil {
		s.report(handoff.StartEvent{Stage: "restoring"})
		err := s.startOrRestore(ctx, plan, t)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.invalidateTemplate(templates, err)
	} else {
		s.report(handoff.StartEvent{Stage: "booting"})
	}
	return s.startOrRestore(ctx, plan, nil)
}

// findTemplate returns the template that the machine can start from, or nil.
func (s *supervisor) findTemplate(templates template.Store) *template.Template {
	if !handoff.TemplatesEnabled() {
		return nil
	}
	t, err := templates.Lookup(s.platform.kind)
	if err != nil {
		s.log.Info("cold start", "why", err)
		return nil
	}
	return t
}

// invalidateTemplate removes a template from which a machine did not become a sandbox.
func (s *supervisor) invalidateTemplate(templates template.Store, err error) {
	s.log.Warn("the template does not work: booting instead", "error", err)
	s.report(handoff.StartEvent{Stage: "the template does not work: booting"})
	if err := templates.Remove(s.platform.kind); err != nil {
		s.log.Warn("remove the template", "error", err)
	}
}

// discardMachine ends a machine from a template and all that was opened for it, so that
// another can take its place.
func (s *supervisor) discardMachine() {
	s.machine.Kill()
	s.closeSSH() // its connections go through the agent's client, which waits for them
	s.closePorts()
	err := s.machine.destroy()
	s.log.Info("discarding the machine", "ended", err)
	s.machine, s.source = nil, source{}
	s.killShares()
	s.ports = nil
	s.closeNetwork()
	s.network = nil
}

// startPoint returns the point of the template from which the sandbox starts.
func (s *supervisor) startPoint() template.Point {
	if s.spec.Fresh {
		return template.Ready
	}
	return template.Bare
}

// startOrRestore restores the machine from the template, or boots it where t is nil, and
// returns when its agent answers. After an error nothing of the machine is left.
func (s *supervisor) startOrRestore(ctx context.Context, plan *qemu.Machine, t *template.Template) error {
	if err := s.makeDisk(t); err != nil {
		return err
	}
	if t == nil {
		return s.runMachine(ctx, plan, nil, nil)
	}
	from := &vm.Origin{What: "template", Source: vm.AtPoint{Template: t, Point: s.startPoint()}}
	served, err := s.startTemplateShares(ctx, from, t.Meta.Shares[s.startPoint()])
	if err != nil {
		return err
	}
	if err := s.runMachine(ctx, plan, from, nil); err != nil {
		_ = served() // a server must have started before it can be ended
		s.killShares()
		return err
	}
	s.source.template, s.source.ready = true, s.startPoint() == template.Ready
	return nil
}

// makeDisk makes the sandbox's own disk ready for a start from the template, or for a boot
// where t is nil.
func (s *supervisor) makeDisk(t *template.Template) error {
	path := s.dir.File(store.DiskFile)
	if s.spec.Fresh {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if t == nil || s.startPoint() != template.Ready {
		if err := disk.Ensure(path, s.spec.Disk); err != nil {
			return fmt.Errorf("disk of the sandbox: %w", err)
		}
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(s.spec.Disk); err != nil {
		return err
	}
	return t.UnpackDisk(f)
}

// startTemplateShares gives a machine from a template its shares in the places of those
// that were detached before the template was saved; saved is nil if there were none. Their
// servers start while QEMU does. The returned function waits until they have started, and
// must be called.
func (s *supervisor) startTemplateShares(ctx context.Context, from *vm.Origin, saved json.RawMessage) (served func() error, err error) {
	if saved == nil {
		return func() error { return nil }, nil
	}
	var shares []snapshot.Share
	if err := json.Unmarshal(saved, &shares); err != nil {
		return nil, fmt.Errorf("shares of the template: %w", err)
	}
	plans, err := shareserver.Plans(s.spec, s.dir)
	if err != nil {
		return nil, err
	}
	if want := len(s.spec.Shared()); len(shares) != want || len(plans) < want {
		return nil, fmt.Errorf("the template has %d shares instead of %d", len(shares), want)
	}
	plans = plans[:len(shares)] // those of agents are plugged later
	done := make(chan error, 1)
	s.tasks.Go(func() { done <- s.takeOverShares(ctx, plans, shares, false) })
	served = sync.OnceValue(func() error { return <-done })
	from.Before = func(ctx context.Context, p *qemu.Process) error {
		if err := served(); err != nil {
			return err
		}
		return shareserver.Attach(ctx, p, s.shares, shares)
	}
	return served, nil
}

// runMachine starts QEMU on the sandbox's disk, from where the machine was saved unless
// from is nil, and returns when the agent answers and then, unless that is nil, has
// returned. After an error nothing of the machine is left, but for one that boots: that is
// kept for startError.
func (s *supervisor) runMachine(ctx context.Context, plan *qemu.Machine, from *vm.Origin, then func(context.Context) error) error {
	ctx, cancelStart := context.WithTimeoutCause(ctx, bootLimit, errBoot)
	defer cancelStart()
	m, err := s.startQEMU(ctx, *plan, from)
	if err != nil {
		return err
	}
	s.machine = m
	if from == nil {
		m.watch(s.machineEnded)
		return s.greet(ctx)
	}
	// A restored machine may never answer.
	limited, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	err = s.greet(limited)
	if err == nil && then != nil {
		err = then(limited)
	}
	if err != nil {
		err = errors.Join(err, m.destroy())
		s.machine = nil
	}
	return err
}

// bootLimit is how long a machine may take to start, up to the first answer of its agent. On a
// busy host with software emulation a boot can take minutes.
const bootLimit = 15 * time.Minute

// errBoot is the cause with which a start ends that took too long.
var errBoot = fmt.Errorf("the guest's agent did not answer within %v", bootLimit)

// restoreLimit is how long a restored agent may take to answer. It only has to continue
// where it was; on a busy host with software emulation that can take seconds.
const restoreLimit = time.Minute

// startQEMU opens what the machine needs and starts its process.
func (s *supervisor) startQEMU(ctx context.Context, plan qemu.Machine, from *vm.Origin) (*machine, error) {
	disks, closeDisks, err := vm.OpenDisks(&s.spec.Boot, s.dir.File(store.DiskFile))
	if err != nil {
		return nil, err
	}
	defer closeDisks()
	plan.Disks = disks
	ram, err := memory.New(plan.Memory)
	if err != nil {
		return nil, err
	}
	plan.RAM = ram
	c, err := vm.Connect(&plan)
	if err != nil {
		ram.Close()
		return nil, err
	}
	out := keepConsole(c.Console, s.console)
	start := func(m *qemu.Machine) (*qemu.Process, error) { return m.Start(ctx, s.self, s.spawner) }
	var p *qemu.Process
	if from == nil {
		p, err = start(&plan)
	} else {
		p, err = from.Restore(ctx, &plan, start)
	}
	if err != nil {
		ram.Close()
		c.Close()
		out.wait()
		return nil, err
	}
	m := newMachine(p, ram, c, out, s.log)
	if err := s.serveGDB(m, p); err != nil {
		s.log.Warn("no debugger can attach to the machine", "error", err)
	}
	return m, nil
}

// maxKernelName bounds the name that a guest gives its kernel, in characters.
const maxKernelName = 200

// greet waits until the agent answers.
func (s *supervisor) greet(ctx context.Context) error {
	var hello wire.HelloReply
	if err := s.machine.agent.Call(ctx, wire.OpHello, struct{}{}, &hello); err != nil {
		return err
	}
	s.machine.kernel = text.Short(hello.Kernel, maxKernelName)
	return nil
}

// adoptLimit is how long a guest whose agent answers may take to become the sandbox: to be set
// up, and to mount what is shared. It is a variable for tests.
var adoptLimit = 5 * time.Minute

// errAdopt is the cause with which an adoption ends that took too long.
var errAdopt = fmt.Errorf("the guest's agent answers, but was not ready after %v", adoptLimit)

// adopt turns a machine, whose agent already answers, into this sandbox. It takes adoptLimit
// at most.
func (s *supervisor) adopt(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, adoptLimit, errAdopt)
	defer cancel()
	if err := s.openNetwork(); err != nil {
		return err
	}
	s.ports = publish.New(s.spec.Loopbacks(), s.machine.agent.DialTCP, s.machine.agent.WatchPorts, s.log)
	switch {
	case s.source.resumed:
		if !slices.Equal(s.source.localDirs, s.spec.LocalDirs) { // changed while it was suspended
			if err := s.mountLocalDirs(ctx); err != nil {
				return err
			}
		}
		return s.startSSH(ctx)
	case s.source.ready:
		return s.configureGuest(ctx)
	}
	s.report(handoff.StartEvent{Stage: "setting up"})
	if err := s.identify(ctx); err != nil {
		return err
	}
	s.report(handoff.StartEvent{Stage: "mounting"})
	if err := s.mountAll(ctx); err != nil {
		return err
	}
	return s.startSSH(ctx)
}

// configureGuest completes adopt for a guest that is set up already. It sends all requests at
// once; the agent waits where one request needs another.
func (s *supervisor) configureGuest(ctx context.Context) error {
	s.report(handoff.StartEvent{Stage: "setting up"})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.identify(ctx) })
	g.Go(func() error { return s.startSSH(ctx) })
	g.Go(func() error { return s.mountAll(ctx) })
	return g.Wait()
}

// mountAll gives the machine the shares that it was not restored with, and mounts all.
func (s *supervisor) mountAll(ctx context.Context) error {
	if err := s.plugShares(ctx); err != nil {
		return err
	}
	if err := s.mountShares(ctx); err != nil {
		return err
	}
	if len(s.spec.LocalDirs) == 0 {
		return nil
	}
	return s.mountLocalDirs(ctx)
}

// startSSH begins the session that carries streams into the guest, and opens the SSH
// socket.
func (s *supervisor) startSSH(ctx context.Context) error {
	if err := s.machine.agent.StartMux(ctx); err != nil {
		return err
	}
	return s.openSSH()
}

// identify gives the guest the sandbox's identity, and sets it up unless it is.
func (s *supervisor) identify(ctx context.Context) error {
	id, err := s.identity()
	if err != nil {
		return err
	}
	if s.source.ready {
		err = s.machine.agent.Call(ctx, wire.OpIdentify, id, nil)
	} else {
		r := vm.SetupRequest(s.spec, s.user)
		r.Identity = *id
		err = s.machine.agent.Call(ctx, wire.OpSetup, r, nil)
	}
	if err != nil || !s.spec.Fresh {
		return err
	}
	// From here on, what is on the disk is the user's.
	s.spec.Fresh = false
	return s.dir.WriteSpec(s.spec)
}
