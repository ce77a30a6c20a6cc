package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"

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

// Accel says how guests run.
type Accel struct {
	Kind      string // KVM or TCG; empty is TCG
	Unsettled bool   // KVM may work: its test got too little time. The answer changes within minutes.
	Reason    string // why KVM is not used, in a few words
	Output    string // what QEMU printed about it; may be empty
	Remedy    string // what the user can do about it; may be empty
}

// OK reports whether guests run on the processor's own virtualisation.
func (a Accel) OK() bool { return a.Kind == KVM }

// StaleCode reports whether a guest may run code that has been overwritten. An emulator
// that translates an instruction on one CPU while another overwrites it can keep the
// translation of the old one. A Linux guest rewrites itself by way of int3, and panics
// when it meets an int3 that is none of its own (seen with QEMU 7.2 and 10.0:
// docs/adr/0013).
func (a Accel) StaleCode() bool { return !a.OK() }

// Name is "kvm" or "tcg".
func (a Accel) Name() string {
	if a.OK() {
		return KVM
	}
	return TCG
}

// option returns the value of QEMU's -accel.
func (a Accel) option() string {
	if a.OK() {
		return KVM
	}
	return fmt.Sprintf("tcg,thread=multi,tb-size=%d", tbSizeMiB)
}

// Accelerator chooses how guests run here: KVM if a guest of our own was seen
// to boot under it, else software emulation, with the reason.
//
// That /dev/kvm opens proves little: on some nested hosts guests then never
// leave the firmware. So a guest of a few bytes is booted, the way a real one
// is. The answer is kept in cacheDir for this build of QEMU: until the host's next boot
// if KVM works, for an hour if it fails, for minutes if that could not be settled.
func Accelerator(ctx context.Context, cacheDir string) (Accel, error) {
	return accelerator(ctx, cacheDir, false)
}

// AcceleratorAnew is Accelerator, and tests KVM again unless it is known to work.
func AcceleratorAnew(ctx context.Context, cacheDir string) (Accel, error) {
	return accelerator(ctx, cacheDir, true)
}

func accelerator(ctx context.Context, cacheDir string, anew bool) (Accel, error) {
	switch v := os.Getenv(accelEnv); v {
	case KVM:
		return Accel{Kind: KVM}, nil
	case TCG:
		return Accel{Kind: TCG, Reason: accelEnv + "=tcg asks for software emulation", Remedy: "unset " + accelEnv}, nil
	case "":
	default:
		return Accel{}, fmt.Errorf("%s=%q: must be kvm or tcg", accelEnv, v)
	}
	if a := openKVM(kvmDevice); !a.OK() {
		return a, nil
	}
	return provenKVM(ctx, cacheDir, anew)
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
		a.Remedy = "turn on virtualisation (VT-x, AMD-V) in the firmware, or nested virtualisation if this host is a virtual machine itself; then: sudo modprobe -a kvm_intel kvm_amd"
	case errors.Is(err, fs.ErrPermission):
		a.Reason = device + ": permission denied"
		a.Remedy = permissionRemedy(device)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		a.Remedy = "load the processor's module: sudo modprobe -a kvm_intel kvm_amd"
	}
	return a
}

// permissionRemedy returns what gives the user access to the device: its group, if that
// has access, else an entry in its access list.
func permissionRemedy(device string) string {
	name := "$USER"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err == nil && st.Gid != 0 && st.Mode&0o060 == 0o060 {
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(st.Gid), 10)); err == nil {
			return "sudo usermod -aG " + g.Name + " " + name + ", and log in again"
		}
	}
	return "sudo setfacl -m u:" + name + ":rw " + device + ", which holds until the next boot (the host's udev gives its group no access)"
}
