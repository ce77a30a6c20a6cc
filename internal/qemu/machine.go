// Package qemu turns a description of a machine into a running QEMU and speaks
// with it.
//
// Machine.Args builds the argument list and does nothing else. Machine.Start
// runs QEMU under a confine.Profile and returns a Process, whose QMP connection
// plugs shares, disks and network cards, saves and loads the machine's state.
//
// Theory of operation. QEMU opens as little as can be: memory, disks, ports,
// console, network and QMP are descriptors that the caller opened. So QEMU
// needs no rights to their paths (Landlock), may make no sockets or processes
// (seccomp), and leaves nothing on disk when it is killed. The guest's memory is
// a memfd of the supervisor, which it can fill before the start and read after
// a SaveState; vhost-user share servers map it too.
//
// Not safe: what QEMU says over QMP may have been said by a guest that broke
// out into it. The client bounds it and never trusts a type; callers must not
// treat its words as more than a hint. A vhost-user backend that dies or hangs
// can make QEMU hang, beyond the reach of QMP and SIGTERM: Process.Kill (SIGKILL)
// always works. The guest may refuse an unplug for ever: give those calls a
// context with a deadline.
//
// Tested on amd64 with QEMU 7.2 under software emulation. The arm64 side
// (machine "virt") compiles and its arguments are golden-tested, but it was
// never booted; neither was KVM on either architecture.
package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"bawn.dev/bawn/internal/confine"
)

// Bounds that QEMU or virtio set.
const (
	maxSerial = 20 // bytes of a disk's serial (virtio 1.2, 5.2.6.1, VIRTIO_BLK_ID_BYTES)
	maxTag    = 36 // bytes of a share's tag (virtio 1.2, 5.11.4)
	maxPorts  = 30 // virtio-serial ports; QEMU's default limit is 31, port 0 is kept for a console
	maxPlugs  = 24 // pcie-root-ports beside the other devices on the root bus's 32 slots
	mib       = 1 << 20
)

// tbSizeMiB bounds the cache of translated code under software emulation, in
// MiB (QEMU invocation, "-accel tcg,tb-size="). QEMU's default is an eighth of
// the host's memory, up to 1 GiB. See BenchmarkBoot in the package's docs.
const tbSizeMiB = 256

// Machine describes one virtual machine. A saved state can be loaded only by a
// Machine that differs in nothing but Disks' and Ports' files, RAM, GenerationID
// and Incoming.
type Machine struct {
	Binary string // QEMU's path; see Find
	Arch   string // GOARCH of host and guest; empty is this program's own
	Accel  Accel

	CPUs   int
	Memory int64    // bytes, a multiple of 1 MiB
	RAM    *os.File // the guest's memory: a memfd of Memory bytes (package memory)

	Kernel  string   // absolute path: on amd64 a vmlinux with a PVH note, or a bzImage
	Initrd  string   // absolute path
	Append  []string // kernel parameters beside our own
	Verbose bool     // the kernel logs its boot to the console

	Console *os.File // one end of a stream socket pair (SocketPair)
	Ports   []Port
	Disks   []Disk
	NIC     *NIC

	Plugs   int  // how many devices can be plugged while it runs
	Balloon bool // give freed guest memory back to the host (free page reporting)

	// GenerationID, a UUID, tells the guest that it is another copy when it
	// differs from the saved one: its random generator is seeded anew. Empty
	// leaves the device out. amd64 only: on arm64 it needs ACPI, which needs
	// UEFI firmware.
	GenerationID string

	Incoming bool // wait for LoadState instead of booting
}

// Port is a virtio-serial port, /dev/virtio-ports/NAME in the guest.
type Port struct {
	Name string
	File *os.File // one end of a stream socket pair (SocketPair)
}

// Disk is a raw image on virtio-blk.
type Disk struct {
	Serial   string   // by which the guest knows it; also its name for UnplugDisk
	File     *os.File // opened read-write, or read-only where ReadOnly is set
	ReadOnly bool     // such an image may be shared by any number of machines
	// NoFlush ignores the guest's flushes: faster, and a crash of the *host*
	// may lose or damage what was written. A crash of QEMU does not.
	NoFlush bool
}

// NIC is a network card whose frames cross a stream socket, each after its
// length as 4 bytes, big-endian (QEMU's -netdev stream).
type NIC struct {
	File *os.File // one end of a stream socket pair (SocketPair)
	MAC  string
	MTU  int // host_mtu offered to the guest; 0 offers none
}

func (m *Machine) arch() string {
	if m.Arch != "" {
		return m.Arch
	}
	return runtime.GOARCH
}

// Check reports what in the description cannot be run.
func (m *Machine) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.arch() != "amd64" && m.arch() != "arm64" {
		bad("no machine for architecture %q", m.arch())
	}
	if m.CPUs < 1 || m.CPUs > 255 {
		bad("%d CPUs: want 1 to 255", m.CPUs)
	}
	if m.Memory < 64*mib || m.Memory%mib != 0 {
		bad("%d bytes of memory: want at least 64 MiB, in whole MiB", m.Memory)
	}
	if m.RAM == nil {
		bad("no RAM file")
	}
	if m.Plugs < 0 || m.Plugs > maxPlugs {
		bad("%d plugs: want at most %d", m.Plugs, maxPlugs)
	}
	for _, path := range []string{m.Binary, m.Kernel, m.Initrd} {
		if !filepath.IsAbs(path) {
			bad("path %q is not absolute", path)
		}
	}
	if len(m.Ports) > maxPorts {
		bad("%d ports: want at most %d", len(m.Ports), maxPorts)
	}
	for _, p := range m.Ports {
		if p.File == nil || !plain(p.Name) {
			bad("port %q: needs a file, and a name of letters, digits, '.', '-', '_'", p.Name)
		}
	}
	seen := map[string]bool{}
	for _, d := range m.Disks {
		if err := d.check(); err != nil {
			errs = append(errs, err)
		}
		if seen[d.Serial] {
			bad("two disks have the serial %q", d.Serial)
		}
		seen[d.Serial] = true
	}
	if m.NIC != nil {
		if err := m.NIC.check(); err != nil {
			errs = append(errs, err)
		}
	}
	if m.GenerationID != "" && !plain(m.GenerationID) {
		bad("generation ID %q is no UUID", m.GenerationID)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("machine: %w", err)
	}
	return nil
}

func (d Disk) check() error {
	if d.File == nil || !plain(d.Serial) || len(d.Serial) > maxSerial {
		return fmt.Errorf("disk %q: needs a file, and a serial of at most %d letters, digits, '.', '-', '_'", d.Serial, maxSerial)
	}
	return nil
}

func (n NIC) check() error {
	if n.File == nil || !plain(strings.ReplaceAll(n.MAC, ":", "")) {
		return fmt.Errorf("network card: needs a file and a MAC address, not %q", n.MAC)
	}
	return nil
}

// plain reports whether s can stand in a QEMU option without meaning more than
// itself.
func plain(s string) bool {
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

// Descriptors of the QEMU process: standard ones, QMP, then the machine's
// files in the order of files.
const (
	fdQMP       = 3
	fdRegisters = 4
	fdFirst     = 5
)

// files are what QEMU inherits from fdFirst on.
func (m *Machine) files() []*os.File {
	files := []*os.File{m.RAM}
	if m.Console != nil {
		files = append(files, m.Console)
	}
	for _, p := range m.Ports {
		files = append(files, p.File)
	}
	for _, d := range m.Disks {
		files = append(files, d.File)
	}
	if m.NIC != nil {
		files = append(files, m.NIC.File)
	}
	return files
}

// Args is QEMU's argument list, without the program's name. The machine must
// pass Check.
func (m *Machine) Args() []string {
	var args []string
	add := func(a ...string) { args = append(args, a...) }
	fd := fdFirst
	next := func() int { fd++; return fd - 1 }

	add("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none")
	add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	add("-machine", m.machine())
	add("-accel", m.Accel.option())
	add("-cpu", m.cpu())
	add("-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", m.CPUs, m.CPUs))
	add("-m", fmt.Sprintf("%dM", m.Memory/mib))
	// Opening the memfd anew through /proc needs no Landlock right: it lies on
	// a file system that nobody can mount.
	add("-object", fmt.Sprintf("memory-backend-file,id=ram,mem-path=/proc/self/fd/%d,size=%d,share=on,dump=off", next(), m.Memory))

	add("-kernel", m.Kernel, "-initrd", m.Initrd, "-append", m.CommandLine())
	// A guest that reboots or panics ends the machine; SHUTDOWN says which.
	add("-no-reboot")

	add("-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdQMP), "-mon", "chardev=qmp,mode=control")
	if m.Freezable() {
		// Without a log, each line would go to standard error, among QEMU's last words.
		add("-chardev", fmt.Sprintf("socket,id=qtest,fd=%d", fdRegisters), "-object", "qtest,id=registers,chardev=qtest,log=none")
	}
	if m.Console != nil {
		add("-chardev", fmt.Sprintf("socket,id=console,fd=%d", next()), "-serial", "chardev:console")
	}

	// Devices get fixed addresses, so that leaving one out moves no other.
	add("-device", "virtio-serial-pci,id=ports,disable-legacy=on,addr="+addrPorts)
	for i, p := range m.Ports {
		add("-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", i, next()))
		add("-device", fmt.Sprintf("virtserialport,bus=ports.0,nr=%d,chardev=port%d,name=%s", i+1, i, p.Name))
	}
	for i, d := range m.Disks {
		add("-add-fd", fmt.Sprintf("fd=%d,set=%d", next(), i))
		add("-blockdev", compact(d.node(nodeName(d.Serial), int64(i))))
		add("-device", compact(d.device("", fmt.Sprintf("%#x", addrDisks+i))))
	}
	if m.NIC != nil {
		add("-netdev", fmt.Sprintf("stream,id=net0,addr.type=fd,addr.str=%d", next()))
		add("-device", compact(m.NIC.device("net0", "", addrNIC)))
	}
	if m.Balloon {
		add("-device", "virtio-balloon-pci,id=balloon,disable-legacy=on,free-page-reporting=on,addr="+addrBalloon)
	}
	if m.GenerationID != "" {
		add("-device", "vmgenid,id=generation,guid="+m.GenerationID)
	}
	for i := range m.Plugs {
		// io-reserve=0: modern virtio has no port ranges, of which q35 has
		// room for few.
		add("-device", fmt.Sprintf("pcie-root-port,id=%s,chassis=%d,addr=%#x.%d,multifunction=on,io-reserve=0",
			plugBus(i), i+1, addrPlugs+i/8, i%8))
	}
	if m.Incoming {
		add("-S", "-incoming", "defer")
	}
	return args
}

// Slots on the root bus. The machine's own devices have 0 and 0x1f (q35).
const (
	addrPorts   = "0x1"
	addrNIC     = "0x2"
	addrBalloon = "0x3"
	addrPlugs   = 0x4 // to 0x6: eight ports a slot
	addrDisks   = 0x8 // and up
)

func plugBus(i int) string { return "plug" + strconv.Itoa(i) }

// machine is the board with all left out that can be.
func (m *Machine) machine() string {
	if m.arch() == "arm64" {
		return "virt,gic-version=max,memory-backend=ram,dump-guest-core=off,mem-merge=off"
	}
	return "q35,memory-backend=ram,smm=off,vmport=off,usb=off,graphics=off,sata=off,smbus=off,i8042=off,dump-guest-core=off,mem-merge=off"
}

func (m *Machine) cpu() string {
	if m.Accel.Kind == KVM {
		return "host"
	}
	if m.arch() == "arm64" {
		return "max"
	}
	return "max"
}

// node is the -blockdev of a disk whose file is in a descriptor set.
func (d Disk) node(name string, set int64) map[string]any {
	return map[string]any{
		"driver":         "file",
		"node-name":      name,
		"filename":       "/dev/fdset/" + strconv.FormatInt(set, 10),
		"read-only":      d.ReadOnly,
		"auto-read-only": false,
		"aio":            "threads",
		// A second machine on a writable disk is refused; a shared image
		// needs no lock.
		"locking": map[bool]string{true: "off", false: "on"}[d.ReadOnly],
		"discard": "unmap", // what the guest trims leaves the host's disk
		"cache":   map[string]any{"direct": false, "no-flush": d.NoFlush},
	}
}

func (d Disk) device(bus, addr string) map[string]any {
	return place(map[string]any{
		"driver": "virtio-blk-pci", "id": diskID(d.Serial), "drive": nodeName(d.Serial), "serial": d.Serial,
		"disable-legacy": "on",
	}, bus, addr)
}

func (n NIC) device(netdev, bus, addr string) map[string]any {
	dev := map[string]any{
		"driver": "virtio-net-pci", "id": "nic-" + netdev, "netdev": netdev, "mac": n.MAC,
		"disable-legacy": "on",
		"romfile":        "", // no network boot
		// Nobody listens to announcements. And QEMU 7.2 crashes when the guest
		// resets a card that was restored without any to make (announce-rounds).
		"guest_announce": false,
	}
	if n.MTU > 0 {
		dev["host_mtu"] = n.MTU
	}
	return place(dev, bus, addr)
}

func place(dev map[string]any, bus, addr string) map[string]any {
	if bus != "" {
		dev["bus"] = bus
	}
	if addr != "" {
		dev["addr"] = addr
	}
	return dev
}

func diskID(serial string) string   { return "disk-" + serial }
func nodeName(serial string) string { return "node-" + serial }

// compact is JSON with sorted keys. The values are ours and always marshal.
func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// Profile is what QEMU may touch when it runs this machine. All else that it
// uses is passed as descriptors.
func (m *Machine) Profile() confine.Profile {
	p := confine.Profile{
		Read:         []string{m.Kernel, m.Initrd, "/etc/ld.so.cache", "/usr/share/qemu", "/usr/share/seabios"},
		ReadExec:     []string{m.Binary, "/lib", "/lib64", "/usr/lib", "/usr/lib64"},
		Devices:      []string{"/dev/null"}, // on which it tries whether the kernel can lock
		NoNetwork:    true,
		NoAttributes: true,
	}
	// A QEMU outside /usr has its libraries and firmware beside it, or in a
	// store where every package has a folder.
	binary := m.Binary
	if real, err := filepath.EvalSymlinks(binary); err == nil {
		binary = real
	}
	if prefix := filepath.Dir(filepath.Dir(binary)); prefix != "/usr" && prefix != "/" {
		for _, store := range []string{"/nix/store", "/gnu/store"} {
			if strings.HasPrefix(prefix, store+"/") {
				p.ReadExec = append(p.ReadExec, store)
			}
		}
		p.ReadExec = append(p.ReadExec, binary, filepath.Join(prefix, "lib"), filepath.Join(prefix, "lib64"))
		p.Read = append(p.Read, filepath.Join(prefix, "share/qemu"), filepath.Join(prefix, "share/seabios"))
	}
	if m.Accel.Kind == KVM {
		p.Devices = append(p.Devices, kvmDevice)
	}
	return p
}
