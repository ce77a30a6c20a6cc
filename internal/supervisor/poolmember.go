package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// A pool member is a supervisor that has a machine but no sandbox yet. Package pool has the
// theory of operation. This file is the member's side: it restores a machine, warms it up,
// makes the guest forget the warm-up, waits on the claim socket, and takes over the
// sandbox's folder, lock and event pipe when it is claimed. From then on it is as any
// other supervisor.

// RunPoolMember runs a pool member, whose folder is d, and then the sandbox that it becomes.
// warmUp runs commands in the guest over the folder's SSH socket. It
// returns when the member or the sandbox has ended.
func RunPoolMember(ctx context.Context, d store.Dir, user wire.User, warmUp func(context.Context) error) error {
	report, done := handoff.EventWriter(os.NewFile(handoff.EventFD, "launcher"))
	s, err := open(ctx, d, handoff.LockFD, user, report)
	if err != nil {
		report(handoff.StartEvent{Error: err.Error()})
		done()
		return err
	}
	m := &poolMember{s: s}
	err = m.makeReady(s.life.ctx, warmUp)
	if err == nil {
		report(handoff.StartEvent{Ready: true})
	} else {
		report(handoff.StartEvent{Error: err.Error()})
	}
	done()
	if err == nil {
		err = m.awaitClaim(ctx)
	}
	if err != nil || !m.claimed {
		s.tearDown()
		return errors.Join(err, d.Remove(), s.close())
	}
	defer m.closeEvents()
	err = errors.Join(s.run(ctx, m.prepare), s.close())
	if err != nil {
		s.report(handoff.StartEvent{Error: err.Error()})
	}
	return err
}

// poolMember is a supervisor that has no sandbox yet.
type poolMember struct {
	s           *supervisor
	detached    []snapshot.Share // saved state that the sandbox's share servers take over
	claimed     bool
	closeEvents func() // set once the member is claimed
}

// readyLimit is how long a member may take to be ready. While it gets ready, the pool is locked.
const readyLimit = 10 * time.Minute

// errNotReady is the cause with which the preparation of a member ends that took too long.
var errNotReady = fmt.Errorf("the pool machine was not ready after %v", readyLimit)

// makeReady restores the machine, warms it up, and makes the guest forget the warm-up. It takes
// readyLimit at most.
func (m *poolMember) makeReady(ctx context.Context, warmUp func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyLimit, errNotReady)
	defer cancel()
	s := m.s
	s.setPriority(handoff.BackgroundNice)
	defer s.setPriority(0)
	saved, err := s.restoreReady(ctx)
	if err != nil {
		return err
	}
	s.machine.watch(s.machineEnded)
	s.setPriority(handoff.BackgroundNice) // the machine's as well
	if err := s.configureGuest(ctx); err != nil {
		return err
	}
	if err := warmUp(ctx); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	s.closeSSH()
	if err := s.unmountShares(ctx); err != nil {
		return err
	}
	if m.detached, err = s.detachIdle(ctx); err != nil {
		return err
	}
	for i := range m.detached {
		m.detached[i].State = saved[i].State // the state before the warm-up's mount
	}
	s.killShares()
	return nil
}

// restoreReady starts the machine from its template, without a network. It returns
// the shares as they were saved.
func (s *supervisor) restoreReady(ctx context.Context) ([]snapshot.Share, error) {
	plan, err := s.planMachine(ctx)
	if err != nil {
		return nil, err
	}
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	t := s.findTemplate(template.Open(cache))
	if t == nil || t.Meta.Shares[template.Ready] == nil {
		return nil, errors.New("there is no template for a pool machine")
	}
	var saved []snapshot.Share
	if err := json.Unmarshal(t.Meta.Shares[template.Ready], &saved); err != nil {
		return nil, fmt.Errorf("shares of the template: %w", err)
	}
	return saved, s.startOrRestore(ctx, plan, t)
}

// detachPoll is the interval of attempts to detach shares that the guest still uses.
const detachPoll = 50 * time.Millisecond

// detachIdle detaches the shares as soon as the guest has sent its last request to them.
func (s *supervisor) detachIdle(ctx context.Context) (detached []snapshot.Share, err error) {
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	for {
		err = s.machine.paused(ctx, func() error {
			detached, err = shareserver.Detach(ctx, s.machine, s.shares)
			return err
		})
		if err == nil || ctx.Err() != nil {
			return detached, err
		}
		select {
		case <-time.After(detachPoll):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// setPriority sets how much the machine's processes count beside others, where the kernel
// makes groups of sessions (sched(7), autogroup). A member that gets ready must not slow
// down what a user waits for; a sandbox must not be slow.
func (s *supervisor) setPriority(nice int) {
	list := []int{os.Getpid()}
	if s.machine != nil {
		list = append(list, s.machine.Pid())
	}
	for _, pid := range list {
		for range 10 { // the kernel takes one in a tenth of a second
			err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", pid), []byte(strconv.Itoa(nice)), 0)
			if !errors.Is(err, unix.EAGAIN) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// awaitClaim returns when the member was claimed or has to end. After an error the member
// cannot be used.
func (m *poolMember) awaitClaim(ctx context.Context) error {
	s := m.s
	s.life.setPhase(sandbox.Running, "")
	if err := s.saveState(""); err != nil {
		return err
	}
	l, err := s.dir.Listen(store.ClaimSocket)
	if err != nil {
		return err
	}
	s.log.Info("pool machine is ready", "kind", s.platform.kind, "qemu", s.machine.Pid())
	stop := context.AfterFunc(s.life.ctx, func() { l.Close() })
	defer stop()
	err = m.serveClaims(l)
	l.Close()
	switch {
	case m.claimed:
		return err
	case ctx.Err() != nil: // a signal
		return nil
	case s.life.ended():
		return context.Cause(s.life.ctx)
	}
	return err
}

// serveClaims answers one claim after the other until one succeeds or l is closed.
func (m *poolMember) serveClaims(l *net.UnixListener) error {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		err = m.serveClaim(c)
		c.Close()
		if err == nil || m.claimed {
			return err
		}
		m.s.log.Warn("claiming the pool machine failed", "error", err)
	}
}

// serveClaim takes a sandbox over if the machine fits it and both sides agree.
func (m *poolMember) serveClaim(c *net.UnixConn) error {
	if err := c.SetDeadline(time.Now().Add(handoff.ClaimLimit)); err != nil {
		return err
	}
	d, events, lock, err := handoff.ReceiveClaim(c)
	if err != nil {
		return err
	}
	spec, err := d.Spec()
	if err == nil {
		err = m.s.checkFits(spec)
	}
	if err == nil {
		err = handoff.Agree(c)
	}
	if err == nil {
		err = handoff.AwaitAgreement(c)
	}
	if err != nil {
		return errors.Join(err, events.Close(), lock.Close())
	}
	m.claimed = true
	return m.takeOver(d, spec, events, lock)
}

// checkFits returns why the machine cannot become a sandbox of the spec, or nil.
func (s *supervisor) checkFits(spec *sandbox.Spec) error {
	if !spec.Fresh {
		return errors.New("the sandbox already has a disk")
	}
	p := s.platform
	kind, err := vm.Kind(p.binary, vm.Describe(p.binary, p.accel, spec), spec, vm.SetupRequest(spec, s.user))
	if err == nil && kind != p.kind {
		err = errors.New("the sandbox needs a machine of another kind")
	}
	return err
}

// takeOver makes the sandbox's folder, spec, lock and event pipe this supervisor's, and
// removes the member's folder. It owns events and lock.
func (m *poolMember) takeOver(d store.Dir, spec *sandbox.Spec, events *os.File, lock *lockfile.Lock) error {
	s := m.s
	own := s.dir
	report, closeEvents := handoff.EventWriter(events)
	m.closeEvents = closeEvents
	s.setReport(report)
	err := errors.Join(
		s.lock.Close(),
		s.logFile.Move(d.File(store.SupervisorLogFile)),
		s.console.Move(d.File(store.ConsoleFile)),
		os.Rename(own.File(store.DiskFile), d.File(store.DiskFile)),
	)
	s.dir, s.spec, s.lock = d, spec, lock
	s.life.setPhase(sandbox.Starting, "")
	err = errors.Join(err, s.saveState(""), own.Remove())
	if err != nil {
		err = fmt.Errorf("take over the sandbox: %w", err)
		report(handoff.StartEvent{Error: err.Error()})
	}
	return err
}

// prepare turns the machine into the sandbox that claimed it. It takes adoptLimit at most.
func (m *poolMember) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, adoptLimit, errAdopt)
	defer cancel()
	s := m.s
	if err := s.openNetwork(); err != nil {
		return err
	}
	plans, err := shareserver.Plans(s.spec, s.dir)
	if err != nil {
		return err
	}
	s.ports = publish.New(s.spec.Loopbacks(), s.machine.agent.DialTCP, s.machine.agent.WatchPorts, s.log)
	s.source.pool = true
	s.report(handoff.StartEvent{Stage: "setting up"})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.identify(ctx) })
	g.Go(s.openSSH)
	g.Go(func() error {
		if len(plans) < len(m.detached) {
			return fmt.Errorf("the pool machine has %d shares instead of %d", len(m.detached), len(plans))
		}
		if err := s.takeOverShares(ctx, plans[:len(m.detached)], m.detached, false); err != nil {
			return err
		}
		attach := func() error { return shareserver.Attach(ctx, s.machine, s.shares, m.detached) }
		if err := s.machine.paused(ctx, attach); err != nil {
			return err
		}
		return s.mountAll(ctx)
	})
	return g.Wait()
}
