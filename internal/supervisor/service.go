package supervisor

import (
	"context"
	"net/http"
	"os"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/wire"
)

// The control socket: what a supervisor does for others while its sandbox runs.

// listen serves the control socket until closeAll is called.
func (s *supervisor) listen() (closeAll func(), err error) {
	ctl, err := s.dir.Listen(store.ControlSocket)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: control.Handler(s), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ctl)
	}()
	return func() {
		s.events.Close()
		// A Stop request that ended the sandbox still wants its answer.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(ctx)
		server.Close()
		<-done
		_ = os.Remove(s.dir.File(store.ControlSocket))
	}, nil
}

// Status implements control.Service.
func (s *supervisor) Status() control.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return control.Status{
		Name: s.spec.Name, Phase: s.phase, PID: os.Getpid(), MachinePID: s.machine.Pid(), Since: s.since,
		Accel: s.accel.Name(), Kernel: s.kernel, Ports: s.ports.List(), Mounts: append([]sandbox.Source{}, s.spec.Mounts...),
		Attached: s.sessions, Resumed: s.resumed, Starved: s.machine.Starved(),
	}
}

// ChangePorts implements control.Service.
func (s *supervisor) ChangePorts(add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	return s.ports.Change(add, remove)
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
func (s *supervisor) Subscribe() *control.Subscription {
	return s.events.Subscribe(s.Status)
}

// Stop implements control.Service.
func (s *supervisor) Stop(ctx context.Context, force bool) error {
	done := make(chan struct{})
	go func() { s.shutDown(force); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done(): // the machine goes on shutting down
		return context.Cause(ctx)
	}
}

// shutDown ends the machine: by asking the guest, and by force if it does not
// listen. It returns when the machine is gone.
func (s *supervisor) shutDown(force bool) {
	s.mu.Lock()
	again := s.phase == sandbox.Stopping
	s.phase = sandbox.Stopping
	s.mu.Unlock()
	if !again {
		s.events.Send(control.Event{Kind: control.KindPhase, Phase: sandbox.Stopping})
	}
	if force {
		s.machine.Kill()
		<-s.stopped
		return
	}
	if !again {
		_ = s.note("") // for who lists; the lock is what counts
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if err := s.agent.Call(ctx, wire.OpShutdown, struct{}{}, nil); err != nil {
			s.log.Warn("the guest does not shut down by itself", "error", err)
			s.machine.Kill()
		}
	}
	select {
	case <-s.stopped:
	case <-time.After(grace):
		s.log.Warn("the guest did not power off in time: pulling the plug")
		s.machine.Kill()
		<-s.stopped
	}
}

// reportDenial passes what was denied to the subscribers of events.
func (s *supervisor) reportDenial(e audit.Entry) {
	if e.Verdict != audit.Denied {
		return
	}
	s.events.Send(control.Event{Kind: control.KindDenial, Time: e.Time, Denial: &control.Denial{
		Proto: e.Proto, App: e.App, Name: e.Name, Addr: e.Addr, Port: e.Port,
		Rule: e.Rule, Reason: e.Reason, Suggest: e.Suggest, Process: e.Process, Count: e.Count,
	}})
}
