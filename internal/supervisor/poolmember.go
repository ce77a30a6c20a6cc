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

	"bawn.dev/bawn/internal/qemu"
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

// RunPoolMember is the life of a pool member, whose folder is d, and then of the sandbox
// that it becomes. warmUp runs commands in the guest over the folder's SSH socket. It
// returns when the member or the sandbox has ended.
func RunPoolMember(ctx context.Context, d store.Dir, user wire.User, warmUp func(context.Context) error) error {
	tell, done := handoff.EventWriter(os.NewFile(handoff.EventFD, "launcher"))
	s, err := open(d, handoff.LockFD, user, tell)
	if err != nil {
		tell(handoff.StartEvent{Error: err.Error()})
		done()
		return err
	}
	w := &poolMember{s: s}
	err = w.getReady(ctx, warmUp)
	if err == nil {
		tell(handoff.StartEvent{Ready: true})
	} else {
		tell(handoff.StartEvent{Error: err.Error()})
	}
	done()
	if err == nil {
		err = w.await(ctx)
	}
	if err != nil || !w.taken {
		s.tearDown()
		return errors.Join(err, d.Remove(), s.close())
	}
	defer w.done()
	err = errors.Join(s.run(ctx, w.enter), s.close())
	if err != nil {
		s.tell(handoff.StartEvent{Error: err.Error()})
	}
	return err
}

// poolMember is a supervisor that is not a sandbox's yet (package pool).
type poolMember struct {
	s     *supervisor
	out   []snapshot.Share // that are to be put back
	taken bool
	done  func() // once taken: ends the news
}

// getReady restores the machine, warms it up, and makes the guest forget the warm-up.
func (w *poolMember) getReady(ctx context.Context, warmUp func(context.Context) error) error {
	s := w.s
	s.setPriority(handoff.BackgroundNice)
	defer s.setPriority(0)
	born, err := s.restoreReady(ctx)
	if err != nil {
		return err
	}
	s.startWatch()
	s.setPriority(handoff.BackgroundNice) // the machine's as well
	if err := s.become(ctx); err != nil {
		return err
	}
	if err := warmUp(ctx); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	s.closeSSH()
	for _, sh := range s.shares {
		if err := s.agent.Call(ctx, wire.OpUnmount, sh.Plan.Mount, nil); err != nil {
			return err
		}
	}
	if w.out, err = s.takeOutIdle(ctx); err != nil {
		return err
	}
	for i := range w.out {
		w.out[i].State = born[i].State // what was mounted is forgotten
	}
	s.killShares()
	return nil
}

// restoreReady starts the machine from its template, without a network. It returns
// the shares as they were saved.
func (s *supervisor) restoreReady(ctx context.Context) ([]snapshot.Share, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return nil, err
	}
	if s.accel, err = qemu.Accelerator(ctx, cache); err != nil {
		return nil, err
	}
	if s.binary, err = qemu.Find(ctx, cache); err != nil {
		return nil, err
	}
	plan := vm.Describe(s.binary, s.accel, s.spec)
	if s.kind, err = vm.Kind(s.binary, plan, s.spec, vm.SetupRequest(s.spec, s.user)); err != nil {
		return nil, err
	}
	t := s.findTemplate(template.Open(cache))
	if t == nil || t.Meta.Shares[template.Ready] == nil {
		return nil, errors.New("no template for a machine that waits")
	}
	var born []snapshot.Share
	if err := json.Unmarshal(t.Meta.Shares[template.Ready], &born); err != nil {
		return nil, fmt.Errorf("shares of the template: %w", err)
	}
	return born, s.raise(ctx, *plan, t)
}

// takeOutIdle takes the shares out as soon as the guest has said its last word to
// them.
func (s *supervisor) takeOutIdle(ctx context.Context) (out []snapshot.Share, err error) {
	ctx, cancel := context.WithTimeout(ctx, pauseLimit)
	defer cancel()
	for {
		err = s.still(ctx, func() error {
			out, err = shareserver.Detach(ctx, s.machine, s.shares)
			return err
		})
		if err == nil || ctx.Err() != nil {
			return out, err
		}
		select { // it was busy
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// still runs f while the guest's processors stand still.
func (s *supervisor) still(ctx context.Context, f func() error) error {
	if err := s.machine.Pause(ctx); err != nil {
		return err
	}
	return errors.Join(f(), s.machine.Resume(ctx))
}

// setPriority is how much the machine's processes count beside others, where the
// kernel makes groups of sessions (sched(7), autogroup). One that gets ready must
// not slow down what a person waits for; one that has waited must not be slow.
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

// await returns when somebody has taken the machine, or it has ended.
func (w *poolMember) await(ctx context.Context) error {
	s := w.s
	s.setRunning()
	if err := s.note(""); err != nil {
		return err
	}
	l, err := s.dir.Listen(store.ClaimSocket)
	if err != nil {
		return err
	}
	defer l.Close()
	s.log.Info("waiting", "kind", s.kind, "qemu", s.machine.Pid())
	taken := make(chan error, 1)
	go func() { taken <- w.accept(l) }()
	select {
	case err := <-taken:
		return err
	case why := <-s.end:
		return errors.New(why)
	case <-ctx.Done():
		return nil
	}
}

// accept answers one after the other until one has taken the machine.
func (w *poolMember) accept(l *net.UnixListener) error {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		err = w.agree(c)
		c.Close()
		if err == nil {
			return nil
		}
		if w.taken {
			return err
		}
		w.s.log.Warn("not handed over", "error", err)
	}
}

// agree takes a sandbox over.
func (w *poolMember) agree(c *net.UnixConn) error {
	if err := c.SetDeadline(time.Now().Add(handoff.ClaimLimit)); err != nil {
		return err
	}
	d, pipe, lock, err := handoff.ReceiveClaim(c)
	if err != nil {
		return err
	}
	spec, err := d.Spec()
	if err == nil {
		err = w.suits(spec)
	}
	if err == nil {
		err = handoff.Agree(c)
	}
	if err == nil {
		err = handoff.AwaitAgreement(c)
	}
	if err != nil {
		return errors.Join(err, pipe.Close(), lock.Close())
	}
	w.taken = true
	return w.moveIn(d, spec, pipe, lock)
}

// suits says what of the spec this machine is not.
func (w *poolMember) suits(spec *sandbox.Spec) error {
	s := w.s
	if !spec.Fresh {
		return errors.New("the sandbox has a disk of its own already")
	}
	kind, err := vm.Kind(s.binary, vm.Describe(s.binary, s.accel, spec), spec, vm.SetupRequest(spec, s.user))
	if err == nil && kind != s.kind {
		err = errors.New("the sandbox is of another kind")
	}
	return err
}

// moveIn makes the sandbox's folder this supervisor's.
func (w *poolMember) moveIn(d store.Dir, spec *sandbox.Spec, pipe *os.File, lock *lockfile.Lock) error {
	s := w.s
	tell, done := handoff.EventWriter(pipe)
	own := s.dir
	w.done = done
	s.setTell(tell)
	err := errors.Join(
		s.lock.Close(),
		s.logTo.move(d.File(store.SupervisorLogFile)),
		s.console.move(d.File(store.ConsoleFile)),
		os.Rename(own.File(store.DiskFile), d.File(store.DiskFile)),
	)
	s.dir, s.spec, s.lock = d, spec, lock
	s.setPhase(sandbox.Starting)
	err = errors.Join(err, s.note(""), own.Remove())
	if err != nil {
		err = fmt.Errorf("take over the sandbox: %w", err)
		tell(handoff.StartEvent{Error: err.Error()})
	}
	return err
}

// enter makes the machine the sandbox that it was taken for.
func (w *poolMember) enter(ctx context.Context) error {
	s := w.s
	if err := s.openNetwork(); err != nil {
		return err
	}
	plans, err := shareserver.Plans(s.spec)
	if err != nil {
		return err
	}
	s.ports = publish.New(s.agent.DialTCP, s.log)
	s.waited = true
	s.tell(handoff.StartEvent{Stage: "setting up"})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.makeSandbox(ctx) })
	g.Go(s.openSSH)
	g.Go(func() error {
		if err := s.succeed(ctx, plans, w.out, false); err != nil {
			return err
		}
		if err := s.still(ctx, func() error { return shareserver.Attach(ctx, s.machine, s.shares, w.out) }); err != nil {
			return err
		}
		return s.mountAll(ctx)
	})
	return g.Wait()
}
