package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"

	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/supervisor/agent"
	"bawn.dev/bawn/internal/supervisor/shareserver"
	"bawn.dev/bawn/internal/supervisor/vm"
)

// machine is one machine: QEMU's process, the guest's memory, and what leads into the
// guest. A supervisor may have more than one after the other, where one from a template
// does not work. Its methods may be called by several goroutines at once.
type machine struct {
	process
	ram     *os.File
	link    net.Conn // the guest's network
	agent   *agent.Client
	console *console
	kernel  string // version of the guest's kernel, as the agent reports it; set by greet

	watching sync.Once
	watched  sync.WaitGroup // goroutines that end with the process
}

// process is the part of a running qemu.Process that a supervisor uses (package qemu has the
// contracts).
type process interface {
	shareserver.Machine
	Pid() int
	Kill()
	Wait() error
	Done() <-chan struct{}
	Starved() bool
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	SaveState(ctx context.Context, w io.Writer) error
	TrackDisk(ctx context.Context, serial string) (*qemu.Tracked, error)
}

// newMachine takes over a process and the host's ends of its channels.
func newMachine(p process, ram *os.File, c *vm.Channels, out *console, log *slog.Logger) *machine {
	return &machine{process: p, ram: ram, link: c.Link, agent: agent.New(c.Control, c.Mux, log), console: out}
}

// watch calls ended, in a goroutine that belongs to the machine, when its process has ended. Only the
// first call counts. A machine from a template is watched only once it was adopted: until
// then its end does not end the sandbox, which can start in another way.
func (m *machine) watch(ended func(error)) {
	m.watching.Do(func() {
		m.watched.Go(func() { ended(m.Wait()) })
	})
}

// destroy kills the machine and returns when it is gone, with all goroutines that served
// it. It returns how the process ended; nil means that it was killed here.
func (m *machine) destroy() error {
	m.Kill()
	err := m.Wait()
	m.watched.Wait()
	m.agent.Close()
	m.link.Close()
	m.console.wait()
	m.ram.Close()
	return err
}

// paused runs f while the guest is paused.
func (m *machine) paused(ctx context.Context, f func() error) error {
	if err := m.Pause(ctx); err != nil {
		return err
	}
	return errors.Join(f(), m.Resume(ctx))
}

// whileAlive returns ctx, ended also by the machine's end.
func (m *machine) whileAlive(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-m.Done():
			cancel(errMachineGone)
		case <-done:
		}
	})
	return ctx, sync.OnceFunc(func() {
		close(done)
		waiting.Wait()
		cancel(nil)
	})
}

var errMachineGone = errors.New("the machine has ended")

// whyEnded returns why a machine ended by itself, and whether the guest's kernel or QEMU
// crashed. err is the end of its process.
func (m *machine) whyEnded(err error) (why error, crashed bool) {
	if err == nil {
		return errors.New("the guest powered off"), false
	}
	why = fmt.Errorf("the machine ended: %w", err)
	switch {
	case errors.Is(err, qemu.ErrCrashed):
		crashed = true
	case errors.Is(err, qemu.ErrReset):
		if line := m.console.panicLine(); line != "" {
			return fmt.Errorf("%w: %s", why, line), true
		}
	}
	return why, crashed
}
