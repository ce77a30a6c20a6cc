package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"bawn.dev/bawn/internal/control"
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
// of the warm pool are ended if there is not enough beside them. The error where there is no
// room names the sandbox that is idle for the longest time, if one is.
func (e *Engine) admit(ctx context.Context, spec *sandbox.Spec) (*lockfile.Lock, error) {
	max, err := limits()
	if err != nil {
		return nil, err
	}
	if err := e.freeMemory(ctx, spec.Name); err != nil {
		return nil, err
	}
	l, err := e.admitWithin(ctx, spec, max)
	var much *store.TooMuchError
	if errors.As(err, &much) {
		if name, since := longestIdle(e.statuses(ctx)); name != "" {
			err = fmt.Errorf("%w; longest idle is sandbox %s, for %s", err, name, time.Since(since).Round(time.Second))
		}
		return nil, because(LimitReached, spec.Name, err)
	}
	return l, err
}

// admitWithin is admit for these limits, on a host that has memory left.
func (e *Engine) admitWithin(ctx context.Context, spec *sandbox.Spec, max store.Limits) (*lockfile.Lock, error) {
	names, err := e.lockNames(ctx)
	if err != nil {
		return nil, err
	}
	defer names.Close()
	l, err := e.sandboxes.Admit(spec, max)
	if err == nil && !e.sandboxes.Room(&sandbox.Spec{}, max) { // pool machines count too
		err = e.emptyPool(ctx)
	}
	return l, err
}

// statuses returns what the running sandboxes answer within statusLimit, by their names.
func (e *Engine) statuses(ctx context.Context) map[string]control.Status {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	names, _ := e.Names() // without, the error that is being made says less
	all := map[string]control.Status{}
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, n := range names {
		asked.Go(func() {
			s, err := control.NewClient(e.sandboxes.Dir(n).DialControl).Status(ctx)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				all[n] = s
			}
		})
	}
	asked.Wait()
	return all
}

// longestIdle returns the running sandbox to which nobody is attached and whose last use is
// the longest ago; "" if there is none.
func longestIdle(all map[string]control.Status) (name string, since time.Time) {
	for _, n := range slices.Sorted(maps.Keys(all)) {
		s := all[n]
		if s.Phase != sandbox.Running || s.Attached > 0 || s.LastUse.IsZero() {
			continue
		}
		if name == "" || s.LastUse.Before(since) {
			name, since = n, s.LastUse
		}
	}
	return name, since
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
