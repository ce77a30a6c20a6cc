package supervisor

import (
	"context"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/wire"
)

// The control socket: the requests that a supervisor serves while its sandbox runs.

// grace is how long a guest may take to shut down before its machine is killed. Docker's
// containers get ten seconds, and under software emulation the rest of a shutdown is slow
// as well.
const grace = 60 * time.Second

// maxControl bounds the connections to the control socket that are open at once; more wait.
const maxControl = 1024

// serveControl serves the control socket until closeControl is called, which returns when
// no request is served any more.
func (s *supervisor) serveControl() (closeControl func(), err error) {
	l, err := s.dir.Listen(store.ControlSocket)
	if err != nil {
		return nil, err
	}
	requests := &joinable{handler: control.Handler(s)}
	server := &http.Server{Handler: requests, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	s.tasks.Go(func() { _ = server.Serve(netutil.LimitListener(l, maxControl)) })
	return func() {
		s.life.events.Close()
		// A Stop request that ended the sandbox still wants its answer.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		server.Close()
		_ = os.Remove(s.dir.File(store.ControlSocket))
		s.machine.Kill() // a request that is still served ends with the machine
		requests.join()
	}, nil
}

// joinable is a handler whose requests can be waited for, which http.Server.Close does not
// do.
type joinable struct {
	handler http.Handler
	gate    sync.RWMutex // read-locked by each request
	closed  bool
}

func (j *joinable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	j.gate.RLock()
	defer j.gate.RUnlock()
	if j.closed {
		http.Error(w, "the sandbox has ended", http.StatusServiceUnavailable)
		return
	}
	j.handler.ServeHTTP(w, r)
}

// join returns when no request is served any more, and none will be.
func (j *joinable) join() {
	j.gate.Lock()
	defer j.gate.Unlock()
	j.closed = true
}

// Status implements control.Service.
func (s *supervisor) Status() control.Status {
	now := s.life.status()
	var lastUse time.Time
	if t := s.lastUse.Load(); t != nil {
		lastUse = *t
	}
	return control.Status{
		Name: s.spec.Name, Phase: now.phase, PID: os.Getpid(), MachinePID: s.machine.Pid(), Since: now.since,
		Accel: s.platform.accel.Name(), Kernel: s.machine.kernel, Ports: s.ports.List(), Mounts: append([]sandbox.Source{}, s.spec.Mounts...),
		Attached: now.sessions, LastUse: lastUse, Resumed: s.source.resumed, Starved: s.machine.Starved(),
		Access: s.accessRequests(), Goroutines: runtime.NumGoroutine(), Limits: s.limits(),
	}
}

// ChangePorts implements control.Service.
func (s *supervisor) ChangePorts(add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	ports, err := s.ports.Change(add, remove)
	if err == nil {
		s.awaitPorts(s.life.ctx)
	}
	return ports, err
}

// SettleLog implements control.Service.
func (s *supervisor) SettleLog(ctx context.Context) error {
	s.network.gate.Settle(ctx)
	return nil
}

// ReloadPolicy implements control.Service.
func (s *supervisor) ReloadPolicy() error { return s.network.reload() }

// AllowOnce implements control.Service.
func (s *supervisor) AllowOnce(rule string) error { return s.network.allowOnce(rule) }

// AllowedOnce implements control.Service.
func (s *supervisor) AllowedOnce() ([]string, error) { return s.network.allowedOnce(), nil }

// ForgetOnce implements control.Service.
func (s *supervisor) ForgetOnce() error { return s.network.forgetOnce() }

// Subscribe implements control.Service.
func (s *supervisor) Subscribe() *control.Subscription { return s.life.events.Subscribe(s.Status) }

// Stop implements control.Service.
func (s *supervisor) Stop(ctx context.Context, force bool) error {
	done := make(chan struct{})
	s.tasks.Go(func() { // the shutdown continues when no caller waits for it any more
		defer close(done)
		s.shutDown(force)
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// shutDown ends the machine: by asking the guest, and by force if it does not answer. It
// returns when the machine is gone.
func (s *supervisor) shutDown(force bool) {
	first := s.life.beginStop()
	m := s.machine
	if force {
		m.Kill()
		<-m.Done()
		return
	}
	if first {
		_ = s.saveState("") // for bawn ls; the lock is what counts
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if err := m.agent.Call(ctx, wire.OpShutdown, struct{}{}, nil); err != nil {
			s.log.Warn("the guest does not shut down by itself", "error", err)
			m.Kill()
		}
	}
	select {
	case <-m.Done():
	case <-time.After(grace):
		s.log.Warn("the guest did not power off in time: killing QEMU")
		m.Kill()
		<-m.Done()
	}
}
