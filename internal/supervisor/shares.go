package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/wire"
)

// plugShares starts a server for each share that has none yet, and gives the machine a device
// for it. A machine that was restored has the first ones.
func (s *supervisor) plugShares(ctx context.Context) error {
	plans, err := shareserver.Plans(s.spec, s.dir)
	if err != nil {
		return err
	}
	for _, p := range plans[min(len(s.shares), len(plans)):] {
		sh, err := s.startServer(p)
		if err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
		if err := sh.Plug(ctx, s.machine); err != nil {
			sh.Kill()
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
		s.keepServer(sh)
	}
	return nil
}

// savingPoll is the interval of attempts of AddAgent to have the machine for itself.
const savingPoll = 20 * time.Millisecond

// errAddAgent is the cause with which AddAgent ends when it took too long.
var errAddAgent = fmt.Errorf("the sandbox did not take the agent within %v", pauseLimit)

// tellLogins tells the gateway whose logins the sandbox has.
func (s *supervisor) tellLogins() {
	if s.logins != nil {
		s.logins.SetAgents(s.spec.AgentNames())
	}
}

// AddAgent implements control.Service.
func (s *supervisor) AddAgent(ctx context.Context, a sandbox.Agent) error {
	ctx, cancelAdd := context.WithTimeoutCause(ctx, pauseLimit, errAddAgent)
	defer cancelAdd()
	// Nothing saves the machine, and nobody else changes its shares.
	for !s.saving.TryLock() {
		select {
		case <-time.After(savingPoll):
		case <-ctx.Done():
			return errors.Join(errSaving(), context.Cause(ctx))
		}
	}
	defer s.saving.Unlock()
	if phase := s.life.status().phase; phase != sandbox.Running {
		return control.Errorf(control.ReasonPhase, "the sandbox is %s", phase)
	}
	if has, ok := s.spec.Agent(a.Name); ok && has.Home != "" && has != a {
		return control.Errorf(control.ReasonPhase, "the sandbox has version %s of %s until it is stopped", has.Version, a.Name)
	}
	if !s.trusted.Load() && s.logsIn(a.Name) {
		return control.Errorf(control.ReasonPhase, "it does not trust bawn's certificate until it is stopped, which the login of %s needs", a.Name)
	}
	ctx, cancel := s.machine.whileAlive(ctx)
	defer cancel()
	was := s.spec.Agents
	s.spec.SetAgent(a)
	s.tellLogins()
	first := len(s.shares)
	if err := s.plugShares(ctx); err != nil {
		if len(s.shares) == first {
			s.spec.Agents = was
			s.tellLogins()
		}
		if errors.Is(err, qemu.ErrNoPlug) {
			return control.Errorf(control.ReasonPhase, "its machine has no room for another agent until it is stopped")
		}
		return err
	}
	for _, sh := range s.shares {
		if sh.Plan.Path() != a.Programs && sh.Plan.Path() != a.Home {
			continue
		}
		if err := s.machine.agent.Call(ctx, wire.OpMount, sh.Plan.Mount, nil); err != nil {
			return fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
		}
	}
	return nil
}

// mountShares makes the guest mount every share. The machine has their devices.
func (s *supervisor) mountShares(ctx context.Context) error {
	for _, sh := range s.shares {
		if err := s.machine.agent.Call(ctx, wire.OpMount, sh.Plan.Mount, nil); err != nil {
			return fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
		}
	}
	return nil
}

// mountLocalDirs makes the guest put its own disk over the project's local directories.
func (s *supervisor) mountLocalDirs(ctx context.Context) error {
	return s.machine.agent.Call(ctx, wire.OpLocal, wire.LocalDirs{Share: s.spec.Project.Guest, Dirs: s.spec.LocalDirs}, nil)
}

// unmountShares makes the guest unmount every share. The devices stay.
func (s *supervisor) unmountShares(ctx context.Context) error {
	for _, sh := range s.shares {
		if err := s.machine.agent.Call(ctx, wire.OpUnmount, sh.Plan.Mount, nil); err != nil {
			return fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
		}
	}
	return nil
}

// serveShare starts the share's server.
func (s *supervisor) serveShare(p shareserver.Plan) (*shareserver.Server, error) {
	sh, err := s.startServer(p)
	if err != nil {
		return nil, err
	}
	s.keepServer(sh)
	return sh, nil
}

// keepServer adds a server to those that the sandbox has.
func (s *supervisor) keepServer(sh *shareserver.Server) {
	s.sharesMu.Lock()
	defer s.sharesMu.Unlock()
	s.shares = append(s.shares, sh)
}

// startServer starts a server of a share, after what lies at its path is on record as a
// guest's to write: it may be another directory than when the spec was written.
func (s *supervisor) startServer(p shareserver.Plan) (*shareserver.Server, error) {
	if !p.Options.ReadOnly {
		if err := s.dir.RecordShared(p.Path()); err != nil {
			return nil, err
		}
	}
	if err := s.keepChanges(&p); err != nil {
		return nil, err
	}
	sh, err := shareserver.Start(s.self, s.spawner, p, func(err error) { s.shareLost(p, err) })
	if err == nil && p.Options.Undo != "" {
		s.keeper.Store(sh)
	}
	return sh, err
}

// keepChanges makes the server of the project's share keep what the guest changes, for undo.
func (s *supervisor) keepChanges(p *shareserver.Plan) error {
	if p.Options.ReadOnly || p.Path() != s.spec.Dir {
		return nil
	}
	p.Options.Undo = s.dir.File(store.UndoFolder)
	if err := os.MkdirAll(p.Options.Undo, 0o700); err != nil {
		return fmt.Errorf("folder for undo: %w", err)
	}
	return nil
}

// BeginRestorePoint implements control.Service.
func (s *supervisor) BeginRestorePoint(ctx context.Context) error {
	if sh := s.keeper.Load(); sh != nil {
		return sh.Mark(ctx)
	}
	return nil
}

// beginSession begins a restore point for a session that begins while there is no other. A
// server that does not answer goes on with the point that it has.
func (s *supervisor) beginSession(ctx context.Context) {
	if st := s.life.status(); st.sessions > 0 || st.phase != sandbox.Running {
		return // a server that was just started has a new one
	}
	if err := s.BeginRestorePoint(ctx); err != nil {
		s.log.Warn("a restore point was not made", "error", err)
	}
}

// takeOverShares starts servers that take the places of saved ones. With moved, the first
// directory is a copy of the one that was served.
func (s *supervisor) takeOverShares(ctx context.Context, plans []shareserver.Plan, saved []snapshot.Share, moved bool) error {
	for i, p := range plans {
		sh, err := s.serveShare(p)
		if err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
		if err := sh.Load(ctx, saved[i].State, moved && i == 0); err != nil {
			return err
		}
	}
	return nil
}

// killShares ends all servers and returns when they are gone.
func (s *supervisor) killShares() {
	for _, sh := range s.shares {
		sh.Kill()
	}
	s.sharesMu.Lock()
	defer s.sharesMu.Unlock()
	s.shares = nil
}

// shareLost ends the sandbox because a share's server died: QEMU hangs once one of its
// vhost-user backends has ended. A server also ends, with a nil error, when QEMU hangs up;
// the reason is then in the end of QEMU.
func (s *supervisor) shareLost(p shareserver.Plan, err error) {
	if err == nil || s.life.status().phase == sandbox.Stopping {
		return
	}
	s.log.Error("a share server ended", "root", p.Options.Root, "error", err)
	s.life.end(fmt.Errorf("the share server of %s ended unexpectedly: %w", p.Options.Root, err))
}
