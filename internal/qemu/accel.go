package qemu

import "fmt"

// Kinds of Accel.
const (
	KVM = "kvm"
	TCG = "tcg"
)

const kvmDevice = "/dev/kvm"

// Accel says how guests run.
type Accel struct {
	Kind   string // KVM or TCG; empty is TCG
	Reason string // why not KVM, in words for a person
	Remedy string // what the person can do about it; may be empty
}

// OK reports whether guests run on the processor's own virtualisation.
func (a Accel) OK() bool { return a.Kind == KVM }

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
