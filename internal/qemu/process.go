package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/confine"
)

// Process is a running QEMU.
type Process struct {
	*QMP
	cmd  *exec.Cmd
	said *tail // standard error

	registers *registers // nil where the machine has none

	done chan struct{} // closed when the process is gone
	err  error         // why, once done is closed

	mu      sync.Mutex
	killed  bool
	reason  string    // from SHUTDOWN
	starved time.Time // when QEMU last stopped the guest for want of room
	plugs   []bool    // which pcie-root-ports are taken
	where   map[string]plugged
}

// SocketPair makes a stream socket pair: the caller's end, and the end to hand
// to QEMU.
func SocketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "socket pair")
	ours := os.NewFile(uintptr(fds[0]), "socket pair")
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn, theirs, nil
}

// Start runs the machine, confined, and returns when QEMU answers on QMP; the
// guest boots meanwhile. self is the path of this program, whose hidden verb
// confine.Verb must lead to confine.Main.
//
// The files of Console, Ports and NIC are closed, also when it fails, so that
// the caller's ends see the machine's end. RAM and the disks' files stay the
// caller's.
func (m *Machine) Start(ctx context.Context, self string, spawner *confine.Spawner) (*Process, error) {
	defer m.closeSockets()
	if err := m.Check(); err != nil {
		return nil, err
	}
	ours, theirs, err := SocketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	regs, theirRegs, err := SocketPair()
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer theirRegs.Close()
	files := append([]*os.File{theirs, theirRegs}, m.files()...)
	cmd, err := confine.Command(self, m.Profile(), append([]string{m.Binary}, m.Args()...), files...)
	if err != nil {
		ours.Close()
		regs.Close()
		return nil, err
	}
	p := &Process{
		cmd: cmd, said: &tail{}, done: make(chan struct{}),
		plugs: make([]bool, m.Plugs), where: map[string]plugged{},
	}
	cmd.Stdout, cmd.Stderr = p.said, p.said
	cmd.WaitDelay = time.Second // a descriptor that leaked to someone must not hold up Wait
	if err := spawner.Start(cmd); err != nil {
		ours.Close()
		regs.Close()
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	if m.Freezable() {
		p.registers = newRegisters(regs)
	} else {
		regs.Close()
	}
	// QEMU has them now. Our copies must not outlive it: a QEMU that ends before
	// it greets would never show.
	theirs.Close()
	theirRegs.Close()
	m.closeSockets()
	go p.wait()
	if p.QMP, err = newQMP(ctx, ours.(*net.UnixConn)); err != nil {
		p.Kill()
		<-p.done
		if words := p.said.String(); words != "" {
			return nil, fmt.Errorf("start QEMU: it said: %s", words)
		}
		return nil, fmt.Errorf("start QEMU: %w (%v)", err, p.cmd.ProcessState)
	}
	p.attend()
	return p, nil
}

func (m *Machine) closeSockets() {
	if m.Console != nil {
		m.Console.Close()
	}
	for _, p := range m.Ports {
		if p.File != nil {
			p.File.Close()
		}
	}
	if m.NIC != nil && m.NIC.File != nil {
		m.NIC.File.Close()
	}
}

// Shutdown reasons that QEMU reports (qapi/run-state.json, ShutdownCause).
const (
	guestShutdown = "guest-shutdown" // the guest powered off
	guestReset    = "guest-reset"    // it rebooted, or panicked (panic=-1)
)

// farewell is how long QEMU may take to end after it said SHUTDOWN. By then all
// that the guest wrote has reached the host's page cache; what QEMU still does is
// to flush it, and to take leave of its share servers, over which it hangs for
// ever if one of them does not answer.
const farewell = 5 * time.Second

// attend follows the events that concern the machine's life.
func (p *Process) attend() {
	ends, stop := p.Watch(func(e Event) bool { return e.Name == "SHUTDOWN" || noSpace(e) })
	go func() {
		defer stop()
		for {
			select {
			case <-p.done:
				return
			case e := <-ends:
				if e.Name != "SHUTDOWN" {
					p.mu.Lock()
					p.starved = time.Now()
					p.mu.Unlock()
					p.retryWrite()
					continue
				}
				p.shutDown(e)
				select {
				case <-p.done:
				case <-time.After(farewell):
					_ = p.cmd.Process.Kill() // an error means that it is gone already
				}
				return
			}
		}
	}()
}

// shutDown notes why QEMU ends.
func (p *Process) shutDown(e Event) {
	var d struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(e.Data, &d) // a wrong type leaves it empty
	p.mu.Lock()
	p.reason = clean(d.Reason)
	p.mu.Unlock()
}

// spaceRetry is how often a guest that stopped because the host's disk is full
// tries again.
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

// starvedFor is how long after such a stop the guest still counts as waiting:
// the next one follows within spaceRetry if there is no room yet.
const starvedFor = 5 * time.Second

// Starved says whether the guest stands still because the host's disk is full.
func (p *Process) Starved() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.starved.IsZero() && time.Since(p.starved) < starvedFor
}

// retryWrite lets a stopped guest try again after a while. If the disk is still
// full, QEMU stops it again and says so, which leads back here. A guest that
// stands still for another reason by then (it is being saved) is left alone.
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

// wait reaps the process and says why it ended.
func (p *Process) wait() {
	err := p.cmd.Wait()
	p.mu.Lock()
	p.err = ending(err, p.killed, p.reason, p.said.String())
	p.mu.Unlock()
	p.registers.close()
	close(p.done)
}

// ending turns what is known into Wait's answer. How the process ended matters
// only if QEMU did not announce it.
func ending(err error, killed bool, reason, said string) error {
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
		return fmt.Errorf("%w: %w: %s", ErrCrashed, err, said)
	case signalOf(err) != 0: // from outside: QEMU has no words of its own about it
		return fmt.Errorf("QEMU was killed (signal %d)", signalOf(err))
	case said != "":
		return fmt.Errorf("QEMU ended: %w: %s", err, said)
	}
	return fmt.Errorf("QEMU ended: %w", err)
}

// ErrCrashed is part of Wait's answer when QEMU itself crashed. QEMU 7.2 was seen to
// do so under software emulation while a guest with two processors booted: it wrote to
// no memory region at all (memory_region_dispatch_write).
var ErrCrashed = errors.New("QEMU crashed")

// signalOf is the signal by which a process ended, 0 if it ended by itself.
func signalOf(err error) syscall.Signal {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			return s.Signal()
		}
	}
	return 0
}

// crashed says whether a signal means a mistake in the process that it ended.
func crashed(s syscall.Signal) bool {
	return s == syscall.SIGSEGV || s == syscall.SIGABRT || s == syscall.SIGBUS
}

// ErrReset is Wait's answer when the guest rebooted or its kernel panicked; the
// console's log tells which.
var ErrReset = errors.New("the guest rebooted or its kernel panicked")

// Wait returns when QEMU is gone: nil if the guest powered off or Kill ended
// it, else why. It may be called any number of times.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Done is closed when QEMU is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Kill ends QEMU for sure, at once, and as if by pulling the plug: what the
// guest did not flush is lost to it. It returns before QEMU is gone.
func (p *Process) Kill() {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	_ = p.cmd.Process.Kill() // an error means that it is gone already
}

// Pid is QEMU's process ID, 0 for a nil Process.
func (p *Process) Pid() int {
	if p == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// PowerButton presses the guest's power button, to which an agent or init may
// listen.
func (p *Process) PowerButton(ctx context.Context) error {
	return p.Execute(ctx, "system_powerdown", nil, nil)
}

// Pause stops the guest's processors.
func (p *Process) Pause(ctx context.Context) error { return p.Execute(ctx, "stop", nil, nil) }

// Resume lets them go on.
func (p *Process) Resume(ctx context.Context) error { return p.Execute(ctx, "cont", nil, nil) }

// tailLen is how much of QEMU's last words is kept, in bytes.
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
	words := t.buf[max(0, len(t.buf)-maxWords):] // why it ended stands last
	return clean(strings.ToValidUTF8(string(words), "?"))
}
