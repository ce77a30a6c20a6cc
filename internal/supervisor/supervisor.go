// Package supervisor is the process that owns one running sandbox: its machine, its share
// servers, its network, its published ports and its sockets.
//
// Theory of operation. A launcher (package launch) starts a supervisor in a session of its
// own and hears start events through a pipe until the sandbox is ready. From then on the
// supervisor stands alone. It holds the sandbox's lock while it lives. All its children
// are forked from one thread with a parent-death signal (proc.Spawner), so the kernel
// ends them when the supervisor dies, even by SIGKILL; guest memory lies in a memfd and
// the guest's ports on socket pairs, so nothing is left on disk but two dead sockets,
// which the next start replaces, and a state file that no longer counts because nobody
// holds the lock.
//
// Run has three parts: prepare gets a machine and makes it the sandbox (start.go), live
// serves it until something ends it, and tearDown ends everything, in the same way however
// it came to it. What ends a sandbox is a Stop or Suspend request (service.go,
// suspend.go), a signal, the machine's end and a share server's end.
//
// The state is cut by life-time. A lifecycle (lifecycle.go) is the sandbox's, from the
// first moment to the last. A machine (machine.go) is one QEMU process with its memory and
// channels; a start may need two. The network (network.go), the shares (shares.go), the
// published ports (package publish) and the SSH socket (ssh.go) belong to one machine's
// time, and are opened anew with another. Every goroutine belongs to one of these, or to
// supervisor.tasks, and is joined by tearDown.
//
// A pool member (poolmember.go) is a supervisor that gets its sandbox later.
package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/login"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/sys/rotate"
	"bawn.dev/bawn/internal/wire"
)

// Bounds of the logs, in bytes of one file; one older file is kept beside it.
const (
	maxConsoleLog    = 1 << 20
	maxSupervisorLog = 1 << 20
)

// supervisor is one running sandbox.
type supervisor struct {
	// What the process has from its beginning. A pool member gets another folder, spec and
	// lock when it is claimed.
	dir     store.Dir
	spec    *sandbox.Spec
	user    wire.User
	self    string // path of this program
	lock    *lockfile.Lock
	spawner *proc.Spawner
	report  handoff.Report
	log     *slog.Logger
	logFile *rotate.File // of log
	console *rotate.File // of the guest's console

	life   *lifecycle
	saving sync.Mutex // held while a snapshot is made or the sandbox is suspended
	tasks  sync.WaitGroup

	platform platform
	source   source
	crashed  atomic.Bool               // the guest's kernel or QEMU crashed
	lastUse  atomic.Pointer[time.Time] // nil before the first measurement (watchIdle)

	machine  *machine
	shares   []*shareserver.Server
	sharesMu sync.Mutex                         // held to change shares, and by who reads them beside that (fileevents.go)
	replaced chan struct{}                      // a share has another server: what it watches is watched anew
	told     time.Time                          // up to when the guest was told what changed on the host; used by watchFileEvents
	keeper   atomic.Pointer[shareserver.Server] // of shares: the last one that keeps what the guest changes
	network  *network
	logins   *login.Sandbox // nil for a builder
	trusted  atomic.Bool    // the guest trusts the certificate authority
	desktop  desktop
	names    map[string]uint32 // synthetic addresses that a resumed guest knows
	ports    *publish.Ports
	ssh      *accept.Group
}

// platform describes the QEMU and the accelerator that the machine runs on, detected once.
type platform struct {
	accel  qemu.Accel
	binary qemu.Binary
	kind   string // of the machine (vm.Kind)
	// kvmKind is the kind that the machine would have under KVM. It is empty unless it is
	// unsettled whether KVM works.
	kvmKind string
}

// source tells how the machine was started. The zero value means that it booted.
type source struct {
	resumed  bool // from its suspended state
	template bool // from a template
	ready    bool // from the template's point Ready, so that the guest is set up already
	pool     bool // from the warm pool

	localDirs []string // that a resumed machine has
}

// Run runs a supervisor and returns when its sandbox has ended. user is the account that the
// guest gets. The process was started by package launch, which passed the
// descriptors of package handoff on; Run may be called once in a process.
func Run(ctx context.Context, d store.Dir, user wire.User) error {
	report, done := handoff.EventWriter(os.NewFile(handoff.EventFD, "launcher"))
	defer done()
	s, err := open(ctx, d, handoff.LockFD, user, report)
	if err == nil {
		err = errors.Join(s.run(ctx, s.prepare), s.close())
	}
	if err != nil {
		report(handoff.StartEvent{Error: err.Error(), Crashed: s != nil && s.crashed.Load()})
	}
	return err
}

// open makes a supervisor of what is in the folder, whose lock was inherited as the
// descriptor. After an error this process has no more to do.
func open(ctx context.Context, d store.Dir, lockFD int, user wire.User, report handoff.Report) (*supervisor, error) {
	lock, err := lockfile.Inherit(lockFD)
	if err != nil {
		return nil, err
	}
	spec, err := d.Spec()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	logFile, err := rotate.Open(d.File(store.SupervisorLogFile), maxSupervisorLog)
	if err != nil {
		return nil, err
	}
	console, err := rotate.Open(d.File(store.ConsoleFile), maxConsoleLog)
	if err != nil {
		return nil, err
	}
	s := &supervisor{
		dir: d, spec: spec, user: user, self: self, lock: lock, logFile: logFile, console: console,
		log:     slog.New(slog.NewTextHandler(rotate.Lossy(logFile), handoff.LogOptions())),
		spawner: proc.NewSpawner(),
		life:    newLifecycle(ctx), replaced: make(chan struct{}, 1),
	}
	s.setReport(report)
	return s, s.saveState("")
}

// close closes the logs and, last, gives up the sandbox's lock.
func (s *supervisor) close() error {
	s.life.end(nil)
	return errors.Join(s.console.Close(), s.logFile.Close(), s.dir.RemoveUnowned(), s.lock.Close())
}

// setReport sets where start events go.
func (s *supervisor) setReport(report handoff.Report) {
	s.report = func(e handoff.StartEvent) {
		if e.Stage != "" {
			s.log.Debug(e.Stage)
		}
		report(e)
	}
}

// run runs the sandbox, which prepare gets ready, until it ends. It saves how the sandbox
// ended.
func (s *supervisor) run(ctx context.Context, prepare func(context.Context) error) error {
	why, err := s.live(ctx, prepare)
	if err != nil {
		why = err.Error()
		s.log.Error("start failed", "error", err)
	}
	s.life.setPhase(sandbox.Stopped, "")
	return errors.Join(err, s.saveState(why))
}

// saveState writes the sandbox's state file. message is why it ended, if nobody asked for
// it.
func (s *supervisor) saveState(message string) error {
	now := s.life.status()
	st := sandbox.State{Phase: now.phase, PID: os.Getpid(), Since: now.since, Accel: s.platform.accel.Name(), Message: message}
	if st.Phase == sandbox.Stopped {
		st.PID = 0
	}
	return s.dir.WriteState(st)
}

// live gets the sandbox ready, serves it until it ends, and tears it down. It returns why
// it ended, when nobody asked for it.
func (s *supervisor) live(ctx context.Context, prepare func(context.Context) error) (why string, err error) {
	defer s.tearDown()
	if err := prepare(s.life.ctx); err != nil { // whatever ends the sandbox ends its start
		return "", s.startError(err)
	}
	s.machine.watch(s.machineEnded)
	if err := s.openPorts(ctx); err != nil {
		return "", err
	}
	s.life.setPhase(sandbox.Running, "")
	closeControl, err := s.serveControl()
	if err != nil {
		return "", err
	}
	defer closeControl()
	if err := s.saveState(""); err != nil {
		return "", err
	}
	s.reloadRules()
	s.startClock(ctx)
	s.log.Info("running", "kind", s.platform.kind, "template", s.source.template, "resumed", s.source.resumed, "pool", s.source.pool,
		"accel", s.platform.accel.Name(), "qemu", s.machine.Pid())
	s.report(handoff.StartEvent{Ready: true, Cold: !s.source.template && !s.source.resumed})
	s.startWatchers()
	defer s.watchShares()()
	why = s.awaitEnd(ctx)
	s.life.setPhase(sandbox.Stopping, why)
	s.machine.Kill() // what still waits for its guest ends with it
	s.log.Info("ending", "why", why)
	return why, nil
}

// startWatchers starts the goroutines that watch a running sandbox. They end with it.
func (s *supervisor) startWatchers() {
	watchers := []func(context.Context){s.watchIdle, s.watchClock, s.watchSpace, s.watchFileEvents}
	if s.spec.Throwaway {
		watchers = append(watchers, s.watchOwner)
	}
	for _, watch := range watchers {
		s.tasks.Go(func() { watch(s.life.ctx) })
	}
}

// awaitEnd returns when the sandbox is to end, or its machine has ended, and why, when
// nobody asked for it. The end of ctx is a signal, on which the guest is shut down.
func (s *supervisor) awaitEnd(ctx context.Context) (why string) {
	select {
	case <-s.machine.Done():
		s.machine.watched.Wait() // it gives the cause
	case <-s.life.ctx.Done():
	}
	switch {
	case ctx.Err() != nil:
		s.log.Info("ending because of a signal")
		s.shutDown(false)
		return ""
	case s.life.ended():
		return context.Cause(s.life.ctx).Error()
	}
	return "" // its end was requested
}

// reloadRules reads the rules once more after the state file says that the sandbox runs: a
// change made before could not be announced to this process.
func (s *supervisor) reloadRules() {
	if err := s.network.reload(); err != nil {
		s.log.Error("the policy cannot be loaded", "error", err)
	}
}

// machineEnded ends the sandbox if its machine ended by itself. err is how its process
// ended.
func (s *supervisor) machineEnded(err error) {
	if s.life.status().phase == sandbox.Stopping {
		return // its end was requested
	}
	why, crashed := s.machine.whyEnded(err)
	if crashed {
		s.crashed.Store(true)
	}
	s.life.end(why)
}

// endLimit is how long a machine may take to end that has closed its ports.
const endLimit = 5 * time.Second

// startError returns why a start failed. A machine that ends closes its ports first, and
// the errors of those are not the reason.
func (s *supervisor) startError(err error) error {
	if m := s.machine; m != nil && m.agent.Err() != nil {
		m.watch(s.machineEnded)
		select {
		case <-s.life.ctx.Done():
		case <-time.After(endLimit):
		}
	}
	if s.life.ended() {
		return context.Cause(s.life.ctx)
	}
	return err
}

// errTornDown is the cause with which the tasks of a sandbox end that is torn down.
var errTornDown = errors.New("the sandbox has ended")

// tearDown ends all that belongs to the sandbox, and returns when no goroutine of it is
// left. The machine is killed first: nothing may wait for its guest any more.
func (s *supervisor) tearDown() {
	s.life.end(errTornDown)
	if s.machine != nil {
		s.machine.Kill()
	}
	s.closeSSH()
	s.closePorts()
	s.destroyMachine()
	s.killShares()
	s.closeNetwork()
	s.tasks.Wait()
}

// openPorts publishes the ports of the spec, and starts to follow what the guest does there.
func (s *supervisor) openPorts(ctx context.Context) error {
	if _, err := s.ports.Change(s.spec.Ports, nil); err != nil {
		return err
	}
	s.tasks.Go(func() { s.ports.Follow(s.life.ctx) })
	s.awaitPorts(ctx)
	return nil
}

// portsLimit is how long a guest has to report on ports that were published.
const portsLimit = 2 * time.Second

// awaitPorts waits until the guest has reported, for a moment at most.
func (s *supervisor) awaitPorts(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, portsLimit)
	defer cancel()
	s.ports.Await(ctx)
}

func (s *supervisor) closePorts() {
	if s.ports != nil {
		s.ports.Close()
	}
}

// destroyMachine kills the machine, if there is one. The field keeps it: a request under
// way may still use it, and fails.
func (s *supervisor) destroyMachine() {
	if s.machine != nil {
		_ = s.machine.destroy() // watch has told why it ended
	}
}

func (s *supervisor) closeNetwork() {
	if s.network != nil {
		s.network.close()
	}
}
