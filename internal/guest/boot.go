package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/modprobe"
)

// kernelMounts are the file systems of the kernel that programs expect in any Linux system.
var kernelMounts = []struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=755"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"mqueue", "/dev/mqueue", "mqueue", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
}

// toolMounts are further file systems of the kernel, as systemd mounts them: programs that trace,
// or that keep BPF objects, look for them. A kernel need not have them.
var toolMounts = []struct{ fstype, target, data string }{
	{"bpf", "/sys/fs/bpf", "mode=700"},
	{"tracefs", "/sys/kernel/tracing", ""},
	{"debugfs", "/sys/kernel/debug", ""},
	{"fusectl", "/sys/fs/fuse/connections", ""},
}

// mountForTools mounts what toolMounts names and the kernel has.
func mountForTools() {
	for _, m := range toolMounts {
		if _, err := os.Stat(m.target); err == nil {
			_ = unix.Mount(m.fstype, m.target, m.fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, m.data)
		}
	}
}

// bootstrap mounts the kernel's file systems in the initramfs and loads the modules that
// the host packed there.
func bootstrap() error {
	for _, m := range kernelMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2", "/dev/ptmx": "pts/ptmx",
		// The program that the kernel runs when it needs a module (kernel.modprobe).
		"/sbin/modprobe": "/init",
	} {
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			return err
		}
		_ = os.Remove(link) // devtmpfs may have its own
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	if err := modprobe.LoadNumbered(bootModules); err != nil {
		return err
	}
	// The usual soft limit of 1024 is for programs that use select(2).
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 65536, Max: 1 << 20}); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}

// bootModules is initramfs.ModulesFolder, a package that only the host has.
const bootModules = "/lib/modules-boot"
