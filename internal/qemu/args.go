package qemu

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// tbSizeMiB bounds the cache of translated code under software emulation, in
// MiB (QEMU invocation, "-accel tcg,tb-size="). QEMU's default is an eighth of
// the host's memory, up to 1 GiB.
const tbSizeMiB = 256

// Descriptors of the QEMU process: the standard ones, the two channels of every machine,
// and from fdFirst on the machine's files in the order of files.
const (
	fdQMP       = 3
	fdRegisters = 4
	fdFirst     = 5
)

// Slots on the root bus. Devices have fixed ones, so that leaving one out moves no
// other. The board's own devices have 0 and 0x1f (q35).
const (
	addrPorts   = "0x1"
	addrNIC     = "0x2"
	addrBalloon = "0x3"
	addrPlugs   = 0x4 // to 0x6: plugsPerSlot ports a slot
	addrDisks   = 0x8 // and up

	plugsPerSlot = 8 // functions of a PCI slot
)

// files returns what QEMU inherits from fdFirst on. Args takes them in the same order.
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

// argList is an argument list in the making.
type argList struct {
	list []string
	fd   int // the next descriptor that QEMU inherits
}

func (a *argList) add(args ...string) { a.list = append(a.list, args...) }

// nextFile returns the next of the descriptors that QEMU inherits.
func (a *argList) nextFile() int {
	a.fd++
	return a.fd - 1
}

// Args returns QEMU's argument list, without the program's name. The machine must
// pass Check.
func (m *Machine) Args() []string {
	a := &argList{fd: fdFirst}
	m.addBoard(a)
	m.addKernel(a)
	m.addChannels(a)
	m.addPorts(a)
	m.addDisks(a)
	m.addNIC(a)
	if m.Balloon {
		a.add("-device", "virtio-balloon-pci,id=balloon,disable-legacy=on,free-page-reporting=on,addr="+addrBalloon)
	}
	m.addPlugs(a)
	if m.Incoming {
		a.add("-S", "-incoming", "defer")
	}
	return a.list
}

// commonArgs returns the arguments of every QEMU that bawn starts.
func commonArgs() []string {
	return []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-no-reboot", // a guest that reboots or panics ends the machine; SHUTDOWN says which
	}
}

func (m *Machine) addBoard(a *argList) {
	arch := m.arch()
	a.add(commonArgs()...)
	a.add("-vga", "none")
	a.add("-machine", arch.board+",memory-backend=ram,dump-guest-core=off,mem-merge=off")
	a.add("-accel", m.Accel.option())
	a.add("-cpu", arch.cpu(m.Accel.Kind))
	a.add("-smp", fmt.Sprintf("cpus=%d,sockets=1,cores=%d,threads=1", m.CPUs, m.CPUs))
	a.add("-m", fmt.Sprintf("%dM", m.Memory/mib))
	// Opening the memfd again through /proc needs no Landlock right: it lies on
	// a file system that nobody can mount.
	a.add("-object", fmt.Sprintf("memory-backend-file,id=ram,mem-path=/proc/self/fd/%d,size=%d,share=on,dump=off", a.nextFile(), m.Memory))
}

func (m *Machine) addKernel(a *argList) {
	p := slices.Clone(m.arch().parameters)
	if m.Accel.Kind == KVM {
		p = append(p, m.arch().kvmParameters...)
	}
	p = append(p, "quiet", "loglevel=3", "panic=-1")
	p = append(p, m.Append...)
	a.add("-kernel", m.Kernel, "-initrd", m.Initrd, "-append", strings.Join(p, " "))
}

// addChannels adds the channels between this process and QEMU: QMP, the registers and the
// console.
func (m *Machine) addChannels(a *argList) {
	a.add("-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdQMP), "-mon", "chardev=qmp,mode=control")
	if m.CanDetachShares() {
		// Without log=none, each line would go to standard error, among QEMU's messages.
		a.add("-chardev", fmt.Sprintf("socket,id=qtest,fd=%d", fdRegisters), "-object", "qtest,id=registers,chardev=qtest,log=none")
	}
	if m.Console != nil {
		a.add("-chardev", fmt.Sprintf("socket,id=console,fd=%d", a.nextFile()), "-serial", "chardev:console")
	}
}

func (m *Machine) addPorts(a *argList) {
	a.add("-device", "virtio-serial-pci,id=ports,disable-legacy=on,addr="+addrPorts)
	for i, p := range m.Ports {
		a.add("-chardev", fmt.Sprintf("socket,id=port%d,fd=%d", i, a.nextFile()))
		a.add("-device", fmt.Sprintf("virtserialport,bus=ports.0,nr=%d,chardev=port%d,name=%s", i+1, i, p.Name))
	}
}

func (m *Machine) addDisks(a *argList) {
	for i, d := range m.Disks {
		a.add("-add-fd", fmt.Sprintf("fd=%d,set=%d", a.nextFile(), i))
		a.add("-blockdev", compact(map[string]any{
			"driver":         "file",
			"node-name":      nodeName(d.Serial),
			"filename":       fdsetPath(i),
			"read-only":      d.ReadOnly,
			"auto-read-only": false,
			"aio":            "threads",
			// A second machine on a writable disk is refused; a shared image needs no lock.
			"locking": map[bool]string{true: "off", false: "on"}[d.ReadOnly],
			"discard": "unmap", // what the guest trims leaves the host's disk
			"cache":   map[string]any{"direct": false, "no-flush": false},
		}))
		a.add("-device", compact(map[string]any{
			"driver": "virtio-blk-pci", "id": "disk-" + d.Serial, "drive": nodeName(d.Serial), "serial": d.Serial,
			"disable-legacy": "on", "addr": fmt.Sprintf("%#x", addrDisks+i),
		}))
	}
}

// nodeName is QEMU's name of a disk.
func nodeName(serial string) string { return "node-" + serial }

// fdsetPath returns the file name by which QEMU opens a descriptor set.
func fdsetPath(set int) string { return "/dev/fdset/" + strconv.Itoa(set) }

func (m *Machine) addNIC(a *argList) {
	if m.NIC == nil {
		return
	}
	a.add("-netdev", fmt.Sprintf("stream,id=net0,addr.type=fd,addr.str=%d", a.nextFile()))
	dev := map[string]any{
		"driver": "virtio-net-pci", "id": "nic-net0", "netdev": "net0", "mac": m.NIC.MAC,
		"disable-legacy": "on", "addr": addrNIC,
		"romfile": "", // no network boot
		// Nobody listens to announcements. And QEMU 7.2 crashes when the guest
		// resets a card that was restored without any to make (announce-rounds).
		"guest_announce": false,
	}
	if m.NIC.MTU > 0 {
		dev["host_mtu"] = m.NIC.MTU
	}
	a.add("-device", compact(dev))
}

func (m *Machine) addPlugs(a *argList) {
	for i := range m.Plugs {
		slot, function := plugAddr(i)
		// io-reserve=0: modern virtio has no port ranges, of which q35 has room for few.
		a.add("-device", fmt.Sprintf("pcie-root-port,id=%s,chassis=%d,addr=%#x.%d,multifunction=on,io-reserve=0",
			plugBus(i), i+1, slot, function))
	}
}

// plugBus is QEMU's name of the bus behind a root port.
func plugBus(i int) string { return "plug" + strconv.Itoa(i) }

// plugAddr returns where a root port sits on the root bus.
func plugAddr(i int) (slot, function uint8) {
	return uint8(addrPlugs + i/plugsPerSlot), uint8(i % plugsPerSlot)
}

// compact is JSON with sorted keys. The values are bawn's own and always marshal.
func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}
