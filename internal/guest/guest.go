// Package guest is the agent inside the machine: process 1, which mounts the disks and
// shares that the host plugs, serves SSH, and powers the machine off.
//
// Theory of operation. The kernel starts the agent as /init of an initramfs. It mounts
// the kernel's file systems and loads the modules packed with it (boot.go). Then it opens
// two virtio-serial ports to the host (package device), and the host asks for everything
// else by requests on the control port (control.go; the contract is package wire):
// OpSetup builds the root from the disks and moves into it (setup.go, root.go, system.go),
// OpMount mounts shares (mount.go), OpMux starts a yamux session on the other port (mux.go),
// whose streams are SSH connections (package sshd) or TCP relays (portrelay.go).
//
// A machine that is saved has its processes frozen first and is given an identity of its
// own afterwards (freeze.go, identity.go).
//
// One process does all that, on purpose. Process 1 is never chosen by the kernel's
// out-of-memory killer, a second process would cost another start of the Go runtime (some
// 30 ms under software emulation), and when process 1 dies the kernel panics and, with
// panic=-1, resets the machine: an agent that fails ends the sandbox, it never hangs it.
// So a panic is not recovered anywhere; its text goes to the console, which is stderr.
//
// Process 1 must also reap orphans: see package process.
//
// Some jobs need a process of their own, with the rights of a user or a fresh environment.
// For these the agent executes itself under another name (Main).
//
// The agent needs nothing of the image: no shell, no library, no tool. An image without
// sudo, a shell or Docker lacks them for its users only.
//
// Not safe: everything in here runs in the guest, so it is in the hands of whoever becomes
// root there. Nothing that it enforces protects the host. The host's requests are trusted,
// but bounded.
package guest

import (
	"fmt"
	"os"
	"path/filepath"

	"bawn.dev/bawn/internal/guest/dockerd"
	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/guest/oci"
	"bawn.dev/bawn/internal/guest/signer"
	"bawn.dev/bawn/internal/guest/sshd"
)

// Names under which the agent executes itself for one job.
const (
	modeModprobe = "modprobe" // load a kernel module for the kernel

	modePowerOff = "poweroff" // these end the machine, for root in the guest
	modeHalt     = "halt"
	modeReboot   = "reboot"
	modeShutdown = "shutdown"
)

// Main runs the agent, or the mode that os.Args[0] names. It returns only in a
// mode, with the exit status.
func Main(version string) int {
	switch name := filepath.Base(os.Args[0]); name {
	case modePowerOff, modeHalt, modeReboot, modeShutdown:
		return endMachine(name, os.Args[1:])
	case sshd.SFTPMode:
		return sshd.ServeSFTP()
	case sshd.JobMode:
		return sshd.LeadJob(os.Args[1:])
	case dockerd.ActivateMode:
		return dockerd.Activate(os.Args[1:])
	case oci.Mode:
		return oci.Main(os.Args[1:])
	case modeModprobe:
		return modprobe.Main(os.Args[1:])
	case signer.GPGMode, signer.SSHMode, signer.GPGSMMode:
		return signer.Main(name, os.Args[1:])
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "bawn-guest is process 1 (init) of bawn's virtual machines and cannot be run elsewhere")
		return 2
	}
	runAgent(version)
	return 0
}
