package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/wire"
)

// Where the root is put together in the initramfs.
const (
	imageDir = "/image" // the image, read-only
	diskDir  = "/disk"  // the sandbox's own disk
	newRoot  = "/root"
)

// deviceLimit is how long a device may take to appear that the host says is
// there; under software emulation on a busy host seconds are usual.
const deviceLimit = 5 * time.Minute

// setup makes a sandbox of this machine.
func (a *agent) setup(r wire.SetupRequest) (any, error) {
	if a.disk != nil {
		return nil, errors.New("the guest is set up already")
	}
	if err := seedRandom(r.Seed); err != nil {
		return nil, err
	}
	if err := setClock(r.Time); err != nil {
		return nil, err
	}
	if err := a.mountRoot(&r); err != nil {
		return nil, err
	}
	if err := a.enterRoot(); err != nil {
		return nil, err
	}
	if err := a.furnish(&r); err != nil {
		return nil, err
	}
	a.logins.configure(r.User, r.ImageEnv)
	for _, m := range r.Mounts {
		if _, err := a.mount(m); err != nil {
			return nil, err
		}
	}
	if r.Net != nil {
		if err := a.configureNet(r.Net); err != nil {
			return nil, err
		}
	}
	if err := a.assume(&r.Identity); err != nil {
		return nil, err
	}
	if err := readyMachine(modulesDir("")); err != nil {
		return nil, err
	}
	go a.late(modulesDir(""))
	return nil, a.docker.listen()
}

// identify makes this machine, a copy of another, one of its own. What makes
// copies alike comes first: random numbers and time.
func (a *agent) identify(r wire.Identity) (any, error) {
	if a.disk == nil {
		return nil, errors.New("the guest is not set up")
	}
	if err := seedRandom(r.Seed); err != nil {
		return nil, err
	}
	if err := setClock(r.Time); err != nil {
		return nil, err
	}
	return nil, a.assume(&r)
}

// assume takes on keys, names and addresses, on two processors where there are:
// somebody waits for it.
func (a *agent) assume(r *wire.Identity) error {
	a.logins.startIn(r.Workdir)
	if err := a.ssh.configure(r.HostKey, r.AuthorizedKeys); err != nil {
		return err
	}
	named := make(chan error, 1)
	go func() { named <- a.assumeNames(r) }()
	var err error
	if a.net != nil && r.MAC != "" {
		err = a.address(r)
	}
	return errors.Join(<-named, err)
}

// assumeNames leaves a machine alone that has its names already: the files may
// have been edited since.
func (a *agent) assumeNames(r *wire.Identity) error {
	if r.MachineID == a.machineID {
		return nil
	}
	if err := unix.Sethostname([]byte(r.Hostname)); err != nil {
		return fmt.Errorf("hostname: %w", err)
	}
	files := map[string]string{
		"/etc/hostname":   r.Hostname + "\n",
		"/etc/machine-id": r.MachineID + "\n",
		"/etc/hosts":      hostsFile(r.Hostname),
	}
	for path, text := range files {
		if err := overwriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	a.machineID = r.MachineID
	return nil
}

// rndAddEntropy and rndReseed are ioctls of random(4).
const (
	rndAddEntropy = 0x40085203
	rndReseed     = 0x5207
)

// seedRandom credits bytes from the host to the kernel's generator.
func seedRandom(seed []byte) error {
	if len(seed) == 0 || len(seed) > 4096 {
		return errors.New("seed: none, or too long")
	}
	f, err := os.OpenFile("/dev/urandom", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("seed: %w", err)
	}
	defer f.Close()
	// struct rand_pool_info: bits, bytes, the bytes as 32-bit words.
	words := make([]uint32, 2+(len(seed)+3)/4)
	words[0], words[1] = uint32(len(seed)*8), uint32(len(seed))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&words[2])), len(seed)), seed)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&words[0]))); errno != 0 {
		return fmt.Errorf("seed: %w", errno)
	}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseed, 0) // sooner than by itself, where the kernel can
	return nil
}

// findDisk waits for the virtio-blk disk with a serial number.
func (a *agent) findDisk(serial string) (string, error) {
	var dev string
	err := a.events.until(deviceLimit, func() bool {
		dev = diskOf("/sys/block", serial)
		return dev != ""
	})
	if err != nil {
		return "", fmt.Errorf("disk %s: %w", serial, err)
	}
	return dev, nil
}

func diskOf(class, serial string) string {
	entries, err := os.ReadDir(class)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "serial"))
		if err == nil && strings.TrimRight(string(b), "\x00\n ") == serial {
			return "/dev/" + e.Name()
		}
	}
	return ""
}

// mountDisk mounts the ext4 disk with a serial number.
func (a *agent) mountDisk(serial, at string, flags uintptr, options string) error {
	dev, err := a.findDisk(serial)
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
		if err := a.mountDisk(modules, modulesDisk, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
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
	for _, d := range []string{upper, work, newRoot, diskDir + dockerData} {
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
	for from, to := range map[string]string{diskDir + dockerData: dockerData, modulesDir(modulesDisk): carriedModules} {
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

// furnish writes what a system needs to know about itself.
func (a *agent) furnish(r *wire.SetupRequest) error {
	if dir := modulesDir(""); exists(carriedModules) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(carriedModules, dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
		if err := unix.Unmount(carriedModules, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", carriedModules, err)
		}
		_ = os.Remove(carriedModules)
		if err := staticNodes("/dev", dir); err != nil {
			return err
		}
	}
	if err := profilePath(r.ImageEnv); err != nil {
		return err
	}
	if err := stickyDirs("/tmp", "/var/tmp"); err != nil {
		return err
	}
	settings()
	endCommands("/usr/local/sbin")
	link, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := replaceLink("/etc/resolv.conf"); err != nil {
		return err
	}
	if r.Net == nil { // else configureNet writes it
		if err := replaceFile("/etc/resolv.conf", []byte("# no network\n"), 0o644); err != nil {
			return err
		}
	}
	if err := setTimezone(r.Timezone); err != nil {
		return err
	}
	return errors.Join(addUser("", r.User), allowSudo("", r.User), makeHome("", r.User))
}

// profilePath keeps the image's search path in login shells, whose /etc/profile
// would otherwise put Debian's own in its place.
func profilePath(imageEnv []string) error {
	const dir = "/etc/profile.d"
	path := environment(imageEnv).get("PATH")
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() || path == "" {
		return nil //nolint:nilerr // the image has no such folder
	}
	text := "# Written by bawn: the search path that the image wants.\nexport PATH='" + strings.ReplaceAll(path, "'", `'\''`) + "'\n"
	return replaceFile(dir+"/00-bawn-path.sh", []byte(text), 0o644)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func stickyDirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := unix.Chmod(d, 0o1777); err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
	}
	return nil
}

// settings are for development: a user may listen on port 80, and file watchers
// watch large trees. They are conveniences; without one, life goes on.
func settings() {
	for name, value := range map[string]string{
		"net/ipv4/ip_unprivileged_port_start": "0",
		"net/ipv4/ping_group_range":           "0 2147483647",
		"fs/inotify/max_user_watches":         "1048576",
		"fs/inotify/max_user_instances":       "8192",
		"vm/max_map_count":                    "1048576",
		"kernel/printk":                       "4 4 1 7",
	} {
		_ = os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	}
}

func hostsFile(hostname string) string {
	return fmt.Sprintf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
}

// replaceLink removes a symbolic link, such as to a resolver's file that nobody
// writes here.
func replaceLink(path string) error {
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return os.Remove(path)
	}
	return nil
}

// setTimezone points /etc/localtime at a zone that the image has; without one,
// times are in UTC.
func setTimezone(name string) error {
	zone := filepath.Join("/usr/share/zoneinfo", filepath.Clean("/"+name))
	if name == "" || !exists(zone) {
		return nil
	}
	if err := replaceFile("/etc/timezone", []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	tmp := "/etc/localtime.bawn-new"
	_ = os.Remove(tmp)
	if err := os.Symlink(zone, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, "/etc/localtime")
}
