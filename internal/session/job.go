package session

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"bawn.dev/bawn/internal/wire"
)

// Theory of operation. To the person's shell this process is the command: it is what the
// shell stops, continues, and gives the terminal to. So when the command in the guest stops
// (the guest reports it), this process gives the terminal its modes back and stops itself,
// and when it is continued, it continues the command.
//
// Only the process group in the terminal's foreground may change its modes or read from it;
// any other is stopped for that (SIGTTOU, SIGTTIN). In the background the command therefore
// runs without the person's terminal in raw mode and without input, until the shell brings
// this process to the foreground. A shell may do so without a signal, so the foreground is
// looked at now and then while this process is not there.

// foreground is this process's use of the person's terminal while a command runs.
type foreground struct {
	t       *Terminal // nil for a command without one
	job     bool      // this process stops with the command
	signals chan os.Signal

	mu  sync.Mutex
	raw *term.State // the terminal's modes before it was set to raw mode; nil if it is not
	own bool        // this process was in the foreground when that was last looked at
}

// attach gives the session a terminal of the same size and type in the guest, if the
// command has one. The caller calls enter once the command is started: until then its guest may
// not answer, and Ctrl-C must be a signal of the person's terminal. It calls detach in the end.
func attach(s *remote, cmd Command) (*foreground, error) {
	f := &foreground{t: cmd.Terminal, job: cmd.JobControl && s.current, signals: make(chan os.Signal, 8)}
	if f.t != nil {
		signal.Notify(f.signals, syscall.SIGWINCH) // before the size is read: no change is missed
	}
	if f.job {
		for _, sig := range []os.Signal{syscall.SIGTSTP, syscall.SIGCONT} {
			if !signal.Ignored(sig) {
				signal.Notify(f.signals, sig)
			}
		}
	}
	if f.t == nil {
		return f, nil
	}
	if err := s.ask("pty-req", f.t.request()); err != nil {
		f.detach()
		return nil, fmt.Errorf("terminal: %w", err)
	}
	return f, nil
}

// detach gives the terminal its modes back. Signals have their usual effect again.
func (f *foreground) detach() {
	signal.Stop(f.signals)
	f.leave()
}

// isTerminal reports whether a file is a terminal.
func (f *foreground) isTerminal(file *os.File) (is bool) {
	_ = control(file, func(fd int) { is = term.IsTerminal(fd) })
	return is
}

// owns reports whether this process may read from a file and change its modes: whether it
// is in the foreground, if the file is its terminal.
func (f *foreground) owns(file *os.File) bool {
	own := true
	_ = control(file, func(fd int) {
		group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP) // fails for a file that is not this process's terminal
		own = err != nil || group == unix.Getpgrp()
	})
	return own
}

// enter sets the terminal to raw mode if this process is in its foreground. It does so again
// where the terminal was in raw mode before: a shell sets its own modes when it takes the
// terminal.
func (f *foreground) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.t == nil {
		return nil
	}
	if f.own = f.owns(f.t.In); !f.own {
		return nil
	}
	was, err := term.MakeRaw(int(f.t.In.Fd()))
	if f.raw == nil {
		f.raw = was
	}
	return err
}

// leave gives the terminal its modes back. In the background that is the shell's to do.
func (f *foreground) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.raw != nil && f.owns(f.t.In) {
		_ = term.Restore(int(f.t.In.Fd()), f.raw)
	}
	f.raw = nil
}

// follow passes signals and changes of the terminal's size on, and keeps this process and
// the command stopped and running together, until over is closed.
func (f *foreground) follow(s *remote, to *forwarder, signals <-chan os.Signal, over <-chan struct{}) {
	tick := time.NewTicker(backgroundPoll)
	defer tick.Stop()
	select {
	case <-to.ready:
	case <-over:
		return
	}
	pass := func() { // what was sent before SIGCONT reaches the command before it
		for len(signals) > 0 {
			to.pass(s, <-signals)
		}
	}
	for {
		select {
		case sig, ok := <-signals:
			if !ok {
				signals = nil
				continue
			}
			to.pass(s, sig)
		case sig := <-f.signals:
			pass()
			f.handle(s, sig)
		case name := <-s.stops:
			if sig, ok := stopSignal(name); ok && f.job {
				f.leave()
				f.stop(sig)
				pass()
				f.resume(s)
			}
		case <-tick.C:
			f.takeBack(s)
		case <-over:
			return
		}
	}
}

func (f *foreground) handle(s *remote, sig os.Signal) {
	switch sig {
	case syscall.SIGWINCH:
		f.passSize(s)
	case syscall.SIGCONT:
		f.resume(s)
	case syscall.SIGTSTP:
		if f.t != nil {
			s.signal(syscall.SIGTSTP)
		} else { // which the guest's kernel would ignore (orphaned process group)
			s.signal(syscall.SIGSTOP)
		}
	}
}

// stopSignal returns the signal that stops a process for a name that the guest reported.
// Any other is refused: stop sends it to this process's group, and the guest must not
// choose a signal that ends programs of the host.
func stopSignal(name string) (sig syscall.Signal, ok bool) {
	sig, ok = wire.SignalByName(name)
	return sig, ok && (sig == syscall.SIGSTOP || sig == syscall.SIGTSTP)
}

// stopLimit is how long a signal may take to stop this process. The kernel ignores the
// terminal's stop signals where no shell could continue it.
const stopLimit = 200 * time.Millisecond

// stopTarget returns what a stop of the command stops, for kill(2): this process, and the
// rest of its process group where the command has the person's terminal and the signal is
// the terminal's. Without a terminal the group may be a program that runs many commands,
// which no guest may stop.
func (f *foreground) stopTarget(sig syscall.Signal) int {
	if f.t != nil && sig == syscall.SIGTSTP {
		return 0
	}
	return os.Getpid()
}

// stop stops this process by the signal, and what else stopTarget says. It returns when the
// process was continued.
func (f *foreground) stop(sig syscall.Signal) {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	if sig != syscall.SIGSTOP {
		defer defaultAction(sig)()
	}
	_ = syscall.Kill(f.stopTarget(sig), sig)
	select {
	case <-continued:
	case <-time.After(stopLimit):
	}
}

// kernelAction is the kernel's struct sigaction (rt_sigaction(2)): handler, flags, restorer
// and mask; of zeros, it is the default action.
type kernelAction [4]uint64

// defaultAction gives a signal its default action until restore is called. signal.Reset
// does not: the Go runtime keeps a handler that drops the signal.
func defaultAction(sig syscall.Signal) (restore func()) {
	var now, was kernelAction
	if !setAction(sig, &now, &was) {
		return func() {}
	}
	return func() { setAction(sig, &was, nil) }
}

func setAction(sig syscall.Signal, to, was *kernelAction) bool {
	const maskSize = 8 // bytes
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(was)), maskSize, 0, 0)
	return errno == 0
}

// resume continues the command after this process was continued.
func (f *foreground) resume(s *remote) {
	_ = f.enter()
	f.passSize(s)
	s.signal(syscall.SIGCONT)
}

// takeBack enters the foreground if the shell has moved this process there.
func (f *foreground) takeBack(s *remote) {
	if f.t == nil {
		return
	}
	f.mu.Lock()
	was, own := f.own, f.owns(f.t.In)
	f.own = own
	f.mu.Unlock()
	if own && !was {
		_ = f.enter()
		f.passSize(s)
	}
}

// passSize passes the terminal's size on to the session.
func (f *foreground) passSize(s *remote) {
	if f.t == nil {
		return
	}
	if size, err := f.t.size(); err == nil {
		_, _ = s.SendRequest("window-change", false, ssh.Marshal(size)) // fails only when the session is over
	}
}
