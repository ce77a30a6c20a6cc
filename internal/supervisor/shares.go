package supervisor

import (
	"context"
	"fmt"

	"bawn.dev/bawn/internal/snapshot"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/wire"
)

// plugAll serves and plugs every share.
func (s *supervisor) plugAll(ctx context.Context) error {
	plans, err := shareserver.Plans(s.spec)
	if err != nil {
		return err
	}
	for _, p := range plans {
		sh, err := s.serveShare(p)
		if err == nil {
			err = sh.Plug(ctx, s.machine)
		}
		if err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
	}
	return nil
}

// mountAll lets the guest mount every share, which it has.
func (s *supervisor) mountAll(ctx context.Context) error {
	for _, sh := range s.shares {
		if err := s.agent.Call(ctx, wire.OpMount, sh.Plan.Mount, nil); err != nil {
			return fmt.Errorf("share %s: %w", sh.Plan.Options.Root, err)
		}
	}
	return nil
}

// serveShare starts the share's server.
func (s *supervisor) serveShare(p shareserver.Plan) (*shareserver.Server, error) {
	sh, err := shareserver.Start(s.self, s.spawner, p, func(err error) { s.lost("the server of the shared directory "+p.Options.Root, err) })
	if err != nil {
		return nil, err
	}
	s.shares = append(s.shares, sh)
	return sh, nil
}

func (s *supervisor) killShares() {
	for _, sh := range s.shares {
		sh.Kill()
	}
	s.shares = nil
}

// lost ends the sandbox because a part of it died: QEMU hangs with a
// vhost-user backend that is gone, so it is ended too.
func (s *supervisor) lost(what string, err error) {
	select {
	case <-s.stopped: // it ended because the machine did
		return
	default:
	}
	if err == nil { // it saw QEMU hang up, whose end tells why
		return
	}
	s.log.Error("lost "+what, "error", err)
	s.end <- fmt.Sprintf("%s died: %v", what, err)
	s.machine.Kill()
}

// succeed starts servers that take the places of saved ones. With moved, the
// directories are copies of those.
func (s *supervisor) succeed(ctx context.Context, plans []shareserver.Plan, saved []snapshot.Share, moved bool) error {
	for i, p := range plans {
		sh, err := s.serveShare(p)
		if err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
		if err := sh.Load(ctx, saved[i].State, moved && i == 0); err != nil {
			return fmt.Errorf("share %s: %w", p.Options.Root, err)
		}
	}
	return nil
}
