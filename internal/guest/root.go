package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/dockerd"
	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/wire"
)

// Where the root is put together in the initramfs.
const (
	imageDir = "/image" // the image, read-only
	diskDir  = "/disk"  // the sandbox's own disk
	newRoot  = "/root"
)

// mountDisk mounts the ext4 disk with a serial number.
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

// mountCommon mounts what all sandboxes of a kind have.
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

// mountRoot lays the sandbox's disk over the image.
func (a *agent) mountRoot(r *wire.SetupRequest) error {
	if err := a.mountCommon(r.ImageSerial, r.ModulesSerial); err != nil {
		return err
	}
	// With discard, what is deleted inside leaves the host's disk too.
	if err := a.mountDisk(r.DiskSerial, diskDir, 0, "discard"); err != nil {
		return err
	}
	upper, work := diskDir+"/root/upper", diskDir+"/root/work"
	for _, d := range []string{upper, work, newRoot, diskDir + dockerd.DataDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	// The root's own attributes are the image's: / of some is 0700.
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

// carriedModules is where the modules wait, while the root is entered, for
// their place: in the image /lib may be a link, which only leads there once the
// image is the root.
const carriedModules = "/run/bawn/modules"

// enterRoot moves the kernel's file systems into the new root and makes it /.
// An initramfs cannot be left by pivot_root(2); what stays behind costs some
// megabytes and serves the kernel's helpers.
func (a *agent) enterRoot() error {
	for _, d := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := makeDir(newRoot + d); err != nil {
			return err
		}
		// Bound, not moved: the kernel's helpers in the initramfs need them too.
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
	// So that containers and unshare(1) work as under any init.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share the root's mounts: %w", err)
	}
	return nil
}

// makeDir makes a directory, in place of whatever else an image has there.
func makeDir(path string) error {
	if fi, err := os.Lstat(path); err == nil && !fi.IsDir() {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.MkdirAll(path, 0o755)
}
