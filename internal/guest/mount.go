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
	if err := setReadAhead(m.Path); err != nil || m.Over == "" {
		return nil, err
	}
	return nil, a.mountOver(m)
}

// overFolder is the folder of the sandbox's disk that has what was written over shares, by
// localName.
const overFolder = "/over"

// mountOver mounts an overlay at m.Over: the share, which is mounted, is below; a folder of the
// sandbox's own disk, which belongs to the user, is above. The host may add files to the share
// meanwhile: the guest may see these only after the next mount, since overlayfs keeps what it has
// looked up.
func (a *agent) mountOver(m wire.Mount) error {
	if a.disk == nil {
		return fmt.Errorf("mount %s: the guest is not set up", m.Over)
	}
	dir := fmt.Sprintf("/proc/self/fd/%d%s/%s", a.disk.Fd(), overFolder, localName(m.Over, ""))
	user := a.logins.User()
	upper, work := dir+"/upper", dir+"/work"
	if !exists(upper) {
		if err := os.MkdirAll(work, 0o700); err != nil {
			return err
		}
		if err := makeOwned(upper, int(user.UID), int(user.GID)); err != nil {
			return err
		}
	}
	// What writes there runs as the user, and writes beside it, too.
	if err := a.makeDirs(m.Over, func(string) bool { return true }); err != nil {
		return err
	}
	opts := "lowerdir=" + m.Path + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", m.Over, "overlay", unix.MS_NODEV|unix.MS_NOSUID, opts); err != nil {
		return fmt.Errorf("mount %s: %w", m.Over, err)
	}
	return nil
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
	home := a.logins.User().Home
	return a.makeDirs(path, func(p string) bool { return home != "" && strings.HasPrefix(p, home+"/") })
}

// makeDirs makes a directory and its missing parents. The user gets those that own names.
func (a *agent) makeDirs(path string, own func(string) bool) error {
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
		if own(p) {
			if err := os.Lchown(p, int(user.UID), int(user.GID)); err != nil {
				return fmt.Errorf("mount %s: %w", path, err)
			}
		}
	}
	return nil
}

// unmount unmounts a share, also while it is in use. It is no error if it is not mounted.
func (a *agent) unmount(m wire.Mount) (any, error) {
	if m.Over != "" {
		_ = unix.Unmount(m.Over, unix.MNT_DETACH) // not mounted, or a program has put another thing there
	}
	err := unix.Unmount(m.Path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil
	}
	if m.File != "" {
		err = errors.Join(err, unix.Unmount(filepath.Join(sharesDir, m.Tag), unix.MNT_DETACH))
	}
	return nil, err
}
