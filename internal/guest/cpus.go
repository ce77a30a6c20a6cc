package guest

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/netif"
)

// The kernel patches its own code when a feature is first used or no longer used (static
// keys). Under software emulation, QEMU may continue to run the old code on another CPU,
// which ends in a panic. There a machine starts with one CPU (kernel.OneCPU), which cannot
// run code while it patches it, and the agent starts the others once the kernel has done
// its patching. Before that, the agent causes the patches that would come later in code
// that always runs: it uses the features that the first container needs, and keeps them in
// use as long as the machine lives; and it makes connections to itself, since the kernel
// makes the random secrets of its network when they are first needed, by code that it
// then patches out (docs/adr/0013).

// cpuFolder has a folder for each CPU (Documentation/admin-guide/cputopology.rst).
const cpuFolder = "/sys/devices/system/cpu"

// keptGroup is a control group without processes, which keeps features in use.
const keptGroup = cgroups + "/bawn-kept"

// offlineCPUs returns the files that switch on the CPUs that are off.
func offlineCPUs() []string {
	var off []string
	files, _ := filepath.Glob(cpuFolder + "/cpu[0-9]*/online") // the first CPU often has no such file
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 && b[0] == '0' {
			off = append(off, f)
		}
	}
	return off
}

// patchTime is how long the kernel has for patches that it leaves to a worker (lib/once.c). Nothing
// tells when it has made them.
const patchTime = 50 * time.Millisecond

// startCPUs starts the CPUs that are off. One that does not start is an error: the user
// asked for that many.
func startCPUs() error {
	off := offlineCPUs()
	if len(off) == 0 {
		return nil
	}
	if err := useNetwork(); err != nil {
		log.Print(err) // the first connection causes the patches then
	}
	if err := keepGroups(); err != nil {
		log.Print(err) // the first container causes the patches then
	}
	time.Sleep(patchTime)
	for _, f := range off {
		if err := os.WriteFile(f, []byte("1"), 0); err != nil {
			return fmt.Errorf("start a CPU: %w", err)
		}
	}
	runtime.SetDefaultGOMAXPROCS() // else the runtime notices only later
	return nil
}

// useNetwork causes the patches of the first connections, by TCP and UDP over IPv4 and IPv6, each on
// the loopback interface, which this brings up.
func useNetwork() error {
	failed := netif.LoopbackUp()
	for _, host := range []string{"127.0.0.1", "::1"} {
		failed = errors.Join(failed, useTCP(host), useUDP(host))
	}
	failed = errors.Join(failed, keepTimestamps())
	if failed != nil {
		return fmt.Errorf("first use of the network: %w", failed)
	}
	return nil
}

// useTCP connects to itself, and then to the port that is closed.
func useTCP(host string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0")) //nolint:noctx // does not block
	if err != nil {
		return err
	}
	connect := func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second) //nolint:noctx // bounded
		if err != nil {
			return err
		}
		return c.Close()
	}
	if err := errors.Join(connect(), l.Close()); err != nil {
		return err
	}
	if err := connect(); !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("a closed port: %w", err)
	}
	return nil
}

// useUDP sends a datagram to itself.
func useUDP(host string) error {
	to, err := net.ListenPacket("udp", net.JoinHostPort(host, "0")) //nolint:noctx // does not block
	if err != nil {
		return err
	}
	defer func() { _ = to.Close() }()
	c, err := net.Dial("udp", to.LocalAddr().String()) //nolint:noctx // does not block
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte{0})
	return err
}

// keepTimestamps keeps a socket that wants to know when packets came, as ping does, as long as the
// machine lives (SO_TIMESTAMP, socket(7)).
func keepTimestamps() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1)
	}
	return err
}

// keepGroups causes the patches of the first container: controllers, a group, and a device
// filter.
func keepGroups() error {
	if err := os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+cpuset +memory"), 0); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	if err := os.MkdirAll(keptGroup, 0o755); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	return keepDeviceFilter()
}

// keepDeviceFilter attaches a BPF program to the kept group that allows every device.
// Container runtimes attach one with their list of devices.
func keepDeviceFilter() error {
	group, err := unix.Open(keptGroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	defer func() { _ = unix.Close(group) }()
	program := [...]uint64{0x1_0000_00b7, 0x95} // r0 = 1; exit (RFC 9669, section 4)
	license := [...]byte{'G', 'P', 'L', 0}
	load := struct { // the beginning of union bpf_attr (linux/bpf.h)
		kind, count      uint32
		program, license unsafe.Pointer
	}{unix.BPF_PROG_TYPE_CGROUP_DEVICE, uint32(len(program)), unsafe.Pointer(&program), unsafe.Pointer(&license)}
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load))
	if err != nil {
		return fmt.Errorf("device filter: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	attach := struct{ target, program, where, flags uint32 }{uint32(group), uint32(fd), unix.BPF_CGROUP_DEVICE, 0}
	if _, err = bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
		return fmt.Errorf("device filter: %w", err)
	}
	return nil
}

// bpf is bpf(2).
func bpf(command int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(command), uintptr(attr), size)
	if errno != 0 {
		return -1, errno
	}
	return int(r), nil
}
