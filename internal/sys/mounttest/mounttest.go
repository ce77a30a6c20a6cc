// Package mounttest gives tests file systems of their own: one on a loop device, for what only
// Btrfs and XFS can do.
//
// A test that mounts runs in a process with a mount table of its own (Own), so that all is
// unmounted when that process ends, however it ends. A loop device is detached by the kernel with
// its last use (LO_FLAGS_AUTOCLEAR, loop(4)).
package mounttest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/sys/proc"
)

// own is the variable that tells a test program that it has a mount table of its own.
const own = "BAWN_TEST_OWN_MOUNTS"

// Own runs a test again in a process that may mount, and unmounts everything with its
// end. It returns false in the process that it was called in at first, which has the outcome
// then. Without root the other process is root in a user namespace. t is a test, not one of
// its parts (t.Run).
func Own(t *testing.T) bool {
	t.Helper()
	if os.Getenv(own) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	c := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	c.Env = append(os.Environ(), own+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		}
	}
	out, err := c.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		t.Errorf("%s", out)
	case err != nil:
		t.Skipf("no mount namespace can be made here: %v", err)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("%s", out)
	default:
		t.Logf("%s", out)
	}
	return false
}

// Bytes is the size of a file system of Loop: the least that mkfs.xfs(8) makes is 300 MB. The image
// is sparse.
const Bytes = 320 << 20

// Cloning are the file systems of Loop on which files can share blocks.
var Cloning = []string{"btrfs", "xfs"}

// Loop mounts a new file system of a type, "btrfs", "xfs" or "ext4", on a loop device and returns its
// directory. The caller runs under Own. Without root, a loop device or the type's mkfs(8) the
// test is skipped.
func Loop(t testing.TB, typ string) string {
	t.Helper()
	mkfs, err := proc.Find("mkfs." + typ)
	if err != nil {
		t.Skipf("no mkfs.%s: install btrfs-progs, xfsprogs or e2fsprogs", typ)
	}
	image := filepath.Join(t.TempDir(), typ)
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, Bytes)); err != nil {
		t.Fatal(err)
	}
	device := attach(t, image)
	defer device.Close() // from then on the mount alone holds it
	if out, err := proc.Command(t.Context(), mkfs, "-q", device.Name()).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", mkfs, err, out)
	}
	dir := t.TempDir()
	if err := unix.Mount(device.Name(), dir, typ, 0, ""); err != nil {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EPERM) {
			t.Skipf("%s cannot be mounted here: %v", typ, err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			panic(err) // nothing may be removed that is still mounted
		}
	})
	return dir
}

// attach makes a loop device of an image, which the caller closes.
func attach(t testing.TB, image string) *os.File {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	defer control.Close()
	backing, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer backing.Close()
	for range 100 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("no loop device is free: %v", err)
		}
		f, err := os.OpenFile(fmt.Sprint("/dev/loop", n), os.O_RDWR, 0)
		if err != nil {
			t.Skipf("no loop devices here: %v", err)
		}
		config := unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(f.Fd()), &config)
		if err == nil {
			return f
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) { // another process has taken it
			t.Skipf("a loop device cannot be used: %v", err)
		}
	}
	t.Skip("other processes take each loop device first")
	return nil
}

// The requests and structures of fiemap (linux/fiemap.h, Documentation/filesystems/fiemap.rst).
const (
	fsIocFiemap  = 0xc020660b // FS_IOC_FIEMAP
	fiemapSync   = 0x1        // FIEMAP_FLAG_SYNC
	extentShared = 0x2000     // FIEMAP_EXTENT_SHARED
	maxExtents   = 1024
)

type fiemap struct {
	start, length                  uint64
	flags, mapped, count, reserved uint32
	extents                        [maxExtents]extent
}

type extent struct {
	logical, physical, length uint64
	reserved                  [2]uint64
	flags                     uint32
	more                      [3]uint32
}

// Shared returns how many bytes the extents of a file have, and how many of these lie in blocks that
// another file has too. It writes the file to disk first. A file has at most 1024 extents.
func Shared(t testing.TB, path string) (shared, all uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := fiemap{length: ^uint64(0), flags: fiemapSync, count: maxExtents}
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocFiemap, uintptr(unsafe.Pointer(&m))); no != 0 {
		t.Fatalf("fiemap of %s: %v", path, no)
	}
	if m.mapped == maxExtents {
		t.Fatalf("%s has too many extents", path)
	}
	for _, e := range m.extents[:m.mapped] {
		all += e.length
		if e.flags&extentShared != 0 {
			shared += e.length
		}
	}
	return shared, all
}

// Loops returns the loop devices of the host with images in a directory, one a line, for a test that
// none is left.
func Loops(t testing.TB, dir string) string {
	t.Helper()
	var left []string
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(b), dir) {
			left = append(left, file)
		}
	}
	return strings.Join(left, "\n")
}
