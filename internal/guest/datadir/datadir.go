// Package datadir keeps the directories that hold data, such as /home and /tmp, on the
// sandbox's own disk and out of the overlay that is its root.
//
// Linux refuses an overlay whose upper directory lies on another overlay
// (Documentation/filesystems/overlayfs.rst, "Upper and lower layers"). Podman, Buildah,
// containerd, k3s and rootless Docker put theirs below the home directory, /tmp or a folder
// of /var/lib. On a plain directory of the disk, which is ext4, they work.
//
// Make copies what the image has at these places, once, before a new sandbox's first start.
// Mount binds the copies over the image's directories at every start. What the disk holds
// decides which places are mounted, so a sandbox keeps the layout that it was made with: one
// of an older build, whose data is in the overlay, has none.
//
// The functions must not run concurrently for one disk.
package datadir

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// place is a directory of the root that lies on the sandbox's disk.
type place struct {
	path   string // clean and absolute
	mode   uint32 // where the image has no such directory
	folder string // of the disk; the directory has the same path below it
}

// storesFolder is the folder of the disk for what container engines store. As Docker's
// images and containers, it is no part of an image that is made of a sandbox.
const storesFolder = "/stores"

// places are the directories. No one lies below another.
var places = []place{
	{"/home", 0o755, wire.DataFolder},
	{"/mnt", 0o755, wire.DataFolder},
	{"/root", 0o700, wire.DataFolder},
	{"/srv", 0o755, wire.DataFolder},
	{"/tmp", 0o1777, wire.DataFolder},
	{"/var/tmp", 0o1777, wire.DataFolder},

	{"/var/lib/buildkit", 0o711, storesFolder},
	{"/var/lib/containerd", 0o711, storesFolder},
	{"/var/lib/containers", 0o755, storesFolder}, // Podman, Buildah, CRI-O
	{"/var/lib/kubelet", 0o750, storesFolder},
	{"/var/lib/lxc", 0o755, storesFolder},
	{"/var/lib/machines", 0o700, storesFolder}, // systemd-nspawn
	{"/var/lib/rancher", 0o755, storesFolder},  // k3s, RKE2
	{"/var/lib/schroot", 0o755, storesFolder},
}

// placesFor returns the places of a sandbox whose user has that home directory. Where the
// home directory is in none of places, the directory that it is in becomes one.
func placesFor(home string) []place {
	parent := filepath.Dir(filepath.Clean(home))
	if home == "" || !filepath.IsAbs(home) || slices.ContainsFunc(places, func(p place) bool {
		return within(parent, p.path) || within(p.path, parent)
	}) || slices.ContainsFunc([]string{"/dev", "/proc", "/run", "/sys"}, func(k string) bool { return within(parent, k) }) {
		return places
	}
	return append(slices.Clone(places), place{parent, 0o755, wire.DataFolder})
}

// within reports whether a clean path is dir or lies below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// Make makes the places on a new disk that is mounted at disk, with the contents that they
// have in the image at image. What an unfinished run left is replaced. A place that is too
// large to copy, or is no directory of the image, is left out, and a line of the log says
// so: it stays part of the overlay.
//
// Data that the caller makes durable afterwards on the same disk is so only after what Make
// wrote.
func Make(disk, image, home string) error {
	for _, f := range []string{wire.DataFolder, storesFolder} {
		if err := os.RemoveAll(disk + f); err != nil {
			return fmt.Errorf("data directories: %w", err)
		}
	}
	for _, p := range placesFor(home) {
		if err := p.make(disk, image); err != nil {
			return fmt.Errorf("data directories: %w", err)
		}
	}
	return nil
}

// make makes the place. What hinders a copy is only logged.
func (p place) make(disk, image string) error {
	to := disk + p.folder + p.path
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	found, err := isPlainDir(image, p.path)
	switch {
	case err != nil:
	case found:
		err = copyTree(image+p.path, to, copyLimits)
	default:
		return errors.Join(os.Mkdir(to, 0o700), unix.Chmod(to, p.mode))
	}
	if err == nil {
		return nil
	}
	log.Printf("%s stays part of the root's overlay, and so cannot hold the upper directory of another: %v", p.path, err)
	return os.RemoveAll(to)
}

// isPlainDir reports whether path is a directory of the image. It fails if the path leads
// through a symbolic link or to something else.
func isPlainDir(image, path string) (bool, error) {
	at := image
	for _, name := range strings.Split(path[1:], "/") {
		at += "/" + name
		fi, err := os.Lstat(at)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !fi.IsDir() {
			return false, fmt.Errorf("%s is no directory in the image", strings.TrimPrefix(at, image))
		}
	}
	return true, nil
}

// Mount mounts the places of a disk over those of the root. disk is open at the disk's root,
// which need not be visible. The parents that an image lacks belong to root, with mode 0755.
func Mount(disk *os.File, home string) error {
	for _, p := range placesFor(home) {
		from := fmt.Sprintf("/proc/self/fd/%d%s%s", disk.Fd(), p.folder, p.path)
		if fi, err := os.Lstat(from); err != nil || !fi.IsDir() {
			continue // not of this sandbox
		}
		if err := os.MkdirAll(p.path, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", p.path, err)
		}
		if err := unix.Mount(from, p.path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", p.path, err)
		}
	}
	return nil
}
