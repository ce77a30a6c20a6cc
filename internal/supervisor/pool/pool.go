// Package pool keeps machines ready from which new sandboxes start at once.
//
// Theory of operation. Under software emulation most of the time of a start from a
// template goes into the translation of the guest's code, which QEMU does once for each
// machine. So a pool member is more than a restored machine: it went through a warm-up. It
// was given a name, keys and addresses, mounted an empty directory and ran commands over
// SSH, and was then told to forget all that. What is left to do for a sandbox is the same
// again, with everything translated.
//
// A member is a supervisor with a folder of its own, in a store of its own
// (store.Store.Pool), whose lock it holds. The words:
//
//   - prewarm: start one member and wait until its warm-up is over.
//   - top up: prewarm members of one key until as many are there as are wanted.
//   - key: which sandboxes a member can become. It names the kind of machine, the bawn
//     binary and the environment.
//   - claim: turn a member into a sandbox. The caller passes it over the member's socket
//     what a new supervisor would inherit: the sandbox's lock and the pipe for the start
//     events (package handoff). The member moves its disk and its logs into the sandbox's
//     folder (supervisor, poolmember.go), and is from then on the sandbox's supervisor, as
//     if it had been launched for it.
//
// Nothing of the warm-up can be used later: its keys are replaced before the sandbox's SSH
// server can be reached, and the random generator is seeded first.
//
// This package is the side of the processes that top up, claim and empty the pool. The
// member's side is the daemon's.
package pool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/supervisor/handoff"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/supervisor/vm"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/xdg"
	"bawn.dev/bawn/internal/wire"
)

// Pool is the warm pool of one user. It has no state of its own: the members are
// processes, which the folders in Members describe. TopUp and Empty need the caller to
// hold the lock on the names of Members; Claim does not.
type Pool struct {
	Members *store.Store
	User    wire.User // the account that every guest gets
	// MakeKeys makes the keys of a member's warm-up in its folder. TopUp needs it.
	MakeKeys func(d store.Dir, name string) error
	// Room reports whether one more machine of the spec may run. TopUp needs it.
	Room func(*sandbox.Spec) bool
}

// LaunchTopUp starts a background process that tops up the pool with machines of the kind
// of the sandbox in d, and returns at once. It does nothing where templates are off.
func LaunchTopUp(d store.Dir) error {
	if !handoff.TemplatesEnabled() {
		return nil
	}
	return launch.Beside(d, handoff.TopUpVerb)
}

// TopUp prewarms machines of the kind of like until n of them are ready. Members of other
// kinds are ended, the oldest first, so that there are no more than n in all; folders of
// members that have ended are removed. It stops early, without an error, when there is no
// room for another machine.
func (p *Pool) TopUp(ctx context.Context, n int, like *sandbox.Spec) error {
	key, err := p.key(ctx, like)
	if err != nil {
		return err
	}
	fitting, others, err := p.list(ctx, key)
	if err != nil {
		return err
	}
	for ; fitting < n; fitting++ {
		if !p.Room(like) {
			return nil
		}
		for len(others) > 0 && fitting+len(others) >= n {
			if err := discard(ctx, others[0]); err != nil {
				return err
			}
			others = others[1:]
		}
		if err := p.prewarm(ctx, like, key); err != nil {
			return err
		}
	}
	return nil
}

// Empty ends all members.
func (p *Pool) Empty(ctx context.Context) error {
	names, err := p.Members.Names()
	for _, name := range names {
		err = errors.Join(err, discard(ctx, p.Members.Dir(name)))
	}
	return err
}

// key returns the key of the sandboxes that spec describes.
func (p *Pool) key(ctx context.Context, spec *sandbox.Spec) (string, error) {
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
	kind, err := vm.Kind(binary, vm.Describe(binary, accel, spec), spec, vm.SetupRequest(spec, p.User))
	if err != nil {
		return "", err
	}
	var self unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &self); err != nil {
		return "", fmt.Errorf("/proc/self/exe: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %q", kind, self.Dev, self.Ino, self.Mtim.Nano(), handoff.Env()))
	return hex.EncodeToString(sum[:16]), nil
}

// list counts the members of the key and returns the others, the oldest first. It removes
// what dead members left.
func (p *Pool) list(ctx context.Context, key string) (fitting int, others []store.Dir, err error) {
	names, err := p.Members.Names()
	if err != nil {
		return 0, nil, err
	}
	for _, name := range names { // which begin with the time
		d := p.Members.Dir(name)
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
		if hasKey(d, key) {
			fitting++
		} else {
			others = append(others, d)
		}
	}
	return fitting, others, ctx.Err()
}

// hasKey reports whether the member in d was prewarmed for the key.
func hasKey(d store.Dir, key string) bool {
	b, err := os.ReadFile(d.File(store.PoolKeyFile))
	return err == nil && string(b) == key
}

// discard ends a member and removes its folder.
func discard(ctx context.Context, d store.Dir) error {
	if err := launch.Kill(ctx, d); err != nil {
		return err
	}
	return d.Remove()
}

// prewarm starts one member and returns when it is ready to be claimed.
func (p *Pool) prewarm(ctx context.Context, like *sandbox.Spec, key string) (err error) {
	spec := warmUpSpec(like)
	d, err := p.Members.Reserve(spec.Name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Remove())
		}
	}()
	spec.Dir = d.File(handoff.EmptyFolder)
	spec.Project.Host = spec.Dir
	for i := range spec.Mounts {
		spec.Mounts[i].Host = spec.Dir
	}
	if err := os.Mkdir(spec.Dir, 0o700); err != nil {
		return err
	}
	if err := p.MakeKeys(d, spec.Name); err != nil {
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
	silent := launch.Progress{Stage: func(string) {}, Reachable: func() {}}
	_, err = launch.StartVerb(ctx, handoff.PoolMemberVerb, d, lock, silent)
	return err
}

// warmUpSpec returns the spec of a member's warm-up: of the same kind as like, with a name
// and places that no sandbox has.
func warmUpSpec(like *sandbox.Spec) *sandbox.Spec {
	now := time.Now().UTC()
	id := sandbox.NewID()
	spec := &sandbox.Spec{
		ID: id, Name: fmt.Sprintf("%x-%s", now.Unix(), id[:6]), Project: sandbox.Source{Guest: handoff.WarmUpDir}, Created: now, Fresh: true,
		Image: like.Image, CPUs: like.CPUs, Memory: like.Memory, Disk: like.Disk, Boot: like.Boot,
	}
	for i := range like.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Source{Guest: handoff.WarmUpDir + strconv.Itoa(i)})
	}
	return spec
}
