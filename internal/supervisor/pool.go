package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// The pool: machines that wait for a sandbox.
//
// Under software emulation most of the time of a start from a template goes into
// the translation of the guest's code, which QEMU does once for each machine. So
// a waiting machine is more than a restored one: it has rehearsed. It has been
// given a name, keys and addresses, has mounted an empty directory and run a
// command over SSH, and has been told to forget all that. What is left to do for a
// sandbox is the same again, with everything translated.
//
// A waiting machine is a supervisor with a folder of its own, in a store of its own
// (store.Store.Pool), whose lock it holds. Who starts a new sandbox looks for one
// of the same key, and hands over on its socket what a new supervisor would
// inherit: the sandbox's lock and the pipe for the news. The supervisor moves its
// disk and its logs into the sandbox's folder and is from then on the sandbox's,
// as if it had been launched for it. Both sides agree before anything is moved, so
// a machine that does not answer in time goes on waiting, and the sandbox starts
// without it.
//
// Nothing of the rehearsal can be used later: its keys are replaced before the
// sandbox's SSH server can be reached, and the random generator is seeded first.

// The hidden verbs of the pool's processes.
const (
	WaitVerb = "__wait" // the supervisor of a waiting machine
	FillVerb = "__fill" // what makes machines wait
)

// rehearsalDir is where a waiting machine had its shares mounted.
const rehearsalDir = "/run/bawn/rehearsal"

// emptyFolder is what they were of, in the machine's folder.
const emptyFolder = "empty"

// poolKey says which sandboxes a waiting machine can become: those of its kind,
// for the same bawn, in the same environment.
func poolKey(ctx context.Context, spec *sandbox.Spec, user wire.User) (string, error) {
	cache, err := xdg.Cache()
	if err != nil {
		return "", err
	}
	binary, err := qemu.Find(ctx, cache)
	if err != nil {
		return "", err
	}
	accel, err := qemu.Accelerator(ctx, cache)
	if err != nil {
		return "", err
	}
	kind, err := kindOf(binary, describe(binary, accel, spec), spec, common(spec, user))
	if err != nil {
		return "", err
	}
	var self unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &self); err != nil {
		return "", fmt.Errorf("/proc/self/exe: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %q", kind, self.Dev, self.Ino, self.Mtim.Nano(), supervisorEnv()))
	return hex.EncodeToString(sum[:16]), nil
}

// LaunchFill starts what lets n machines like that of the sandbox in d wait. It
// does not wait for it.
func LaunchFill(d store.Dir) error {
	if !templatesOn() {
		return nil
	}
	return launchBeside(d, FillVerb)
}

// launchBeside starts a process that outlives this one, for the sandbox in d.
func launchBeside(d store.Dir, verb string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(d.File(store.SupervisorLogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(self, verb, d.Path) //nolint:noctx // it outlives this process
	cmd.Dir = "/"
	cmd.Env = supervisorEnv()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return cmd.Process.Release()
}

// Fill lets n machines wait that can become sandboxes like that of spec. Machines
// of other kinds go, the oldest first, so that no more than n wait in all; so does
// what is left of dead ones. keys makes the keys in a folder; room says whether one
// more may run. The caller is the only one that fills.
func Fill(ctx context.Context, pool *store.Store, n int, spec *sandbox.Spec, user wire.User,
	keys func(store.Dir, string) error, room func(*sandbox.Spec) bool,
) error {
	key, err := poolKey(ctx, spec, user)
	if err != nil {
		return err
	}
	fitting, others, err := waiting(ctx, pool, key)
	if err != nil {
		return err
	}
	for ; fitting < n; fitting++ {
		if !room(spec) {
			return nil
		}
		for len(others) > 0 && fitting+len(others) >= n {
			if err := discard(ctx, others[0]); err != nil {
				return err
			}
			others = others[1:]
		}
		if err := wait(ctx, pool, spec, key, keys); err != nil {
			return err
		}
	}
	return nil
}

// waiting counts the machines of the key and lists the others, the oldest first.
func waiting(ctx context.Context, pool *store.Store, key string) (fitting int, others []store.Dir, err error) {
	names, err := pool.Names()
	if err != nil {
		return 0, nil, err
	}
	for _, name := range names { // which begin with the time
		d := pool.Dir(name)
		st, err := d.State()
		if err != nil {
			return 0, nil, err
		}
		if st.Phase == sandbox.Stopped || st.Phase == sandbox.Dead {
			if err := d.Remove(); err != nil {
				return 0, nil, err
			}
			continue
		}
		if b, err := os.ReadFile(d.File(store.PoolKeyFile)); err == nil && string(b) == key {
			fitting++
		} else {
			others = append(others, d)
		}
	}
	return fitting, others, ctx.Err()
}

// discard ends a waiting machine and removes its folder.
func discard(ctx context.Context, d store.Dir) error {
	if err := Kill(ctx, d); err != nil {
		return err
	}
	return d.Remove()
}

// Empty ends all machines that wait.
func Empty(ctx context.Context, pool *store.Store) error {
	names, err := pool.Names()
	for _, name := range names {
		err = errors.Join(err, discard(ctx, pool.Dir(name)))
	}
	return err
}

// wait lets one machine wait, and returns when it does.
func wait(ctx context.Context, pool *store.Store, like *sandbox.Spec, key string, keys func(store.Dir, string) error) (err error) {
	spec := rehearsal(like)
	d, err := pool.Reserve(spec.Name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove())
		}
	}()
	spec.Dir = d.File(emptyFolder)
	for i := range spec.Mounts {
		spec.Mounts[i].Source = spec.Dir
	}
	if err := os.Mkdir(spec.Dir, 0o700); err != nil {
		return err
	}
	if err := keys(d, spec.Name); err != nil {
		return err
	}
	if err := atomicfile.Write(d.File(store.PoolKeyFile), []byte(key)); err != nil {
		return err
	}
	if err := d.WriteSpec(spec); err != nil {
		return err
	}
	lock, err := d.Lock()
	if err != nil {
		return err
	}
	nothing := Progress{Stage: func(string) {}, Reachable: func() {}}
	_, err = launch(ctx, WaitVerb, d, lock, nothing)
	return err
}

// rehearsal is the spec that a machine rehearses with: of the same kind, and
// nobody's.
func rehearsal(like *sandbox.Spec) *sandbox.Spec {
	now := time.Now().UTC()
	id := sandbox.NewID()
	spec := &sandbox.Spec{
		ID: id, Name: fmt.Sprintf("%x-%s", now.Unix(), id[:6]), Place: rehearsalDir, Created: now, Fresh: true,
		Image: like.Image, CPUs: like.CPUs, Memory: like.Memory, Disk: like.Disk, Boot: like.Boot,
	}
	for i := range like.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Target: rehearsalDir + strconv.Itoa(i)})
	}
	return spec
}

// How long the two sides of a hand-over wait for each other.
const (
	claimLimit = 2 * time.Second
	yes        = "y"
)

// errNoneWaits means that no machine waits for such a sandbox.
var errNoneWaits = errors.New("no machine waits")

// Claim lets a waiting machine become the sandbox in d, whose lock the caller has
// and which has not been started yet. It is as Launch, but for errNoneWaits (see
// NoneWaits): then the caller still has the lock, and nothing has happened.
func Claim(ctx context.Context, pool *store.Store, d store.Dir, spec *sandbox.Spec, user wire.User, lock *lockfile.Lock, on Progress) (Start, error) {
	key, err := poolKey(ctx, spec, user)
	if err != nil {
		return Start{}, errors.Join(errNoneWaits, err)
	}
	names, err := pool.Names()
	if err != nil {
		return Start{}, errors.Join(errNoneWaits, err)
	}
	for _, name := range names {
		m := pool.Dir(name)
		if b, err := os.ReadFile(m.File(store.PoolKeyFile)); err != nil || string(b) != key {
			continue
		}
		r, err := handOver(ctx, m, d, lock)
		if err != nil {
			continue // it has ended, or somebody else was quicker
		}
		defer r.Close()
		lock.Close() // the supervisor has it
		return follow(ctx, r, d, on)
	}
	return Start{}, errNoneWaits
}

// NoneWaits says whether Claim found no machine.
func NoneWaits(err error) bool { return errors.Is(err, errNoneWaits) }

// follow hears from a supervisor that has taken the sandbox until it is ready.
func follow(ctx context.Context, r *os.File, d store.Dir, on Progress) (how Start, err error) {
	result := make(chan error, 1)
	go func() {
		var err error
		how, err = hear(r, on)
		result <- err
	}()
	select {
	case err = <-result:
		if err != nil {
			err = errors.Join(err, AwaitExit(context.WithoutCancel(ctx), d))
		}
		return how, err
	case <-ctx.Done():
		return Start{}, errors.Join(context.Cause(ctx), Kill(context.WithoutCancel(ctx), d))
	}
}

// claim is what is said when a sandbox is handed over; the descriptors of the news
// and of the lock come beside it.
type claim struct {
	Dir string `json:"dir"`
}

// handOver gives the sandbox in d to the machine that waits in m, and returns where
// its news come from.
func handOver(ctx context.Context, m, d store.Dir, lock *lockfile.Lock) (news *os.File, err error) {
	conn, err := m.Dial(ctx, store.ClaimSocket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a Unix socket")
	}
	if err := c.SetDeadline(time.Now().Add(claimLimit)); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	b, err := json.Marshal(claim{d.Path})
	if err != nil {
		return nil, err
	}
	rights := unix.UnixRights(int(w.Fd()), int(lock.File().Fd()))
	if _, _, err := c.WriteMsgUnix(append(b, '\n'), rights, nil); err != nil {
		return nil, err
	}
	if err := expect(c); err != nil {
		return nil, err
	}
	// From here on the sandbox is the machine's.
	if err := d.WriteState(sandbox.State{Phase: sandbox.Starting}); err != nil {
		return nil, err
	}
	_, err = c.Write([]byte(yes))
	return r, err
}

func expect(c *net.UnixConn) error {
	one := make([]byte, len(yes))
	if _, err := c.Read(one); err != nil {
		return err
	}
	if string(one) != yes {
		return errors.New("refused")
	}
	return nil
}

// Wait is the life of a machine that waits in the pool's folder d, and then of the
// sandbox that it becomes. rehearse runs a command in the guest over the folder's
// SSH socket.
func Wait(ctx context.Context, d store.Dir, user wire.User, rehearse func(context.Context) error) error {
	tell, done := newsTeller(os.NewFile(readyFD, "launcher"))
	s, err := open(d, lockFD, user, tell)
	if err != nil {
		tell(news{Error: err.Error()})
		done()
		return err
	}
	w := &waiter{s: s}
	err = w.getReady(ctx, rehearse)
	if err == nil {
		tell(news{Ready: true})
	} else {
		tell(news{Error: err.Error()})
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
		s.tell(news{Error: err.Error()})
	}
	return err
}

// waiter is a supervisor that waits.
type waiter struct {
	s     *supervisor
	out   []snapshot.Share // that are to be put back
	taken bool
	done  func() // once taken: ends the news
}

// getReady restores the machine, lets it rehearse, and takes what was rehearsed
// with away.
func (w *waiter) getReady(ctx context.Context, rehearse func(context.Context) error) error {
	s := w.s
	s.setPriority(sessionNice)
	defer s.setPriority(0)
	born, err := s.restoreReady(ctx)
	if err != nil {
		return err
	}
	s.startWatch()
	s.setPriority(sessionNice) // the machine's as well
	if err := s.become(ctx); err != nil {
		return err
	}
	if err := rehearse(ctx); err != nil {
		return fmt.Errorf("rehearse: %w", err)
	}
	s.closeSSH()
	for _, sh := range s.shares {
		if err := s.agent.call(ctx, wire.OpUnmount, sh.plan.Mount, nil); err != nil {
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
	plan := describe(s.binary, s.accel, s.spec)
	if s.kind, err = kindOf(s.binary, plan, s.spec, s.common()); err != nil {
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
			out, err = takeOut(ctx, s.machine, s.shares)
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
func (w *waiter) await(ctx context.Context) error {
	s := w.s
	s.setPhase(sandbox.Running)
	s.since = time.Now().UTC()
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
func (w *waiter) accept(l *net.UnixListener) error {
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
func (w *waiter) agree(c *net.UnixConn) error {
	if err := c.SetDeadline(time.Now().Add(claimLimit)); err != nil {
		return err
	}
	d, pipe, lock, err := receiveClaim(c)
	if err != nil {
		return err
	}
	spec, err := d.Spec()
	if err == nil {
		err = w.suits(spec)
	}
	if err == nil {
		_, err = c.Write([]byte(yes))
	}
	if err == nil {
		err = expect(c)
	}
	if err != nil {
		return errors.Join(err, pipe.Close(), lock.Close())
	}
	w.taken = true
	return w.moveIn(d, spec, pipe, lock)
}

// suits says what of the spec this machine is not.
func (w *waiter) suits(spec *sandbox.Spec) error {
	s := w.s
	if !spec.Fresh {
		return errors.New("the sandbox has a disk of its own already")
	}
	kind, err := kindOf(s.binary, describe(s.binary, s.accel, spec), spec, common(spec, s.user))
	if err == nil && kind != s.kind {
		err = errors.New("the sandbox is of another kind")
	}
	return err
}

func receiveClaim(c *net.UnixConn) (d store.Dir, pipe *os.File, lock *lockfile.Lock, err error) {
	b, oob := make([]byte, 4096+64), make([]byte, unix.CmsgSpace(2*4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return d, nil, nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return d, nil, nil, errors.Join(errors.New("no descriptors came"), err)
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	if err != nil || len(fds) != 2 {
		return d, nil, nil, errors.Join(errors.New("two descriptors were expected"), err)
	}
	pipe = os.NewFile(uintptr(fds[0]), "launcher")
	if lock, err = lockfile.Inherit(fds[1]); err != nil {
		return d, nil, nil, errors.Join(err, pipe.Close())
	}
	var said claim
	if err = json.Unmarshal([]byte(strings.TrimSuffix(string(b[:n]), "\n")), &said); err == nil && !filepath.IsAbs(said.Dir) {
		err = fmt.Errorf("%q is not a sandbox's folder", said.Dir)
	}
	if err != nil {
		return d, nil, nil, errors.Join(err, pipe.Close(), lock.Close())
	}
	return store.Dir{Path: said.Dir}, pipe, lock, nil
}

// moveIn makes the sandbox's folder this supervisor's.
func (w *waiter) moveIn(d store.Dir, spec *sandbox.Spec, pipe *os.File, lock *lockfile.Lock) error {
	s := w.s
	tell, done := newsTeller(pipe)
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
		tell(news{Error: err.Error()})
	}
	return err
}

// enter makes the machine the sandbox that it was taken for.
func (w *waiter) enter(ctx context.Context) error {
	s := w.s
	if err := s.openNetwork(); err != nil {
		return err
	}
	plans, err := s.sharePlans()
	if err != nil {
		return err
	}
	s.ports = newPorts(s.agent.dialTCP, s.log)
	s.waited = true
	s.tell(news{Stage: "setting up"})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.makeSandbox(ctx) })
	g.Go(s.openSSH)
	g.Go(func() error {
		if err := s.succeed(ctx, plans, w.out, false); err != nil {
			return err
		}
		if err := s.still(ctx, func() error { return putBack(ctx, s.machine, s.shares, w.out) }); err != nil {
			return err
		}
		return s.mountAll(ctx)
	})
	return g.Wait()
}
