package engine

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

// Variables that limit all of the user's sandboxes together.
const (
	MaxSandboxesEnv = "BAWN_MAX_SANDBOXES"
	MaxMemoryEnv    = "BAWN_MAX_MEMORY"
)

const (
	defaultMaxSandboxes = 64
	// defaultMaxTimes is how often the host's memory may be promised: guests take
	// what they use, and give back what they free.
	defaultMaxTimes = 4
	// startMemory is what a sandbox takes to start, in bytes: its guest some 150
	// MiB, QEMU under software emulation as much.
	startMemory = 384 << 20
)

// limits returns the limits of the environment variables, or the defaults.
func limits() (store.Limits, error) {
	l := store.Limits{Sandboxes: defaultMaxSandboxes, Memory: defaultMaxTimes * HostMemory()}
	if v := os.Getenv(MaxSandboxesEnv); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return l, fmt.Errorf("%s=%s: must be a number, at least 1", MaxSandboxesEnv, v)
		}
		l.Sandboxes = n
	}
	if v := os.Getenv(MaxMemoryEnv); v != "" {
		n, err := size.Parse(v)
		if err != nil {
			return l, fmt.Errorf("%s: %w", MaxMemoryEnv, err)
		}
		l.Memory = n
	}
	return l, nil
}

// admit takes the lock of a sandbox that is to start, if there is room for it. Machines
// of the warm pool are ended if there is not enough beside them.
func (e *Engine) admit(ctx context.Context, spec *sandbox.Spec) (*lockfile.Lock, error) {
	max, err := limits()
	if err != nil {
		return nil, err
	}
	if err := e.freeMemory(ctx, spec.Name); err != nil {
		return nil, err
	}
	names, err := e.sandboxes.LockNames(ctx)
	if err != nil {
		return nil, err
	}
	defer names.Close()
	l, err := e.sandboxes.Admit(spec, max)
	var much *store.TooMuchError
	if errors.As(err, &much) {
		return nil, because(LimitReached, spec.Name, err)
	}
	if err == nil && !e.sandboxes.Room(&sandbox.Spec{}, max) { // pool machines count too
		err = e.emptyPool(ctx)
	}
	return l, err
}

// freeMemory checks that the host has enough memory for a start.
func (e *Engine) freeMemory(ctx context.Context, name string) error {
	if !memoryLow() {
		return nil
	}
	if err := e.emptyPool(ctx); err != nil || !memoryLow() {
		return err
	}
	return failf(NoMemory, name, "the host has only %s of memory left, and a sandbox needs %s to start",
		size.Format(meminfo.Available()), size.Format(startMemory))
}

func memoryLow() bool {
	free := meminfo.Available()
	return free >= 0 && free < startMemory
}
