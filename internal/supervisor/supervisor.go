// Package supervisor is the process that owns one running sandbox: its QEMU,
// its share servers, its published ports and its sockets.
//
// Theory of operation. `bawn` launches a supervisor in a session of its own
// (Launch) and hears from it through a pipe until the sandbox is ready. From
// then on the supervisor stands alone. It holds the sandbox's lock while it
// lives. All its children are forked from one thread with a parent-death
// signal (proc.Spawner), so the kernel ends them when the supervisor dies,
// even by SIGKILL; guest memory lies in a memfd and the guest's ports on
// socket pairs, so nothing is left on disk but two dead sockets, which the next
// start replaces, and a state note that no longer counts because nobody holds
// the lock.
//
// Run has three parts: bring up (boot.go), serve until something ends it, and
// tear down, which is the same however it came to it. The four things that end
// it are a Stop request, a signal, the machine's end and a share server's end.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/publish"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/proc"
	"bawn.dev/bawn/internal/wire"
)

// Bounds of the logs, in bytes of one file; one older file is kept beside it.
const (
	maxConsoleLog    = 1 << 20
	maxSupervisorLog = 1 << 20
)

// grace is how long a guest may take to shut down before the plug is pulled.
// Docker's containers get ten seconds, and under software emulation the rest
// takes its time as well.
const grace = 60 * time.Second

// supervisor is one running sandbox.
type supervisor struct {
	dir  store.Dir
	spec *sandbox.Spec
	user wire.User
	self string // path of this program

	lock           *lockfile.Lock
	log            *slog.Logger
	logTo, console *logFile

	spawner *proc.Spawner
	tell    handoff.Report

	accel    qemu.Accel
	binary   qemu.Binary
	machine  *qemu.Process
	printed  *printed // by the machine
	crashed  atomic.Bool
	ram      *os.File // the machine's memory
	kind     string   // of machine (template.Kind)
	resumed  bool     // it was suspended
	restored bool     // from a template
	ready    bool     // from its point Ready
	waited   bool     // for this sandbox (pool.go)
	shares   []*shareserver.Server
	agent    *agent.Client
	ports    *publish.Ports
	link     net.Conn // the guest's network
	network  *network
	ssh      *accept.Group
	names    map[string]uint32 // that the guest knew before it was suspended
	since    time.Time
	kernel   string

	mu       sync.Mutex
	phase    sandbox.Phase
	sessions int // ssh connections

	saving sync.Mutex // one at a time writes the machine down

	events control.Broadcaster // for clients of the control socket

	watched bool          // the machine
	stopped chan struct{} // closed when the machine is gone
	end     chan string   // why to end, when not asked to
}

// Run is the life of a supervisor. It returns when the sandbox has ended.
func Run(ctx context.Context, d store.Dir, user wire.User) error {
	tell, done := handoff.EventWriter(os.NewFile(handoff.EventFD, "launcher"))
	defer done()
	s, err := open(d, handoff.LockFD, user, tell)
	if err == nil {
		err = errors.Join(s.run(ctx, s.boot), s.close())
	}
	if err != nil {
		tell(handoff.StartEvent{Error: err.Error(), Crashed: s != nil && s.crashed.Load()})
	}
	return err
}

// open makes a supervisor of what is in the folder, whose lock was inherited as the
// descriptor. After an error this process has no more to do.
func open(d store.Dir, lockFD int, user wire.User, tell handoff.Report) (*supervisor, error) {
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
	logTo, err := openLog(d.File(store.SupervisorLogFile), maxSupervisorLog)
	if err != nil {
		return nil, err
	}
	console, err := openLog(d.File(store.ConsoleFile), maxConsoleLog)
	if err != nil {
		return nil, err
	}
	s := &supervisor{
		dir: d, spec: spec, user: user, self: self, lock: lock, logTo: logTo, console: console,
		log:     slog.New(slog.NewTextHandler(logTo, handoff.LogOptions())),
		spawner: proc.NewSpawner(),
		phase:   sandbox.Starting,
		stopped: make(chan struct{}),
		end:     make(chan string, 8),
	}
	s.setTell(tell)
	return s, s.note("")
}

// close lets go of the logs and, last, of the sandbox.
func (s *supervisor) close() error {
	return errors.Join(s.console.Close(), s.logTo.Close(), s.dir.RemoveUnowned(), s.lock.Close())
}

// setTell names who is told how far the start is.
func (s *supervisor) setTell(tell handoff.Report) {
	s.tell = func(n handoff.StartEvent) {
		if n.Stage != "" {
			s.log.Debug(n.Stage)
		}
		tell(n)
	}
}

// run is the life of the sandbox, which boot brings up.
func (s *supervisor) run(ctx context.Context, boot func(context.Context) error) error {
	why, err := s.live(ctx, boot)
	if err != nil {
		why = err.Error()
		s.log.Error("start failed", "error", err)
	}
	s.setPhase(sandbox.Stopped)
	return errors.Join(err, s.note(why))
}

// note writes down how far the sandbox is.
func (s *supervisor) note(message string) error {
	s.mu.Lock()
	st := sandbox.State{Phase: s.phase, PID: os.Getpid(), Since: s.since, Accel: s.accel.Name(), Message: message}
	s.mu.Unlock()
	if st.Phase == sandbox.Stopped {
		st.PID = 0
	}
	return s.dir.WriteState(st)
}

// catchUp reads the rules again once the note says that the sandbox runs: who
// changed them before had nobody to tell.
func (s *supervisor) catchUp() {
	if err := s.network.reload(); err != nil {
		s.log.Error("the policy cannot be loaded", "error", err)
	}
}

// setRunning makes the phase Running, since now.
func (s *supervisor) setRunning() {
	s.mu.Lock()
	s.since = time.Now().UTC()
	s.mu.Unlock()
	s.setPhase(sandbox.Running)
}

func (s *supervisor) setPhase(p sandbox.Phase) {
	s.mu.Lock()
	s.phase = p
	s.mu.Unlock()
	s.events.Send(control.Event{Kind: control.KindPhase, Phase: p})
}

// live brings the sandbox up, serves it, and tears it down. It returns why it
// ended, when nobody asked for it.
func (s *supervisor) live(ctx context.Context, boot func(context.Context) error) (why string, err error) {
	defer s.tearDown()
	if err := s.start(ctx, boot); err != nil {
		return "", err
	}
	s.startWatch()
	closeSockets, err := s.listen()
	if err != nil {
		return "", err
	}
	defer closeSockets()
	if _, err := s.ports.Change(s.spec.Ports, nil); err != nil {
		return "", err
	}
	s.setRunning()
	if err := s.note(""); err != nil {
		return "", err
	}
	s.catchUp()
	s.log.Info("running", "kind", s.kind, "template", s.restored, "resumed", s.resumed, "waited", s.waited, "accel", s.accel.Name(), "qemu", s.machine.Pid())
	s.tell(handoff.StartEvent{Ready: true, Cold: !s.restored && !s.resumed})
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	go s.watchIdle(watching)
	go s.watchClock(watching)
	go s.watchSpace(watching)
	if s.spec.Throwaway {
		go s.watchOwner(watching)
	}

	select {
	case why = <-s.end:
	case <-ctx.Done():
		s.log.Info("told to end by a signal")
		s.shutDown(false)
	case <-s.stopped:
		select {
		case why = <-s.end:
		default: // it was to end
		}
	}
	s.log.Info("ending", "why", why)
	s.events.Send(control.Event{Kind: control.KindPhase, Phase: sandbox.Stopping, Message: why})
	return why, nil
}

// start brings the sandbox up. Whatever ends the sandbox ends the start as well.
func (s *supervisor) start(ctx context.Context, boot func(context.Context) error) error {
	starting, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	booted, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		select {
		case why := <-s.end:
			s.end <- why // for who looks next
			cancel(errors.New(why))
		case <-booted:
		}
	}()
	err := boot(starting)
	if err != nil {
		err = s.whyNot(starting, err)
	}
	close(booted)
	<-done
	return err
}

// endLimit is how long a machine may take to end that has closed its ports.
const endLimit = 5 * time.Second

// whyNot is why a start failed. A machine that ends closes its ports first, and
// what is said of those is not why.
func (s *supervisor) whyNot(starting context.Context, err error) error {
	if s.machine != nil && s.agent != nil && s.agent.Err() != nil {
		s.startWatch()
		select {
		case <-starting.Done():
		case <-time.After(endLimit):
		}
	}
	if c := context.Cause(starting); c != nil {
		return c
	}
	return err
}

// tearDown ends whatever was brought up, and waits for it.
func (s *supervisor) tearDown() {
	s.closeSSH()
	if s.ports != nil {
		s.ports.Close()
	}
	if s.machine != nil {
		s.machine.Kill()
		s.startWatch()
		<-s.stopped
	}
	s.killShares()
	if s.network != nil {
		s.network.close()
	}
}

// startWatch watches the machine from now on, if that was not begun. One from a
// template is not watched until it is the sandbox's: its end would end the start,
// which can go on with another.
func (s *supervisor) startWatch() {
	if !s.watched {
		s.watched = true
		go s.watch()
	}
}

// watch reports a machine's end, and why if it was not to end.
func (s *supervisor) watch() {
	defer close(s.stopped)
	err := s.machine.Wait()
	s.mu.Lock()
	asked := s.phase == sandbox.Stopping
	s.mu.Unlock()
	if !asked {
		s.end <- s.whyEnded(err)
	}
}

func (s *supervisor) whyEnded(err error) string {
	if err == nil {
		return "the guest powered off"
	}
	why := fmt.Sprintf("the machine ended: %v", err)
	switch {
	case errors.Is(err, qemu.ErrCrashed):
		s.crashed.Store(true)
	case errors.Is(err, qemu.ErrReset):
		if said := s.printed.panic(); said != "" {
			s.crashed.Store(true)
			why += ": " + said
		}
	}
	return why
}
