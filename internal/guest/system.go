package guest

import (
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"bawn.dev/bawn/internal/guest/accounts"
	"bawn.dev/bawn/internal/guest/cacert"
	"bawn.dev/bawn/internal/guest/etc"
	"bawn.dev/bawn/internal/guest/modprobe"
	"bawn.dev/bawn/internal/guest/netif"
	"bawn.dev/bawn/internal/wire"
)

// configureSystem writes the configuration that a system has after its installation:
// modules, search path, time zone, accounts, kernel settings.
func (a *agent) configureSystem(r *wire.SetupRequest) error {
	if dir := modprobe.Dir(""); exists(carriedModules) {
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
		if err := modprobe.MakeNodes("/dev", dir); err != nil {
			return err
		}
	}
	if err := profilePath(r.ImageEnv); err != nil {
		return err
	}
	if err := stickyDirs("/tmp", "/var/tmp"); err != nil {
		return err
	}
	kernelSettings()
	linkEndCommands("/usr/local/sbin")
	addOpenCommand("/usr/bin")
	if err := netif.LoopbackUp(); err != nil {
		return err
	}
	if err := removeLink("/etc/resolv.conf"); err != nil {
		return err
	}
	if r.Net == nil { // otherwise configureNet writes it
		if err := etc.Replace("/etc/resolv.conf", []byte("# no network\n"), 0o644); err != nil {
			return err
		}
	}
	if err := setTimezone("", r.Timezone); err != nil {
		log.Print(err) // such as on a full disk; the machine must start, or nobody could make room
	}
	// What is true of the machine is true for root too: its certificates, and that it is a sandbox.
	sudoKeeps := append(cacert.Variables(), "IS_SANDBOX")
	if err := errors.Join(accounts.AddUser("", r.User), accounts.AllowSudo("", r.User, sudoKeeps), accounts.MakeHome("", r.User)); err != nil {
		return err
	}
	return fillRun("", r.User)
}

// profilePath keeps the image's search path in login shells: Debian's /etc/profile would
// replace it by its own.
func profilePath(imageEnv []string) error {
	const dir = "/etc/profile.d"
	path := accounts.Getenv(imageEnv, "PATH")
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() || path == "" {
		return nil //nolint:nilerr // the image has no such folder
	}
	text := "# Written by bawn: the search path that the image wants.\nexport PATH='" + strings.ReplaceAll(path, "'", `'\''`) + "'\n"
	return etc.Replace(dir+"/00-bawn-path.sh", []byte(text), 0o644)
}

// exists reports whether there is anything at path, also a link that leads nowhere.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// stickyDirs makes directories in which everyone may write.
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

// kernelSettings sets kernel parameters for development: a user may listen on port 80, and
// file watchers may watch large trees. Three others keep an idle guest asleep: the kernel does not
// look twice a second whether memory is fragmented, nor every four seconds whether a CPU hangs, and it
// adds up its counts of memory every ten seconds, not each second
// (Documentation/admin-guide/sysctl). Failures are ignored, since nothing else needs them.
func kernelSettings() {
	for name, value := range map[string]string{
		"net/ipv4/ip_unprivileged_port_start": "0",
		"net/ipv4/ping_group_range":           "0 2147483647",
		"fs/inotify/max_user_watches":         "1048576",
		"fs/inotify/max_user_instances":       "8192",
		"vm/max_map_count":                    "1048576",
		"kernel/printk":                       "4 4 1 7",
		"vm/compaction_proactiveness":         "0",
		"vm/stat_interval":                    "10",
		"kernel/watchdog":                     "0",
	} {
		_ = os.WriteFile("/proc/sys/"+name, []byte(value), 0)
	}
}

// removeLink removes what is not a regular file, such as a link to the file of a resolver
// daemon that does not run here.
func removeLink(path string) error {
	if fi, err := os.Lstat(path); err == nil && !fi.Mode().IsRegular() {
		return os.Remove(path)
	}
	return nil
}
