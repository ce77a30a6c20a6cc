package qemu

import "runtime"

// arch has the properties in which the architectures of machines differ.
type arch struct {
	program string // name of QEMU for it
	pkg     string // the Debian and Ubuntu package that has the program

	board         string   // value of -machine: the board with everything left out that can be
	emulatedCPU   string   // value of -cpu under software emulation
	firmware      []string // folders in which QEMU finds what it loads into the board
	bundled       []string // the same for a QEMU outside /usr, below its prefix
	parameters    []string // kernel parameters: the first serial port, and the way to reboot
	kvmParameters []string // kernel parameters under KVM alone
	detachShares  bool     // shares can be detached from a paused machine (freeze.go)

	// The guest that proves that KVM works (proof.go): a kernel, QEMU's exit status when
	// it ran to its end, and the arguments for a device that the guest needs.
	proofGuest     func() []byte
	proofExit      int
	proofArguments []string
}

// archs are all architectures, by their names in Go.
var archs = map[string]*arch{
	"amd64": {
		program:     "qemu-system-x86_64",
		pkg:         "qemu-system-x86",
		board:       "q35,smm=off,vmport=off,usb=off,graphics=off,sata=off,smbus=off,i8042=off",
		emulatedCPU: "max",
		firmware:    []string{"/usr/share/qemu", "/usr/share/seabios"},
		bundled:     []string{"share/qemu", "share/seabios"},
		// A triple fault resets at once; QEMU then ends (-no-reboot).
		parameters: []string{"console=ttyS0", "reboot=t"},
		// Under KVM the guest's clock is kvm-clock, so it need not wake twice a second to compare the TSC with
		// another clock (kernel-parameters.txt, tsc=). Under emulation the TSC jumps at a restore, which the
		// guest must notice.
		kvmParameters:  []string{"tsc=nowatchdog"},
		detachShares:   true,
		proofGuest:     proofGuestAMD64,
		proofExit:      proofExitAMD64,
		proofArguments: []string{"-device", "isa-debug-exit,iobase=0xf4,iosize=4"},
	},
	"arm64": {
		program:     "qemu-system-aarch64",
		pkg:         "qemu-system-arm",
		board:       "virt,gic-version=max",
		emulatedCPU: "max",
		firmware:    []string{"/usr/share/qemu"},
		bundled:     []string{"share/qemu"},
		parameters:  []string{"console=ttyAMA0"},
		proofGuest:  proofGuestARM64,
		proofExit:   proofExitARM64,
	},
}

// hostArch is this program's architecture. There is no other build of bawn (Makefile).
func hostArch() *arch { return archs[runtime.GOARCH] }

// Program returns the name of the QEMU for this host's architecture.
func Program() string { return hostArch().program }

// Package returns the Debian and Ubuntu package that has Program.
func Package() string { return hostArch().pkg }

// CanDetachShares reports whether shares of machines on this host can be detached while
// the guest is paused (Process.FreezeShare), so that a machine with shares can be saved.
func CanDetachShares() bool { return hostArch().detachShares }

// cpu returns the value of -cpu.
func (a *arch) cpu(accel string) string {
	if accel == KVM {
		return "host"
	}
	return a.emulatedCPU
}
