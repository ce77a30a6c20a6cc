package supervisor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"bawn.dev/bawn/internal/disk"
	"bawn.dev/bawn/internal/memory"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/text"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// boot brings the sandbox up: machine, agent, network, shares, mux. One that was
// suspended goes on; all but the mux is as it was.
func (s *supervisor) boot(ctx context.Context) error {
	cache, err := xdg.Cache()
	if err != nil {
		return err
	}
	s.tell(handoff.StartEvent{Stage: "checking the accelerator"})
	if s.accel, err = qemu.Accelerator(ctx, cache); err != nil {
		return err
	}
	if err := s.startMachine(ctx, cache); err != nil {
		return err
	}
	err = s.moveIn(ctx)
	if err == nil || !s.restored || ctx.Err() != nil {
		return err
	}
	// What went wrong may be the template's: it must not be in the way of a start.
	s.distrust(template.Open(cache), err)
	if err := s.discard(); err != nil {
		return err
	}
	if err := s.raise(ctx, *vm.Describe(s.binary, s.accel, s.spec), nil); err != nil {
		return err
	}
	return s.moveIn(ctx)
}

// moveIn makes a machine whose agent answers the sandbox's.
func (s *supervisor) moveIn(ctx context.Context) error {
	if err := s.openNetwork(); err != nil {
		return err
	}
	s.ports = publish.New(s.agent.DialTCP, s.log)
	switch {
	case s.resumed:
		return s.reach(ctx)
	case s.ready:
		return s.become(ctx)
	}
	s.tell(handoff.StartEvent{Stage: "setting up"})
	if err := s.makeSandbox(ctx); err != nil {
		return err
	}
	s.tell(handoff.StartEvent{Stage: "mounting"})
	if s.shares == nil { // else the machine came with them
		if err := s.plugAll(ctx); err != nil {
			return err
		}
	}
	if err := s.mountAll(ctx); err != nil {
		return err
	}
	return s.reach(ctx)
}

// distrust removes a template from which a machine did not become a sandbox.
func (s *supervisor) distrust(templates template.Store, err error) {
	s.log.Warn("the template does not work: cold start", "error", err)
	s.tell(handoff.StartEvent{Stage: "the template does not work: booting"})
	if err := templates.Remove(s.kind); err != nil {
		s.log.Warn("remove the template", "error", err)
	}
}

// discard ends a machine from a template and all that was brought up with it, so
// that another can take its place.
func (s *supervisor) discard() error {
	s.machine.Kill()
	err := s.machine.Wait() // nil: it was killed, or the reason has been told
	s.log.Info("the machine is discarded", "ended", err)
	s.machine, s.restored, s.ready = nil, false, false
	s.closeSSH()
	s.killShares()
	if s.ports != nil {
		s.ports.Close()
	}
	if s.network != nil {
		s.network.close()
		s.network = nil
	}
	return s.ram.Close()
}

// become makes a machine that is ready this sandbox's, with all that there is to
// do at once: the agent waits where one thing needs another.
func (s *supervisor) become(ctx context.Context) error {
	s.tell(handoff.StartEvent{Stage: "setting up"})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.makeSandbox(ctx) })
	g.Go(func() error { return s.reach(ctx) })
	g.Go(func() error {
		if len(s.shares) == 0 {
			if err := s.plugAll(ctx); err != nil {
				return err
			}
		}
		return s.mountAll(ctx)
	})
	return g.Wait()
}

// reach makes the guest's SSH server reachable. Who launched the sandbox may say
// hello to it while the rest is made ready.
func (s *supervisor) reach(ctx context.Context) error {
	if err := s.agent.StartMux(ctx); err != nil {
		return err
	}
	return s.openSSH()
}

// startMachine starts QEMU, as it was suspended, or from the template of the
// machine's kind where there is one, and returns when the agent answers.
func (s *supervisor) startMachine(ctx context.Context, cache string) error {
	var err error
	if s.binary, err = qemu.Find(ctx, cache); err != nil {
		return err
	}
	plan := vm.Describe(s.binary, s.accel, s.spec)
	if s.kind, err = vm.Kind(s.binary, plan, s.spec, vm.SetupRequest(s.spec, s.user)); err != nil {
		return err
	}
	if s.resumed, err = s.goOn(ctx, *plan); s.resumed || err != nil {
		return err
	}
	templates := template.Open(cache)
	if t := s.findTemplate(templates); t != nil {
		s.tell(handoff.StartEvent{Stage: "restoring"})
		err := s.raise(ctx, *plan, t)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.distrust(templates, err)
	} else {
		s.tell(handoff.StartEvent{Stage: "booting"})
	}
	return s.raise(ctx, *plan, nil)
}

// ownDisk makes the sandbox's own disk ready for a start from the point, or for
// a cold start where t is nil.
func (s *supervisor) ownDisk(t *template.Template, p template.Point) error {
	path := s.dir.File(store.DiskFile)
	if s.spec.Fresh {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if t == nil || p != template.Ready {
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

// point is where the sandbox goes on from: one that has used its disk cannot
// take another.
func (s *supervisor) point() template.Point {
	if s.spec.Fresh {
		return template.Ready
	}
	return template.Bare
}

// findTemplate is the template that the machine can start from, or nil.
func (s *supervisor) findTemplate(store template.Store) *template.Template {
	if !handoff.TemplatesEnabled() {
		return nil
	}
	t, err := store.Lookup(s.kind)
	if err != nil {
		s.log.Info("cold start", "why", err)
		return nil
	}
	return t
}

// restoreLimit is how long a restored agent may take to say a word. It has only
// to go on where it was; on a busy host with software emulation that can take
// seconds.
const restoreLimit = time.Minute

// raise starts the machine, from the template unless that is nil, and waits
// for its agent. After an error nothing of it is left.
func (s *supervisor) raise(ctx context.Context, m qemu.Machine, t *template.Template) error {
	if err := s.ownDisk(t, s.point()); err != nil {
		return err
	}
	if t == nil {
		return s.bringUp(ctx, m, nil, s.greet)
	}
	from := &vm.Origin{What: "template", Source: vm.AtPoint{Template: t, Point: s.point()}}
	served, err := s.bringShares(ctx, from, t.Meta.Shares[s.point()])
	if err != nil {
		return err
	}
	if err := s.bringUp(ctx, m, from, s.greet); err != nil {
		_ = served() // they must be there to be ended
		s.killShares()
		return err
	}
	s.restored, s.ready = true, s.point() == template.Ready
	return nil
}

// bringShares gives a machine from a template its shares in the places of those
// that the template was saved without, if it was. Their servers start meanwhile;
// served returns when they have.
func (s *supervisor) bringShares(ctx context.Context, from *vm.Origin, taken json.RawMessage) (served func() error, err error) {
	var saved []snapshot.Share
	if taken == nil {
		return func() error { return nil }, nil
	}
	if err := json.Unmarshal(taken, &saved); err != nil {
		return nil, fmt.Errorf("shares of the template: %w", err)
	}
	plans, err := shareserver.Plans(s.spec)
	if err != nil {
		return nil, err
	}
	if len(plans) != len(saved) {
		return nil, fmt.Errorf("the template has %d shares, not %d", len(saved), len(plans))
	}
	done := make(chan error, 1)
	go func() { done <- s.succeed(ctx, plans, saved, false) }()
	served = sync.OnceValue(func() error { return <-done })
	from.Before = func(ctx context.Context, p *qemu.Process) error {
		if err := served(); err != nil {
			return err
		}
		return shareserver.Attach(ctx, p, s.shares, saved)
	}
	return served, nil
}

// bringUp starts the machine on the sandbox's disk, from where it was saved
// unless from is nil, and lets greet wait for its agent. After an error nothing of
// it is left.
func (s *supervisor) bringUp(ctx context.Context, m qemu.Machine, from *vm.Origin, greet func(context.Context) error) error {
	disks, closeDisks, err := vm.OpenDisks(&s.spec.Boot, s.dir.File(store.DiskFile))
	if err != nil {
		return err
	}
	defer closeDisks()
	m.Disks = disks
	ram, err := memory.New(m.Memory)
	if err != nil {
		return err
	}
	m.RAM = ram
	c, err := vm.Connect(&m)
	if err != nil {
		ram.Close()
		return err
	}
	s.printed = s.keepConsole(c.Console)
	start := func(m *qemu.Machine) (*qemu.Process, error) { return m.Start(ctx, s.self, s.spawner) }
	var p *qemu.Process
	if from == nil {
		p, err = start(&m)
	} else {
		p, err = from.Restore(ctx, &m, start)
	}
	if err != nil {
		ram.Close()
		c.Close()
		return err
	}
	s.machine, s.ram = p, ram
	s.agent = agent.New(c.Control, c.Mux, s.log)
	if from == nil {
		s.startWatch()
		err = greet(ctx)
	} else if err = s.greetRestored(ctx, greet); err != nil {
		c.Close()
	}
	if err != nil {
		return err
	}
	s.link = c.Link
	return nil
}

// openNetwork serves what the guest sends to its network.
func (s *supervisor) openNetwork() (err error) {
	if s.network, err = newNetwork(s.link, s.dir, s.spec, s.names, s.log, s.reportDenial); err != nil {
		return err
	}
	s.network.agent.Store(s.agent)
	return nil
}

// maxKernelName bounds the name that a guest gives its kernel, in characters.
const maxKernelName = 200

// greet waits until the agent runs.
func (s *supervisor) greet(ctx context.Context) error {
	var hello wire.HelloReply
	if err := s.agent.Call(ctx, wire.OpHello, struct{}{}, &hello); err != nil {
		return err
	}
	s.kernel = text.Short(hello.Kernel, maxKernelName)
	return nil
}

// greetRestored is greet for a machine that may never answer, which then goes.
func (s *supervisor) greetRestored(ctx context.Context, greet func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	err := greet(ctx)
	if err != nil {
		s.machine.Kill()
		err = errors.Join(err, s.machine.Wait())
		s.machine = nil
		s.ram.Close()
	}
	return err
}

// keepConsole writes what the guest prints to its bounded log.
func (s *supervisor) keepConsole(from net.Conn) *printed {
	p := &printed{end: make(chan struct{})}
	go func() {
		defer close(p.end)
		defer from.Close()
		_, _ = io.Copy(io.MultiWriter(s.console, p), from)
	}()
	return p
}

// makeSandbox makes the machine this sandbox's.
func (s *supervisor) makeSandbox(ctx context.Context) error {
	id, err := s.identity()
	if err != nil {
		return err
	}
	if s.ready {
		err = s.agent.Call(ctx, wire.OpIdentify, id, nil)
	} else {
		r := vm.SetupRequest(s.spec, s.user)
		r.Identity = *id
		err = s.agent.Call(ctx, wire.OpSetup, r, nil)
	}
	if err != nil || !s.spec.Fresh {
		return err
	}
	// From here on, what is on the disk is the person's.
	s.spec.Fresh = false
	return s.dir.WriteSpec(s.spec)
}

// identity is what only this sandbox has.
func (s *supervisor) identity() (*wire.Identity, error) {
	seed := make([]byte, 64)
	if _, err := rand.Read(seed); err != nil {
		return nil, err
	}
	hostKey, err := os.ReadFile(s.dir.File(store.HostKeyFile))
	if err != nil {
		return nil, err
	}
	client, err := os.ReadFile(s.dir.File(store.ClientKeyFile))
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", store.ClientKeyFile, err)
	}
	v4, v6 := vm.GuestAddrs(s.spec.ID)
	return &wire.Identity{
		Hostname:       s.spec.Name,
		MachineID:      vm.MachineID(s.spec.ID),
		Seed:           seed,
		Time:           time.Now(),
		HostKey:        hostKey,
		AuthorizedKeys: []string{string(ssh.MarshalAuthorizedKey(signer.PublicKey()))},
		MAC:            vm.GuestMAC(s.spec.ID).String(),
		Addresses:      []string{v4.String(), v6.String()},
		Workdir:        s.spec.Project.Guest,
	}, nil
}

func (s *supervisor) common() wire.SetupRequest { return vm.SetupRequest(s.spec, s.user) }
