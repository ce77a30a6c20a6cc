package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/proc"
)

// The proof that KVM works: a guest of a few bytes (proofamd64.go, proofarm64.go) is
// booted on the same board and by the same way as a real one, and ends QEMU with an exit
// status that nothing else gives.
//
// A boot of it has one of these ends:
//
//   - QEMU ends with that exit status: it works.
//   - QEMU ends otherwise, or it uses the processor for a time in which the guest would have
//     ended many times over: KVM fails. Some nested hosts do the latter. How long the guest
//     takes on this host is measured by booting it under software emulation, where it always
//     ends: an emulated or slow host needs longer for everything.
//   - Time passes and QEMU got little of the processor, or another process killed QEMU. This
//     proves nothing: the host may be busy. The boot is tried again with more time, and then
//     the question is unsettled.
//
// proofkept.go keeps the answer.

const (
	// proofRuns is how often the proof's guest must boot: a host was seen where it boots
	// only sometimes.
	proofRuns = 3
	// proofMargin is how much more processor time than under software emulation the guest
	// may take under KVM. Where KVM works it takes about as much, nearly all of it for the
	// start of QEMU.
	proofMargin = 8
)

// proofLimits bound a boot of the proof's guest.
type proofLimits struct {
	cpu  time.Duration // processor time of QEMU
	wall time.Duration
}

var (
	// proofFirst suffices where KVM works and the host is not very busy: the guest needs a
	// tenth of a second.
	proofFirst = proofLimits{cpu: 2 * time.Second, wall: 15 * time.Second}
	// proofLast is the most that a boot may take.
	proofLast = proofLimits{cpu: time.Minute, wall: 20 * time.Second}
)

// verdict is what the proof says.
type verdict int

const (
	works     verdict = iota
	fails             // the proof's guest cannot run
	late              // wall time ran out, or another process ended QEMU
	spent             // processor time ran out
	unsettled         // it is unknown whether KVM works
)

// outcome is the end of a boot of the proof's guest, or of the whole proof.
type outcome struct {
	verdict verdict
	cause   string        // in a few words; empty if it works
	output  string        // of QEMU
	cpu     time.Duration // that QEMU used
}

// prover boots the proof's guest.
type prover struct {
	qemu        string // path of the program
	first, last proofLimits
}

// prove boots the proof's guest under KVM several times, until one boot does not work. The
// verdict is works, fails or unsettled. The error says why it could not be tried.
func (p prover) prove(ctx context.Context) (outcome, error) {
	var o outcome
	var err error
	for range proofRuns {
		if o, err = p.settle(ctx); err != nil || o.verdict != works {
			break
		}
	}
	return o, err
}

// settle boots the guest under KVM until it works, fails, or has had the time of p.last.
func (p prover) settle(ctx context.Context) (outcome, error) {
	limits := p.first
	for {
		o, err := bootProof(ctx, p.qemu, KVM, limits)
		switch {
		case err != nil:
			return o, err
		case o.verdict == spent:
			enough, measured, err := p.enough(ctx)
			if err != nil || measured.verdict != works {
				return outcome{verdict: unsettled, cause: o.cause + ", and how long it should take could not be measured: " + measured.cause, output: o.output}, err
			}
			if limits.cpu >= enough {
				o.verdict = fails
				o.cause += fmt.Sprintf("; under software emulation the same guest needs %v", measured.cpu.Round(10*time.Millisecond))
				return o, nil
			}
			limits = proofLimits{cpu: enough, wall: p.last.wall}
		case o.verdict == late:
			if limits.wall >= p.last.wall {
				o.verdict = unsettled
				return o, nil
			}
			limits.wall = p.last.wall
		default:
			return o, nil
		}
	}
}

// enough returns the processor time in which the guest must end under KVM on this host, and
// the boot under software emulation by which it was measured.
func (p prover) enough(ctx context.Context) (time.Duration, outcome, error) {
	o, err := bootProof(ctx, p.qemu, TCG, p.last)
	return min(proofMargin*o.cpu, p.last.cpu), o, err
}

// bootProof boots the proof's guest under an accelerator. The verdict is works, fails, late
// or spent. The error says why it could not be tried.
func bootProof(ctx context.Context, qemu, accel string, limits proofLimits) (outcome, error) {
	guest, err := proofGuest()
	if err != nil {
		return outcome{}, fmt.Errorf("prove the accelerator: %w", err)
	}
	defer guest.Close()
	limited, cancel := context.WithTimeout(ctx, limits.wall)
	defer cancel()
	output := &tail{}
	cmd := proc.Command(limited, qemu, proofArgs(hostArch(), accel, "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{guest} // descriptor 3 of QEMU
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's interrupt must not look like QEMU's own end
	err = proc.RunFor(cmd, limits.cpu)
	if ctx.Err() != nil {
		return outcome{}, context.Cause(ctx)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && limited.Err() == nil {
		return outcome{}, fmt.Errorf("prove the accelerator: %w", err)
	}
	o := judge(cmd.ProcessState, limited.Err() != nil, limits)
	o.output = output.String()
	return o, nil
}

// judge tells from the end of QEMU how a boot of the proof's guest ended. timedOut says that
// wall time ran out, and QEMU was killed for it.
func judge(p *os.ProcessState, timedOut bool, limits proofLimits) outcome {
	o := outcome{}
	if p != nil {
		o.cpu = p.UserTime() + p.SystemTime()
		if p.ExitCode() == hostArch().proofExit {
			return o
		}
	}
	killed, outside := signaled(p)
	switch {
	case killed && o.cpu >= limits.cpu/2: // the kernel's own count may differ a little
		o.verdict, o.cause = spent, fmt.Sprintf("QEMU used %v of processor time without an end", o.cpu.Round(100*time.Millisecond))
	case timedOut:
		o.verdict = late
		o.cause = fmt.Sprintf("QEMU did not finish within %v, of which it had the processor for %v", limits.wall, o.cpu.Round(10*time.Millisecond))
	case outside:
		o.verdict, o.cause = late, exitText(p)
	default:
		o.verdict, o.cause = fails, exitText(p)
	}
	return o
}

// signaled reports whether SIGKILL ended a process, and whether a signal did by which other
// processes end one.
func signaled(p *os.ProcessState) (killed, outside bool) {
	if p == nil {
		return false, false
	}
	ws, ok := p.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return false, false
	}
	switch ws.Signal() {
	case unix.SIGKILL:
		return true, true
	case unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT:
		return false, true
	}
	return false, false
}

// proofGuest returns the proof's guest as a file in memory, so that it needs no room in /tmp.
// The caller closes it.
func proofGuest() (*os.File, error) {
	fd, err := unix.MemfdCreate("bawn-proof", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "bawn-proof")
	if _, err := f.Write(hostArch().proofGuest()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// exitText returns how QEMU ended, in a few words.
func exitText(p *os.ProcessState) string {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "QEMU stopped with " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("QEMU ended with exit status %d", p.ExitCode())
}

// proofArgs are QEMU's arguments for the proof's guest: the board and firmware of a real
// guest, and direct kernel boot.
func proofArgs(a *arch, accel, kernel string) []string {
	args := commonArgs()
	args = append(args, "-machine", a.board, "-accel", accel, "-cpu", a.cpu(accel), "-m", "64M", "-kernel", kernel)
	return append(args, a.proofArguments...)
}
