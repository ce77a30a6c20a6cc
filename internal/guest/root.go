package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/datadir"
	"bawn.dev/bawn/internal/guest/dockerd"
	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/wire"
)

// Theory of operation. The root of a sandbox is an overlay: the image, read-only and shared
// with other sandboxes, below; the sandbox's own disk above. Both are virtio-blk disks,
// found by their serial numbers. An overlay cannot hold the upper directory of another, so
// the directories where programs put them are plain folders of the sandbox's disk: Docker's,
// and those of package datadir, such as /home and /tmp. A new disk gets these before its
// overlay's upper directory, which therefore exists only once they are complete.
//
// The overlay is put together in the initramfs (mountRoot). Then the agent makes it the
// root (enterRoot): an initramfs cannot be left by pivot_root(2), so the overlay is moved
// over / (MS_MOVE) and entered by chroot(2). The initramfs stays below it with some
// megabytes, and the kernel's helper processes (modprobe) run there, in the root that the
// kernel booted with. That is why the kernel's file systems are bound into the new root and
// not moved, and why the disk of modules stays mounted in both.
//
// Folders in the initramfs:
const (
	imageDir = "/image" // the image, read-only
	diskDir  = "/disk"  // the sandbox's own disk
	newRoot  = "/root"  // the overlay of both, before it becomes /
)

// mountDisk mounts the ext4 disk with a serial number. It waits for the disk.
func (a *agent) mountDisk(serial, at string, flags uintptr, options string) error {
	dev, err := a.devices.Disk(serial)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(dev, at, "ext4", flags, options); err != nil {
		return fmt.Errorf("mount disk %s: %w", serial, err)
	}
	return nil
}

// mountCommon mounts the disks that all sandboxes of a kind have, once: in a machine from a
// template they are mounted.
func (a *agent) mountCommon(image, modules string) error {
	if a.prepared {
		return nil
	}
	if err := a.mountDisk(image, imageDir, unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if modules != "" {
		if err := a.mountDisk(modules, modprobe.DiskDir, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
			return err
		}
	}
	a.prepared = true
	return nil
}

// mountRoot mounts the overlay of image and disk at newRoot.
func (a *agent) mountRoot(r *wire.SetupRequest) error {
	if err := a.mountCommon(r.ImageSerial, r.ModulesSerial); err != nil {
		return err
	}
	// With discard, deleting a file in the guest frees its space on the host.
	if err := a.mountDisk(r.DiskSerial, diskDir, 0, "discard"); err != nil {
		return err
	}
	upper, work := diskDir+"/root/upper", diskDir+"/root/work"
	if !exists(upper) {
		if err := datadir.Make(diskDir, imageDir, r.User.Home); err != nil {
			return err
		}
	}
	for _, d := range []string{upper, work, newRoot, diskDir + dockerd.DataDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// The mode of / is the image's. Some have 0700.
	if fi, err := os.Stat(imageDir); err == nil {
		_ = os.Chmod(upper, fi.Mode().Perm())
	}
	opts := "lowerdir=" + imageDir + ",upperdir=" + upper + ",workdir=" + work + ",redirect_dir=on"
	if err := unix.Mount("overlay", newRoot, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	disk, err := os.Open(diskDir)
	if err != nil {
		return err
	}
	a.disk = disk
	return nil
}

// carriedModules is where the folder of modules is bound while the root is entered. It can
// be bound to /lib/modules only afterwards: in an image /lib may be a link, which leads to
// the right place only once the image is the root.
const carriedModules = "/run/bawn/modules"

// enterRoot binds the kernel's file systems into the new root, makes it /, and mounts the data
// directories. home is the user's home directory.
func (a *agent) enterRoot(home string) error {
	for _, d := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := makeDir(newRoot + d); err != nil {
			return err
		}
		if err := unix.Mount(d, newRoot+d, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", d, err)
		}
	}
	for from, to := range map[string]string{diskDir + dockerd.DataDir: dockerd.DataDir, modprobe.Dir(modprobe.DiskDir): carriedModules} {
		if _, err := os.Stat(from); err != nil {
			continue // no modules
		}
		if err := os.MkdirAll(newRoot+to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(from, newRoot+to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := datadir.Mount(a.disk, home); err != nil {
		return err
	}
	mountForTools()
	// Containers and unshare(1) expect a shared root, as any init makes it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the root's mounts: %w", err)
	}
	return nil
}

// makeDir makes a directory. A file or link of the name is replaced.
func makeDir(path string) error {
	if fi, err := os.Lstat(path); err == nil && !fi.IsDir() {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.MkdirAll(path, 0o755)
}
