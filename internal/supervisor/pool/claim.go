package pool

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/sys/lockfile"
)

// ErrNoMember means that the pool has no member that can become the sandbox. Nothing has
// happened, and the caller still owns the sandbox's lock.
var ErrNoMember = errors.New("no matching pool machine is ready")

// Claim turns a member into the sandbox in d, which has not been started yet. It is as
// launch.Start, and owns lock as that does, unless it returns ErrNoMember.
func (p *Pool) Claim(ctx context.Context, d store.Dir, spec *sandbox.Spec, lock *lockfile.Lock, on launch.Progress) (launch.Result, error) {
	key, err := p.key(ctx, spec)
	if err != nil {
		return launch.Result{}, errors.Join(ErrNoMember, err)
	}
	return p.claim(ctx, key, d, lock, on)
}

// claim is Claim of a member with the key.
func (p *Pool) claim(ctx context.Context, key string, d store.Dir, lock *lockfile.Lock, on launch.Progress) (launch.Result, error) {
	names, err := p.Members.Names()
	if err != nil {
		return launch.Result{}, errors.Join(ErrNoMember, err)
	}
	for _, name := range names {
		m := p.Members.Dir(name)
		if !hasKey(m, key) {
			continue
		}
		r, err := handOver(ctx, m, d, lock)
		if err != nil {
			continue // it has ended, or another process was quicker
		}
		defer r.Close()
		lock.Close() // the supervisor has it
		return follow(ctx, r, d, on)
	}
	return launch.Result{}, ErrNoMember
}

// follow reads the start events of a member that has taken the sandbox until it is ready.
// After an error the member is gone.
func follow(ctx context.Context, events *os.File, d store.Dir, on launch.Progress) (launch.Result, error) {
	how, err := launch.Follow(ctx, events, on)
	switch {
	case err == nil:
		return how, nil
	case ctx.Err() != nil:
		return launch.Result{}, errors.Join(context.Cause(ctx), launch.Kill(context.WithoutCancel(ctx), d))
	}
	return how, errors.Join(err, launch.AwaitExit(context.WithoutCancel(ctx), d))
}

// handOver offers the sandbox in d to the member in m (package handoff, claim) and returns
// the end of the pipe from which its start events are read.
func handOver(ctx context.Context, m, d store.Dir, lock *lockfile.Lock) (events *os.File, err error) {
	conn, err := m.Dial(ctx, store.ClaimSocket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.New("not a Unix socket")
	}
	if err := c.SetDeadline(time.Now().Add(handoff.ClaimLimit)); err != nil {
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
	if err := handoff.SendClaim(c, d, w, lock); err != nil {
		return nil, err
	}
	if err := handoff.AwaitAgreement(c); err != nil {
		return nil, err
	}
	// From here on the sandbox is the member's.
	if err := d.WriteState(sandbox.State{Phase: sandbox.Starting}); err != nil {
		return nil, err
	}
	return r, handoff.Agree(c)
}
