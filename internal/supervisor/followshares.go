package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/wire"
)

// A share is of what lies at a path. When the host puts another directory or file there, by
// a rename or a fresh clone, the server of the share still has the old one, and Landlock
// keeps it from any other. So a new server takes its place in the running machine, as in a
// fork with a copy of the project: each file that the guest knows becomes what now lies at
// its place. The guest is paused for that moment.

// FollowShares implements control.Service.
func (s *supervisor) FollowShares(ctx context.Context) error {
	if !s.saving.TryLock() {
		return nil // the machine is being saved, or another caller does this
	}
	defer s.saving.Unlock()
	for i, sh := range s.shares {
		replaced, err := sh.Replaced()
		if err != nil {
			return err
		}
		if !replaced {
			continue
		}
		s.log.Info("a share was replaced on the host", "path", sh.Plan.Path())
		now, err := s.replaceServer(ctx, sh)
		s.sharesMu.Lock()
		s.shares[i] = now
		s.sharesMu.Unlock()
		select {
		case s.replaced <- struct{}{}:
		default:
		}
		if err != nil {
			return fmt.Errorf("%s was replaced on the host, and the sandbox still has the old one (stop the sandbox and run again): %w", sh.Plan.Path(), err)
		}
	}
	return nil
}

// replaceServer puts a new server in the place of one in the running machine, and returns
// the one that the machine has then.
func (s *supervisor) replaceServer(ctx context.Context, old *shareserver.Server) (now *shareserver.Server, err error) {
	alive, cancelAlive := s.machine.whileAlive(context.WithoutCancel(ctx))
	defer cancelAlive()
	ctx, cancel := context.WithTimeout(alive, pauseLimit)
	defer cancel()
	if err := s.machine.agent.Call(ctx, wire.OpSuspend, struct{}{}, nil); err != nil {
		return old, errors.Join(err, s.unpause(ctx))
	}
	if err := s.machine.Pause(ctx); err != nil {
		return old, errors.Join(err, s.unpause(ctx))
	}
	now, err = s.exchange(ctx, old)
	if errors.Is(err, shareserver.ErrDetached) {
		s.endIncomplete(err)
		return now, err
	}
	return now, errors.Join(err, s.unpause(ctx))
}

// exchange is replaceServer while the machine is paused. After an error the machine has the
// old server, unless the error is ErrDetached.
func (s *supervisor) exchange(ctx context.Context, old *shareserver.Server) (*shareserver.Server, error) {
	saved, err := s.detachPaused(ctx, old)
	if err != nil {
		return old, err
	}
	now, err := s.startServer(old.Plan)
	if err == nil {
		if err = now.Load(ctx, saved[0].State, true); err != nil {
			now.Kill()
		}
	}
	if err != nil {
		now = old
	}
	again, cancel := s.afterCapture(ctx)
	defer cancel()
	if failed := shareserver.Attach(again, s.machine, []*shareserver.Server{now}, saved); failed != nil {
		return now, errors.Join(err, fmt.Errorf("%w: %w", shareserver.ErrDetached, failed))
	}
	if now != old {
		old.Kill()
	}
	return now, err
}

// busyTries is how often detachPaused tries to detach a server whose last requests are still being
// answered.
const busyTries = 20

// detachPaused detaches one server from a paused machine.
func (s *supervisor) detachPaused(ctx context.Context, sh *shareserver.Server) (saved []snapshot.Share, err error) {
	for range busyTries {
		saved, err = shareserver.Detach(ctx, s.machine, []*shareserver.Server{sh})
		if err == nil || errors.Is(err, shareserver.ErrDetached) {
			return saved, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(detachPoll):
		}
	}
	return nil, err
}

// watchShares follows the shares while the sandbox runs, until the returned function is
// called. What it misses, the start of the next command does.
func (s *supervisor) watchShares() (stop func()) {
	var paths []string
	for _, sh := range s.shares {
		paths = append(paths, sh.Plan.Path())
	}
	w, err := watchFiles(paths, func() {
		if err := s.FollowShares(s.life.ctx); err != nil {
			s.log.Warn("a share cannot be followed", "error", err)
		}
	})
	if err != nil {
		s.log.Warn("shares that the host replaces are followed at the start of a command only", "error", err)
		return func() {}
	}
	return w.Close
}
