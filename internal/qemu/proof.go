package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/atomicfile"
	"bawn.dev/bawn/internal/sys/proc"
)

// The proof that KVM works: a guest of a few bytes (proofamd64.go, proofarm64.go) is
// booted on the same board and by the same way as a real one, and ends QEMU with an exit
// status that nothing else gives.

const (
	// accelFile keeps the answer of the proof, in the cache directory.
	accelFile = "accel.json"
	// proofTime is how long the proof's guest may take. Where KVM works it needs a tenth
	// of a second.
	proofTime = 3 * time.Second
	// proofRuns is how often the proof's guest must boot: a host was seen where it boots
	// only sometimes.
	proofRuns = 3
)

// proof is the content of accelFile. It is valid for one boot of the host and one build
// of QEMU.
type proof struct {
	BootID string `json:"bootID"`
	QEMU   string `json:"qemu"`
	Works  bool   `json:"works"`
	Cause  string `json:"cause,omitempty"`  // why it does not work, in a few words
	Output string `json:"output,omitempty"` // printed by QEMU
}

// provenKVM answers from the proof kept in cacheDir, or makes and keeps one.
func provenKVM(ctx context.Context, cacheDir string) (Accel, error) {
	bin, err := Find(ctx, cacheDir)
	if err != nil {
		return Accel{}, err
	}
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	if err != nil {
		return Accel{}, fmt.Errorf("tell this boot of the host from others: %w", err)
	}
	now := proof{BootID: strings.TrimSpace(string(id)), QEMU: bin.Path + " " + bin.Build}
	path := filepath.Join(cacheDir, accelFile)
	if kept, ok := readProof(path); ok && kept.BootID == now.BootID && kept.QEMU == now.QEMU && (kept.Works || kept.Cause != "") {
		return kept.accel(), nil
	}
	failed, err := prove(ctx, bin.Path)
	if err != nil {
		return Accel{}, err
	}
	if now.Works = failed == nil; !now.Works {
		now.Cause, now.Output = failed.cause, failed.output
	}
	// A failure to keep it only costs the next start a moment.
	_ = atomicfile.WriteJSON(path, now)
	return now.accel(), nil
}

func (p proof) accel() Accel {
	if p.Works {
		return Accel{Kind: KVM}
	}
	return Accel{
		Kind: TCG, Reason: kvmDevice + " opens, but cannot run a guest on this host (" + p.Cause + ")", Output: p.Output,
		Remedy: "if this host is itself a virtual machine, turn on nested virtualisation for it; " + accelEnv + "=kvm uses KVM without this test",
	}
}

func readProof(path string) (proof, bool) {
	var p proof
	text, err := os.ReadFile(path)
	return p, err == nil && json.Unmarshal(text, &p) == nil
}

// failure describes why the proof's guest did not run to its end.
type failure struct {
	cause  string // in a few words
	output string // of QEMU
}

// prove boots the proof's guest under KVM. It returns nil if that works, and an error if
// it could not be tried.
func prove(ctx context.Context, qemu string) (*failure, error) {
	for range proofRuns {
		if failed, err := bootProof(ctx, qemu, KVM, proofTime); failed != nil || err != nil {
			return failed, err
		}
	}
	return nil, nil
}

// bootProof boots the proof's guest under an accelerator. It returns nil if the guest
// runs to its end within limit, else why not, and an error if it could not be tried.
func bootProof(ctx context.Context, qemu, accel string, limit time.Duration) (*failure, error) {
	kernel, err := writeProofGuest()
	if err != nil {
		return nil, fmt.Errorf("prove the accelerator: %w", err)
	}
	defer os.Remove(kernel)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	output := &tail{}
	cmd := proc.Command(limited, qemu, proofArgs(hostArch(), accel, kernel)...)
	cmd.Stdout, cmd.Stderr = output, output
	cmd.WaitDelay = time.Second
	err = proc.Run(cmd)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case limited.Err() != nil:
		return &failure{fmt.Sprintf("QEMU did not finish within %v", limit), output.String()}, nil
	case err == nil, errors.As(err, &exit):
		if cmd.ProcessState.ExitCode() == hostArch().proofExit {
			return nil, nil
		}
		return &failure{exitText(cmd.ProcessState), output.String()}, nil
	}
	return nil, fmt.Errorf("prove the accelerator: %w", err)
}

// writeProofGuest writes the proof's guest to a file, which the caller removes.
func writeProofGuest() (path string, err error) {
	f, err := os.CreateTemp("", "bawn-proof-*")
	if err != nil {
		return "", err
	}
	_, err = f.Write(hostArch().proofGuest())
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
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
