// Package guest is the agent inside the machine: process 1, which mounts what
// the host plugged, runs commands for who comes by SSH, and powers off.
//
// Theory of operation. The kernel starts the agent as /init of an initramfs.
// Boot (boot.go) mounts the kernel's file systems and loads the modules packed
// with the agent. Then two virtio-serial ports to the host are opened (ports.go)
// and everything else is asked for by the host, over the control port
// (control.go; the contract is package wire): OpSetup builds the root from the
// disks and moves into it (root.go), OpMount mounts shares, OpMux starts a yamux
// session on the other port, whose streams are SSH connections (sshd.go,
// session.go) or TCP relays (forward.go).
//
// One process does all that, on purpose. Process 1 is never chosen by the
// kernel's out-of-memory killer, a second process would cost another start of
// the Go runtime (some 30 ms under software emulation), and when process 1 dies
// the kernel panics and, with panic=-1, resets the machine: an agent that fails
// ends the sandbox, it never hangs it. So a panic anywhere in here is left to do
// just that; what it says goes to the console, which is stderr.
//
// What process 1 must do besides is to reap: see processes.go.
//
// Some jobs need a process of their own, with the rights of a user or a fresh
// environment. For these the agent executes itself under another name (Modes).
//
// The agent needs nothing of the image: no shell, no library, no tool. What the
// image lacks (sudo, a shell, docker) is missing for its user only.
//
// Not safe: everything in here runs in the guest, so it is in the hands of
// whoever becomes root there. Nothing that it enforces protects the host. What
// it reads from the host is trusted, but bounded.
package guest

import (
	"fmt"
	"os"
	"path/filepath"
)

// selfExe is this program, to be executed anew. It stays valid after the root
// was changed.
const selfExe = "/proc/self/exe"

// Names under which the agent executes itself for one job.
const (
	modeSFTP     = "bawn-sftp"     // serve SFTP on the standard streams
	modeActivate = "bawn-activate" // become a program that takes over a listening socket
	modeModprobe = "modprobe"      // load a kernel module for the kernel

	modePowerOff = "poweroff" // these end the machine, for who is root in it
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
	case modeSFTP:
		return serveSFTP()
	case modeActivate:
		return activate(os.Args[1:])
	case modeModprobe:
		return modprobe(os.Args[1:])
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "bawn-guest is process 1 of bawn's virtual machines and does nothing elsewhere")
		return 2
	}
	runAgent(version)
	return 0
}
