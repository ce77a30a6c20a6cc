package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/meminfo"
	"bawn.dev/bawn/internal/sys/size"
)

// Limits on all of a person's sandboxes together.
const (
	maxSandboxesEnv = "BAWN_MAX_SANDBOXES"
	maxMemoryEnv    = "BAWN_MAX_MEMORY"

	defaultMaxSandboxes = 64
	// defaultMaxTimes is how often the host's memory may be promised: guests take
	// what they use, and give back what they free.
	defaultMaxTimes = 4
	// startMemory is what a sandbox takes to start, in bytes: its guest some 150
	// MiB, QEMU under software emulation as much.
	startMemory = 384 << 20
)

// limits are those of the environment, or the default ones.
func limits() (store.Limits, error) {
	l := store.Limits{Sandboxes: defaultMaxSandboxes, Memory: defaultMaxTimes * totalMemory()}
	if v := os.Getenv(maxSandboxesEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return l, fmt.Errorf("%s=%s: want a number, at least 1", maxSandboxesEnv, v)
		}
		l.Sandboxes = n
	}
	if v := os.Getenv(maxMemoryEnv); v != "" {
		n, err := size.Parse(v)
		if err != nil {
			return l, fmt.Errorf("%s: %w", maxMemoryEnv, err)
		}
		l.Memory = n
	}
	return l, nil
}

// admit takes the lock of a sandbox that is to start, if there is room for it.
func admit(ctx context.Context, sandboxes *store.Store, spec *sandbox.Spec) (*lockfile.Lock, error) {
	max, err := limits()
	if err != nil {
		return nil, err
	}
	if free := meminfo.Available(); free >= 0 && free < startMemory {
		if err := emptyPool(ctx, sandboxes); err != nil {
			return nil, err
		}
	}
	if free := meminfo.Available(); free >= 0 && free < startMemory {
		return nil, hint(fmt.Errorf("this machine has only %s of memory left, and a sandbox takes %s to start",
			size.Format(free), size.Format(startMemory)), "bawn suspend another sandbox (bawn ls)")
	}
	names, err := sandboxes.LockNames(ctx)
	if err != nil {
		return nil, err
	}
	defer names.Close()
	l, err := sandboxes.Admit(spec, max)
	var much *store.TooMuchError
	if errors.As(err, &much) {
		return nil, hint(err, "bawn suspend another one (bawn ls), or a larger %s or %s", maxSandboxesEnv, maxMemoryEnv)
	}
	if err == nil && !sandboxes.Room(&sandbox.Spec{}, max) { // what waits must not go beyond them either
		err = emptyPool(ctx, sandboxes)
	}
	return l, err
}

// emptyPool makes room for a sandbox that somebody wants now.
func emptyPool(ctx context.Context, sandboxes *store.Store) error {
	p, err := warmPool(sandboxes)
	if err != nil {
		return err
	}
	return p.Empty(ctx)
}
