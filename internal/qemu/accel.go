package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Kinds of Accel.
const (
	KVM = "kvm"
	TCG = "tcg"
)

const kvmDevice = "/dev/kvm"

// accelEnv overrides the choice: "kvm" or "tcg".
const accelEnv = "BAWN_ACCEL"

// accelFile keeps the answer of the proof, in the cache directory.
const accelFile = "accel.json"

// proofTime is how long the guest of the proof may take. Where KVM works it
// needs a tenth of a second.
const proofTime = 3 * time.Second

// Accel says how guests run.
type Accel struct {
	Kind   string // KVM or TCG; empty is TCG
	Reason string // why not KVM, in a few words for a person
	Said   string // what QEMU said of it, for who looks for the cause; may be empty
	Remedy string // what the person can do about it; may be empty
}

// OK reports whether guests run on the processor's own virtualisation.
func (a Accel) OK() bool { return a.Kind == KVM }

// StaleCode says whether a guest may run code that is not there any more. An emulator
// that translates an instruction on one CPU while another overwrites it can keep the
// translation of the old one. A Linux guest rewrites itself by way of int3, and panics
// when it meets one that is none of its own (seen with QEMU 7.2 and 10.0: docs/adr/0013).
func (a Accel) StaleCode() bool { return a.Kind == TCG }

// Name is "kvm" or "tcg".
func (a Accel) Name() string {
	if a.OK() {
		return KVM
	}
	return TCG
}

// option is the value of QEMU's -accel.
func (a Accel) option() string {
	if a.OK() {
		return KVM
	}
	return fmt.Sprintf("tcg,thread=multi,tb-size=%d", tbSizeMiB)
}

// proof is what accelFile holds. It counts for one boot of the host and one
// build of QEMU.
type proof struct {
	BootID string `json:"bootID"`
	QEMU   string `json:"qemu"`
	Works  bool   `json:"works"`
	Cause  string `json:"cause,omitempty"` // why it does not work, in a few words
	Said   string `json:"said,omitempty"`  // by QEMU
}

// Accelerator chooses how guests run here: KVM if a guest of our own was seen
// to boot under it, else software emulation, with the reason.
//
// That /dev/kvm opens proves little: on some nested hosts guests then never
// leave the firmware. So a guest of a few bytes is booted, the way a real one
// is, once per host boot and build of QEMU; the answer is kept in cacheDir.
func Accelerator(ctx context.Context, cacheDir string) (Accel, error) {
	switch v := os.Getenv(accelEnv); v {
	case KVM:
		return Accel{Kind: KVM}, nil
	case TCG:
		return Accel{Kind: TCG, Reason: accelEnv + "=tcg is set", Remedy: "unset " + accelEnv}, nil
	case "":
	default:
		return Accel{}, fmt.Errorf("%s=%q: want kvm or tcg", accelEnv, v)
	}
	if a := openKVM(kvmDevice); !a.OK() {
		return a, nil
	}
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
		now.Cause, now.Said = failed.cause, failed.said
	}
	// Not being able to keep it only costs the next start a moment.
	_ = replaceJSON(path, now)
	return now.accel(), nil
}

func (p proof) accel() Accel {
	if p.Works {
		return Accel{Kind: KVM}
	}
	return Accel{
		Kind: TCG, Reason: kvmDevice + " opens but cannot run a guest here (" + p.Cause + ")", Said: p.Said,
		Remedy: "if this machine is itself a virtual one, its host may not offer nested virtualisation fully; " + accelEnv + "=kvm tries all the same",
	}
}

// openKVM reports whether the device can be opened, and if not, what to do.
func openKVM(device string) Accel {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return Accel{Kind: KVM}
	}
	a := Accel{Kind: TCG, Reason: err.Error()}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		a.Reason = device + " does not exist"
		a.Remedy = "turn on virtualisation (VT-x, AMD-V) in the firmware, or nested virtualisation on this machine's host; then: sudo modprobe -a kvm_intel kvm_amd"
	case errors.Is(err, fs.ErrPermission):
		name := "$USER"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
		a.Reason = device + ": permission denied"
		a.Remedy = "sudo usermod -aG kvm " + name + ", and log in again"
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		a.Remedy = "load the processor's module: sudo modprobe -a kvm_intel kvm_amd"
	}
	return a
}

func readProof(path string) (proof, bool) {
	var p proof
	text, err := os.ReadFile(path)
	return p, err == nil && json.Unmarshal(text, &p) == nil
}

// replaceJSON replaces the file in one step: another bawn may be reading it.
func replaceJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	return os.Rename(f.Name(), path)
}

// proofRuns is how often the proof's guest must boot: a host was seen where now
// and then one does.
const proofRuns = 3

// failure is why the proof's guest did not run to its end.
type failure struct {
	cause string // in a few words
	said  string // by QEMU
}

// prove boots a guest of our own under KVM. nil means that it works.
func prove(ctx context.Context, qemu string) (*failure, error) {
	for range proofRuns {
		if failed, err := boots(ctx, qemu, KVM, proofTime); failed != nil || err != nil {
			return failed, err
		}
	}
	return nil, nil
}

// boots tells why the proof's guest does not run to its end under an accelerator
// within limit; nil means that it does. The error is for what proves nothing.
func boots(ctx context.Context, qemu, accel string, limit time.Duration) (*failure, error) {
	f, err := os.CreateTemp("", "bawn-proof-*")
	if err != nil {
		return nil, fmt.Errorf("prove the accelerator: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(proofGuest())
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("prove the accelerator: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	said := &tail{}
	cmd := exec.CommandContext(limited, qemu, proofArgs(accel, f.Name())...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.WaitDelay = time.Second
	// QEMU ends with us, as far as the thread that starts it lives as long.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case limited.Err() != nil:
		return &failure{fmt.Sprintf("it was not done within %v", limit), said.String()}, nil
	case err == nil, errors.As(err, &exit):
		if cmd.ProcessState.ExitCode() == proofExit {
			return nil, nil
		}
		return &failure{howEnded(cmd.ProcessState), said.String()}, nil
	}
	return nil, fmt.Errorf("prove the accelerator: %w", err)
}

// howEnded says how QEMU ended, in a few words.
func howEnded(p *os.ProcessState) string {
	if ws, ok := p.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return "QEMU stopped with " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("QEMU ended with exit status %d", p.ExitCode())
}

// proofArgs takes the same way as a real guest: the same board and firmware,
// direct kernel boot.
func proofArgs(accel, kernel string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-accel", accel, "-m", "64M", "-kernel", kernel,
	}
	m := Machine{Accel: Accel{Kind: accel}}
	args = append(args, "-cpu", m.cpu())
	if m.arch() == "arm64" {
		return append(args, "-machine", "virt,gic-version=max")
	}
	return append(args, "-machine", "q35,smm=off,vmport=off,usb=off,graphics=off,sata=off,smbus=off",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=4")
}
