package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// sharesDir is where shares of one file are mounted, each in a folder named by its tag.
const sharesDir = "/run/bawn/shares"

// mount mounts one share. It waits for the share's device.
func (a *agent) mount(m wire.Mount) (any, error) {
	if err := a.devices.Share(m.Tag); err != nil {
		return nil, err
	}
	// Without devices: the guest's own are in /dev, and a file of the host can claim to be any
	// device (internal/share, owner.go).
	flags := uintptr(unix.MS_NODEV)
	if m.File != "" {
		return nil, a.mountFile(m, flags)
	}
	if err := a.makeMountPoint(m.Path); err != nil {
		return nil, err
	}
	if err := unix.Mount(m.Tag, m.Path, "virtiofs", flags, ""); err != nil {
		return nil, fmt.Errorf("mount %s: %w", m.Path, err)
	}
	if m.ReadOnly {
		if err := makeReadOnly(m.Path, flags); err != nil {
			return nil, err
		}
	}
	_ = a.git.trust(m.Path) // an image may have no such file, or another thing there
	return nil, setReadAhead(m.Path)
}

// readAhead is how far the kernel reads ahead of a program that reads a file of a share
// sequentially, in KiB. It is the most that one request may ask for (internal/share,
// maxIO). The kernel's default of 128 KiB makes eight times as many requests, each of which
// passes through QEMU.
const readAhead = 1024

// setReadAhead sets readAhead for the share mounted at path.
func setReadAhead(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("read ahead on %s: %w", path, err)
	}
	bdi := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	if err := os.WriteFile(bdi, []byte(strconv.Itoa(readAhead)), 0); err != nil {
		return fmt.Errorf("read ahead on %s: %w", path, err)
	}
	return nil
}

// mountFile mounts a share of one file below sharesDir, and binds the file to its path.
func (a *agent) mountFile(m wire.Mount, flags uintptr) error {
	dir := filepath.Join(sharesDir, m.Tag)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.Tag, dir, "virtiofs", flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", m.Path, err)
	}
	if err := setReadAhead(dir); err != nil {
		return err
	}
	if err := a.makeMountPoint(filepath.Dir(m.Path)); err != nil {
		return err
	}
	f, err := os.OpenFile(m.Path, os.O_CREATE|os.O_RDONLY|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.Path, err)
	}
	f.Close()
	if err := unix.Mount(filepath.Join(dir, m.File), m.Path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", m.Path, err)
	}
	if m.ReadOnly {
		return makeReadOnly(m.Path, flags)
	}
	return nil
}

// makeReadOnly makes a mount read-only, which has the flags, but not its file system: the agent makes
// file events through another mount of it (package watch). Writing is refused by the share's
// server.
func makeReadOnly(path string, flags uintptr) error {
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|flags, ""); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// shareRoots returns where the roots of shares are mounted, by tag.
func shareRoots(mounts []wire.Mount) map[string]string {
	roots := map[string]string{}
	for _, m := range mounts {
		roots[m.Tag] = m.Path
		if m.File != "" {
			roots[m.Tag] = filepath.Join(sharesDir, m.Tag)
		}
	}
	return roots
}

// makeMountPoint makes a directory and its missing parents. Those in the user's home
// belong to the user.
func (a *agent) makeMountPoint(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("mount %s: not an absolute path", path)
	}
	user := a.logins.User()
	var missing []string
	for p := filepath.Clean(path); !exists(p) && p != "/"; p = filepath.Dir(p) {
		missing = append(missing, p)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	for _, p := range missing {
		if user.Home != "" && strings.HasPrefix(p, user.Home+"/") {
			if err := os.Lchown(p, int(user.UID), int(user.GID)); err != nil {
				return fmt.Errorf("mount %s: %w", path, err)
			}
		}
	}
	return nil
}

// unmount unmounts a share, also while it is in use. It is no error if it is not mounted.
func (a *agent) unmount(m wire.Mount) (any, error) {
	err := unix.Unmount(m.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if m.File != "" {
		err = errors.Join(err, unix.Unmount(filepath.Join(sharesDir, m.Tag), unix.MNT_DETACH))
	}
	return nil, err
}
