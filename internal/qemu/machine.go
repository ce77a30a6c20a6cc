// Package qemu turns a description of a machine into a running QEMU and talks to it.
//
// Machine.Args builds the argument list and does nothing else. Machine.Start
// runs QEMU under a confine.Profile and returns a Process, whose QMP connection
// plugs shares, and saves and loads the machine's state.
//
// # Theory of operation
//
// QEMU opens as little as possible: memory, disks, ports, console, network and QMP are
// descriptors that the caller opened. So QEMU needs no rights to their paths (Landlock),
// may make no sockets or processes (seccomp), and leaves nothing on disk when it is
// killed. The guest's memory is a memfd of the caller (package memory), which it can
// fill before the start and read after a SaveState; vhost-user share servers map it too.
//
// What differs between amd64 and arm64 stands in one table (arch.go).
//
// # Not safe
//
// A guest that broke out into QEMU chooses what QEMU sends over QMP. The client bounds
// it and checks its types; callers must not treat its text as more than a hint. A
// vhost-user back end that dies or hangs can make QEMU hang, beyond the reach of QMP and
// SIGTERM: Process.Kill (SIGKILL) always works.
//
// # Tested
//
// On amd64 with QEMU 7.2 under software emulation. KVM, and arm64 (machine "virt"), were seen
// in emulated hosts with QEMU 10.0 only (scripts/host).
package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Bounds that QEMU or virtio set.
const (
	maxSerial = 20 // bytes of a disk's serial (virtio 1.2, 5.2.6.1, VIRTIO_BLK_ID_BYTES)
	maxTag    = 36 // bytes of a share's tag (virtio 1.2, 5.11.4)
	maxPorts  = 30 // virtio-serial ports; QEMU's default limit is 31, port 0 is kept for a console
	MaxPlugs  = 24 // pcie-root-ports beside the other devices on the root bus's 32 slots
	maxCPUs   = 255
	minMemory = 64 * mib
	mib       = 1 << 20
)

// Machine describes one virtual machine. A saved state can be loaded only by a
// Machine that differs in nothing but RAM, Incoming and the files of devices.
type Machine struct {
	Binary string // QEMU's absolute path; see Find
	Arch   string // GOARCH of host and guest; empty is this program's own
	Accel  Accel

	CPUs   int
	Memory int64    // bytes, a multiple of 1 MiB
	RAM    *os.File // the guest's memory: a memfd of Memory bytes (memory.New)

	Kernel string   // absolute path: on amd64 a vmlinux with a PVH note, or a bzImage
	Initrd string   // absolute path
	Append []string // kernel parameters beside our own

	Console *os.File // one end of a stream socket pair
	Ports   []Port
	Disks   []Disk
	NIC     *NIC

	Plugs   int  // how many shares can be plugged while it runs
	Balloon bool // give freed guest memory back to the host (free page reporting)

	Incoming bool // wait for LoadState instead of booting
}

// Port is a virtio-serial port, /dev/virtio-ports/NAME in the guest.
type Port struct {
	Name string
	File *os.File // one end of a stream socket pair
}

// Disk is a raw image on virtio-blk.
type Disk struct {
	Serial   string   // by which the guest finds it
	File     *os.File // opened read-write, or read-only where ReadOnly is set
	ReadOnly bool     // any number of machines may use such an image at once
}

// NIC is a network card whose frames cross a stream socket, each after its
// length as 4 bytes, big-endian (QEMU's -netdev stream).
type NIC struct {
	File *os.File // one end of a stream socket pair
	MAC  string
	MTU  int // host_mtu offered to the guest; 0 offers none
}

// archName returns the machine's architecture in Go's names.
func (m *Machine) archName() string {
	if m.Arch != "" {
		return m.Arch
	}
	return runtime.GOARCH
}

// arch returns the machine's architecture, nil where there is none of the name (Check).
func (m *Machine) arch() *arch { return archs[m.archName()] }

// CanDetachShares reports whether shares of this machine can be detached while the guest
// is paused (Process.FreezeShare).
func (m *Machine) CanDetachShares() bool { return m.arch().detachShares }

// Check returns all reasons for which the machine cannot be run, or nil.
func (m *Machine) Check() error {
	if err := errors.Join(m.checkBoard(), m.checkPorts(), m.checkDisks(), m.checkNIC()); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	return nil
}

func (m *Machine) checkBoard() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.arch() == nil {
		bad("no machine is defined for architecture %q", m.archName())
	}
	if m.CPUs < 1 || m.CPUs > maxCPUs {
		bad("%d CPUs: must be 1 to %d", m.CPUs, maxCPUs)
	}
	if m.Memory < minMemory || m.Memory%mib != 0 {
		bad("%d bytes of memory: must be at least %d MiB, in whole MiB", m.Memory, minMemory/mib)
	}
	if m.RAM == nil {
		bad("no RAM file")
	}
	if m.Plugs < 0 || m.Plugs > MaxPlugs {
		bad("%d plugs: must be at most %d", m.Plugs, MaxPlugs)
	}
	for _, path := range []string{m.Binary, m.Kernel, m.Initrd} {
		if !filepath.IsAbs(path) {
			bad("path %q is not absolute", path)
		}
	}
	return errors.Join(errs...)
}

func (m *Machine) checkPorts() error {
	if len(m.Ports) > maxPorts {
		return fmt.Errorf("%d ports: must be at most %d", len(m.Ports), maxPorts)
	}
	var errs []error
	for _, p := range m.Ports {
		if p.File == nil || !isPlain(p.Name) {
			errs = append(errs, fmt.Errorf("port %q: needs a file, and a name of letters, digits, '.', '-', '_'", p.Name))
		}
	}
	return errors.Join(errs...)
}

func (m *Machine) checkDisks() error {
	var errs []error
	seen := map[string]bool{}
	for _, d := range m.Disks {
		if d.File == nil || !isPlain(d.Serial) || len(d.Serial) > maxSerial {
			errs = append(errs, fmt.Errorf("disk %q: needs a file, and a serial of at most %d letters, digits, '.', '-', '_'", d.Serial, maxSerial))
		}
		if seen[d.Serial] {
			errs = append(errs, fmt.Errorf("two disks have the serial %q", d.Serial))
		}
		seen[d.Serial] = true
	}
	return errors.Join(errs...)
}

func (m *Machine) checkNIC() error {
	if n := m.NIC; n != nil && (n.File == nil || !isPlain(strings.ReplaceAll(n.MAC, ":", ""))) {
		return fmt.Errorf("network card: needs a file and a MAC address, not %q", n.MAC)
	}
	return nil
}

// isPlain reports whether s can stand in a QEMU option without meaning more than
// itself.
func isPlain(s string) bool {
	if s == "" {
		return false
	}
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-', r == '_':
		default:
			return false
		}
	}
	return true
}
