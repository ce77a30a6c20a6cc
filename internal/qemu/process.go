package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a running QEMU. Its methods may be called by several goroutines at once;
// those that save, freeze, thaw or plug must not overlap.
type Process struct {
	*QMP
	cmd    *exec.Cmd
	output *tail // standard output and error

	registers *registers // nil where the machine has none

	done chan struct{} // closed when the process is gone
	err  error         // why, once done is closed

	mu      sync.Mutex
	killed  bool
	reason  string         // from SHUTDOWN
	starved time.Time      // when QEMU last stopped the guest because of a full disk
	plugs   []bool         // whether each pcie-root-port is in use
	plugOf  map[string]int // the root port of each plugged device, by its ID
}

// Shutdown reasons that QEMU reports (qapi/run-state.json, ShutdownCause).
const (
	guestShutdown = "guest-shutdown" // the guest powered off
	guestReset    = "guest-reset"    // it rebooted, or panicked (panic=-1)
)

// exitLimit is how long QEMU may take to end after its SHUTDOWN event. By then all
// that the guest wrote has reached the host's page cache; QEMU still flushes it, and
// disconnects from its share servers, where it hangs for ever if one of them does not
// answer.
const exitLimit = 5 * time.Second

// watchLife starts a goroutine that handles QEMU's events about the end of the machine
// and about a full disk. It ends when QEMU is gone.
func (p *Process) watchLife() {
	events, stop := p.Watch(func(e Event) bool { return e.Name == "SHUTDOWN" || noSpace(e) })
	go func() {
		defer stop()
		for {
			select {
			case <-p.done:
				return
			case e := <-events:
				if e.Name == "SHUTDOWN" {
					p.finish(e)
					return
				}
				p.mu.Lock()
				p.starved = time.Now()
				p.mu.Unlock()
				p.retryWrite()
			}
		}
	}()
}

// finish records why QEMU ends, and kills it if it does not end within exitLimit.
func (p *Process) finish(e Event) {
	var d struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(e.Data, &d) // a wrong type leaves it empty
	p.mu.Lock()
	p.reason = clean(d.Reason)
	p.mu.Unlock()
	select {
	case <-p.done:
	case <-time.After(exitLimit):
		_ = p.cmd.Process.Kill() // an error means that it is gone already
	}
}

// spaceRetry is how long a guest that stopped because the host's disk is full waits
// before it tries again.
const spaceRetry = time.Second

// noSpace reports whether QEMU stopped the guest because the host's disk is
// full (virtio-blk's default, werror=enospc). The guest's write is kept.
func noSpace(e Event) bool {
	if e.Name != "BLOCK_IO_ERROR" {
		return false
	}
	var d struct {
		Action  string `json:"action"`
		NoSpace bool   `json:"nospace"`
	}
	return json.Unmarshal(e.Data, &d) == nil && d.Action == "stop" && d.NoSpace
}

// starvedFor is how long after such a stop the guest still counts as stopped:
// the next stop follows within spaceRetry if there is no room yet.
const starvedFor = 5 * time.Second

// Starved reports whether the guest is stopped because the host's disk is full. It
// is false for a nil Process.
func (p *Process) Starved() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.starved.IsZero() && time.Since(p.starved) < starvedFor
}

// retryWrite lets a stopped guest try again after spaceRetry. If the disk is still
// full, QEMU stops it again and sends the event again. A guest that is paused for
// another reason by then (it is being saved) is left alone.
func (p *Process) retryWrite() {
	select {
	case <-p.done:
	case <-time.After(spaceRetry):
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var is struct {
			Status string `json:"status"`
		}
		if p.Execute(ctx, "query-status", nil, &is) == nil && is.Status == ioError {
			_ = p.Resume(ctx) // an error means that QEMU is gone
		}
	}
}

// ioError is QEMU's state of a guest that it stopped over a write
// (qapi/run-state.json, RunState).
const ioError = "io-error"

// wait reaps the process and records why it ended.
func (p *Process) wait() {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.err = ending(err, p.killed, p.reason, p.output.String())
	p.mu.Unlock()
	p.registers.close()
	close(p.done)
}

// ending makes Wait's result from what is known. How the process ended matters
// only if QEMU did not announce it.
func ending(err error, killed bool, reason, output string) error {
	switch {
	case killed || reason == guestShutdown:
		return nil
	case reason == guestReset:
		return ErrReset
	case reason != "":
		return fmt.Errorf("QEMU ended: %s", reason)
	case err == nil:
		return errors.New("QEMU ended without a reason")
	case crashed(signalOf(err)):
		return fmt.Errorf("%w: %w: %s", ErrCrashed, err, output)
	case signalOf(err) != 0: // from outside: QEMU printed nothing about it
		return fmt.Errorf("QEMU was killed (signal %d)", signalOf(err))
	case output != "":
		return fmt.Errorf("QEMU ended: %w: %s", err, output)
	}
	return fmt.Errorf("QEMU ended: %w", err)
}

// ErrCrashed is part of Wait's result when QEMU itself crashed. QEMU 7.2 was seen to
// do so under software emulation while a guest with two processors booted: it wrote to
// no memory region at all (memory_region_dispatch_write).
var ErrCrashed = errors.New("QEMU crashed")

// signalOf returns the signal by which a process ended, 0 if it ended by itself.
func signalOf(err error) syscall.Signal {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return s.Signal()
		}
	}
	return 0
}

// crashed reports whether a signal means a bug in the process that it ended.
func crashed(s syscall.Signal) bool {
	return s == syscall.SIGSEGV || s == syscall.SIGABRT || s == syscall.SIGBUS
}

// ErrReset is Wait's result when the guest rebooted or its kernel panicked; the
// console's log shows which.
var ErrReset = errors.New("the guest rebooted or its kernel panicked")

// Wait returns when QEMU is gone: nil if the guest powered off or Kill ended
// it, else the reason. It may be called any number of times.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when QEMU is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends QEMU at once, whatever state it is in (SIGKILL). Like a power failure, it
// loses what the guest did not flush. It returns before QEMU is gone; see Wait. A nil
// Process is left alone.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // an error means that it is gone already
}

// Pid returns QEMU's process ID, 0 for a nil Process.
func (p *Process) Pid() int {
	if p == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Pause stops the guest's processors. After an error QEMU may still carry it out, also
// later: Resume undoes that.
func (p *Process) Pause(ctx context.Context) error { return p.Execute(ctx, "stop", nil, nil) }

// Resume lets the guest's processors run again.
func (p *Process) Resume(ctx context.Context) error { return p.Execute(ctx, "cont", nil, nil) }

// tailLen is how much of QEMU's output is kept, in bytes.
const tailLen = 4096

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b[max(0, len(b)-tailLen):]...)
	t.buf = t.buf[max(0, len(t.buf)-tailLen):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := t.buf[max(0, len(t.buf)-maxWords):] // the reason why it ended comes last
	return clean(strings.ToValidUTF8(string(end), "?"))
}
