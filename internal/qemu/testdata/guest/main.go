// The guest of this package's VM tests: PID 1 of an initramfs. It answers one
// line for each line that it reads from the virtio-serial port "test".
package main

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var held []byte // keeps memory in use between commands

func main() {
	for _, m := range [][3]string{{"dev", "/dev", "devtmpfs"}, {"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"}, {"tmp", "/tmp", "tmpfs"}} {
		os.Mkdir(m[1], 0o755)
		syscall.Mount(m[0], m[1], m[2], 0, "")
	}
	up, _ := os.ReadFile("/proc/uptime")
	modules, _ := filepath.Glob("/modules/*")
	for _, m := range modules {
		if err := load(m); err != nil {
			fmt.Println(m, err)
		}
	}
	port := find("test")
	fmt.Fprintf(port, "ready %s\n", strings.Fields(string(up))[0])
	for r := bufio.NewReader(port); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			time.Sleep(time.Millisecond)
			continue
		}
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		answer, err := do(f[0], f[1:])
		if err != nil {
			answer = "error " + err.Error()
		}
		fmt.Fprintln(port, answer)
	}
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const compressed = 4 // MODULE_INIT_COMPRESSED_FILE
	empty := []byte{0}
	_, _, e := syscall.Syscall(313, f.Fd(), uintptr(unsafe.Pointer(&empty[0])), compressed) // finit_module
	if e != 0 {
		return e
	}
	return nil
}

func find(name string) *os.File {
	for {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if b, _ := os.ReadFile(n); strings.TrimSpace(string(b)) == name {
				if f, err := os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0); err == nil {
					return f
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// until polls, since this init has no udev.
func until(ok func() bool) {
	for !ok() {
		time.Sleep(time.Millisecond)
	}
}

func disk(serial string) string {
	names, _ := filepath.Glob("/sys/block/vd*/serial")
	for _, n := range names {
		if b, _ := os.ReadFile(n); strings.TrimSpace(string(b)) == serial {
			return "/dev/" + filepath.Base(filepath.Dir(n))
		}
	}
	return ""
}

func do(what string, a []string) (string, error) {
	switch what {
	case "echo":
		return strings.Join(a, " "), nil
	case "cat":
		b, err := os.ReadFile(a[0])
		return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "|"), err
	case "hold": // MiB of random bytes
		n, _ := strconv.Atoi(a[0])
		held = make([]byte, n<<20)
		for i := 0; i < len(held); i += 4096 {
			held[i] = byte(i>>12) | 1
		}
		return "ok", nil
	case "file": // MiB in a tmpfs file: kernel memory, given back at once by rm
		n, _ := strconv.Atoi(a[0])
		b := make([]byte, 1<<20)
		rand.Read(b)
		f, err := os.Create("/tmp/f")
		for i := 0; i < n && err == nil; i++ {
			_, err = f.Write(b)
		}
		return "ok", err
	case "rm":
		return "ok", os.Remove("/tmp/f")
	case "disk": // wait for a disk, by serial
		until(func() bool { return disk(a[0]) != "" })
		return "ok", nil
	case "nodisk":
		until(func() bool { return disk(a[0]) == "" })
		return "ok", nil
	case "write": // serial, text
		f, err := os.OpenFile(disk(a[0]), os.O_RDWR, 0)
		if err != nil {
			return "", err
		}
		defer f.Close()
		if _, err := f.WriteString(a[1]); err != nil {
			return "", err
		}
		return "ok", f.Sync()
	case "read": // serial, bytes
		n, _ := strconv.Atoi(a[1])
		b := make([]byte, n)
		f, err := os.Open(disk(a[0]))
		if err != nil {
			return "", err
		}
		defer f.Close()
		_, err = f.Read(b)
		return string(b), err
	case "mount": // wait for a share and mount it
		os.Mkdir("/mnt", 0o755)
		var err error
		until(func() bool {
			err = syscall.Mount(a[0], "/mnt", "virtiofs", 0, "")
			return err != syscall.EINVAL
		})
		return "ok", err
	case "umount":
		return "ok", syscall.Unmount("/mnt", 0)
	case "nic":
		until(func() bool { m, _ := filepath.Glob("/sys/class/net/e*"); return len(m) > 0 })
		m, _ := filepath.Glob("/sys/class/net/e*/address")
		b, err := os.ReadFile(m[0])
		return strings.TrimSpace(string(b)), err
	case "nonic":
		until(func() bool { m, _ := filepath.Glob("/sys/class/net/e*"); return len(m) == 0 })
		return "ok", nil
	case "random":
		b := make([]byte, 16)
		rand.Read(b)
		return fmt.Sprintf("%x", b), nil
	case "spin": // time for a fixed piece of work
		t, x := time.Now(), uint32(1)
		for range 20_000_000 {
			x = x*1664525 + 1013904223
		}
		return fmt.Sprint(time.Since(t).Milliseconds(), x&1), nil
	case "clocksource":
		b, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
		return strings.TrimSpace(string(b)), err
	case "drop":
		return "ok", os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	case "poweroff":
		return "", syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	case "reboot":
		return "", syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	case "panic":
		return "", os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
	case "exit":
		os.Exit(1)
	}
	return "", fmt.Errorf("unknown %q", what)
}
