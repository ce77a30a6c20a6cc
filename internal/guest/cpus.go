package guest

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A kernel rewrites its own code when a feature is used first or no more (its static
// keys). Where QEMU may then go on with the old code, which ends in a panic, the
// machine starts with one CPU (kernel.OneCPU), which cannot run what it is
// just rewriting. The agent starts the others when the kernel is done, and has it do
// before what it would do later in code that runs all the time: whatever the first
// container brings, kept in use for as long as the machine lives (docs/adr/0013).

// cpuFolder is where the kernel tells of CPUs (Documentation/admin-guide/cputopology.rst).
const cpuFolder = "/sys/devices/system/cpu"

// keptGroup is a control group that stays empty and keeps features in use.
const keptGroup = cgroups + "/bawn-kept"

// offlineCPUs are the switches of the CPUs that do not run.
func offlineCPUs() []string {
	var off []string
	files, _ := filepath.Glob(cpuFolder + "/cpu[0-9]*/online") // the first CPU often has none
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 && b[0] == '0' {
			off = append(off, f)
		}
	}
	return off
}

// startCPUs starts the CPUs that the machine started without. One that does not
// start is an error: the person asked for it.
func startCPUs() error {
	off := offlineCPUs()
	if len(off) == 0 {
		return nil
	}
	if err := keepGroups(); err != nil {
		log.Print(err) // the first container does it then
	}
	for _, f := range off {
		if err := os.WriteFile(f, []byte("1"), 0); err != nil {
			return fmt.Errorf("start a CPU: %w", err)
		}
	}
	runtime.SetDefaultGOMAXPROCS() // now, not when the runtime looks next
	return nil
}

// keepGroups has the kernel do what it does when a container is made first.
func keepGroups() error {
	if err := os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+cpuset +memory"), 0); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	if err := os.MkdirAll(keptGroup, 0o755); err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	return keepDeviceFilter()
}

// keepDeviceFilter attaches a program to the kept group that allows each device: what
// a container's runtime does with its list.
func keepDeviceFilter() error {
	group, err := unix.Open(keptGroup, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("control groups: %w", err)
	}
	defer func() { _ = unix.Close(group) }()
	program := [...]uint64{0x1_0000_00b7, 0x95} // r0 = 1; exit (RFC 9669, section 4)
	license := [...]byte{'G', 'P', 'L', 0}
	load := struct { // union bpf_attr (linux/bpf.h), as far as it is needed
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
