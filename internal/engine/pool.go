package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sandbox/store"
	"bawn.dev/bawn/internal/session"
	"bawn.dev/bawn/internal/supervisor/launch"
	"bawn.dev/bawn/internal/supervisor/pool"
	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/lockfile"
	"bawn.dev/bawn/internal/sys/meminfo"
)

// MaxPool bounds the number of pool machines: each takes the memory of an idle
// sandbox.
const MaxPool = 16

// PoolSize returns how many pool machines are to be kept ready.
func (e *Engine) PoolSize() (int, error) {
	file := e.poolSizeFile()
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 || n > MaxPool {
		return 0, &Error{Reason: PoolSizeDamaged, Path: file, Err: fmt.Errorf("%s: %q is not a number of pool machines", file, b)}
	}
	return n, nil
}

func (e *Engine) poolSizeFile() string { return filepath.Join(e.sandboxes.Root(), "pool.size") }

// ResizePool sets how many pool machines are kept ready from the next start on. 0 ends all.
func (e *Engine) ResizePool(ctx context.Context, n int) error {
	if n < 0 || n > MaxPool {
		return &Error{Reason: InvalidPoolSize, Err: fmt.Errorf("%d pool machines: must be 0 to %d", n, MaxPool)}
	}
	p, l, err := e.lockPool(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := atomicfile.Write(e.poolSizeFile(), fmt.Appendln(nil, n)); err != nil || n > 0 {
		return err
	}
	return e.during("Ending the pool machines", func() error { return p.Empty(ctx) })
}

// warmPool returns the pool of the engine's sandboxes.
func (e *Engine) warmPool() (*pool.Pool, error) {
	members, err := e.sandboxes.Pool()
	if err != nil {
		return nil, err
	}
	return &pool.Pool{
		Members: members, User: GuestUser(), MakeKeys: session.MakeKeys,
		Room: func(s *sandbox.Spec) bool {
			max, err := limits()
			return err == nil && e.sandboxes.Room(s, max) && meminfo.Available() > 2*startMemory
		},
	}, nil
}

// lockPool takes the right to top up or empty the pool.
func (e *Engine) lockPool(ctx context.Context) (*pool.Pool, *lockfile.Lock, error) {
	p, err := e.warmPool()
	if err != nil {
		return nil, nil, err
	}
	var l *lockfile.Lock
	err = e.during("Waiting for another bawn command that fills or empties the pool", func() error {
		l, err = p.Members.LockNames(ctx)
		return err
	})
	return p, l, err
}

// emptyPool ends all pool machines, to make room for a sandbox that is to start.
func (e *Engine) emptyPool(ctx context.Context) error {
	p, err := e.warmPool()
	if err != nil {
		return err
	}
	return e.during("Ending pool machines to make room", func() error { return p.Empty(ctx) })
}

// Ready is the phase of a pool machine that can be claimed.
const Ready sandbox.Phase = "ready"

// PoolMember is a pool machine. Its JSON form is stable.
type PoolMember struct {
	ID     string        `json:"id"`
	State  sandbox.Phase `json:"state"`
	CPUs   int           `json:"cpus"`
	Memory int64         `json:"memory"`
	Disk   int64         `json:"disk"`
	Image  string        `json:"image"`
	Since  time.Time     `json:"since,omitzero"`
}

// Pool lists the pool machines, also those that are still being prepared.
func (e *Engine) Pool() ([]PoolMember, error) {
	members, err := e.sandboxes.Pool()
	if err != nil {
		return nil, err
	}
	names, err := members.Names()
	if err != nil {
		return nil, err
	}
	list := []PoolMember{}
	for _, name := range names {
		d := members.Dir(name)
		spec, err := d.Spec()
		if err != nil {
			continue // it became a sandbox meanwhile
		}
		st, err := d.State()
		if err != nil {
			return nil, err
		}
		m := PoolMember{spec.ID, st.Phase, spec.CPUs, spec.Memory, spec.Disk, spec.Image, st.Since}
		if m.State == sandbox.Running {
			m.State = Ready
		}
		list = append(list, m)
	}
	return list, nil
}

// TopUpPool tops the pool up to its size with machines of the spec's kind. The sandbox
// of the spec need not exist any more.
func (e *Engine) TopUpPool(ctx context.Context, spec *sandbox.Spec) error {
	n, err := e.PoolSize()
	if err != nil || n == 0 {
		return err
	}
	p, l, err := e.lockPool(ctx)
	if err != nil {
		return err
	}
	defer l.Close()
	return p.TopUp(ctx, n, spec)
}

// warmUps are the commands that are run in the guest of a pool machine before it is
// used: a program, and a shell with its start-up files. Images that lack one start as
// well.
var warmUps = [][]string{{"echo", "ready"}, {"bash", "-lc", "true"}, {"echo", "ready"}}

// WarmUp runs commands in the guest of a pool machine, so that the user's
// first command finds the guest's caches filled.
func WarmUp(ctx context.Context, d store.Dir) error {
	for _, argv := range warmUps {
		c, err := session.Dial(ctx, d, GuestUser().Name)
		if err != nil {
			return err
		}
		_, err = c.Run(ctx, session.Command{Argv: argv, Stdout: io.Discard, Stderr: io.Discard})
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// claim turns a pool machine into the sandbox, if one of its kind is ready. claimed is false
// if none was; then nothing has changed.
func (e *Engine) claim(ctx context.Context, spec *sandbox.Spec, lock *lockfile.Lock, on launch.Progress) (how launch.Result, claimed bool, err error) {
	n, err := e.PoolSize()
	if err != nil || n == 0 || !spec.Fresh {
		return how, false, err
	}
	p, err := e.warmPool()
	if err != nil {
		return how, false, err
	}
	how, err = p.Claim(ctx, e.sandboxes.Dir(spec.Name), spec, lock, on)
	if errors.Is(err, pool.ErrNoMember) {
		return how, false, nil
	}
	return how, true, err
}
