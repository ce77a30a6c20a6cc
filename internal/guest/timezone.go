package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/guest/etc"
)

// The time zone in /etc/localtime (localtime(5)) and /etc/timezone is the host's, until the
// guest's administrator sets another one. A link has no room for a comment that marks it as
// the agent's, so ownTimezone keeps the name that the agent set.

const (
	zoneinfo    = "/usr/share/zoneinfo"
	ownTimezone = "/var/lib/bawn/timezone"
)

// setTimezone sets the time zone of the system at root, "" for /. If the image does not have
// the zone, or the administrator has changed either file since the last time, nothing changes.
func setTimezone(root, name string) error {
	if name == "" || !filepath.IsLocal(name) || strings.ContainsRune(name, '\n') {
		return nil
	}
	zone := filepath.Join(zoneinfo, name)
	if fi, err := os.Stat(root + zone); err != nil || !fi.Mode().IsRegular() {
		return nil //nolint:nilerr // the image has no such zone
	}
	if ours := firstLine(root + ownTimezone); ours == name || ours != "" && !unchangedTimezone(root, ours) {
		return nil
	}
	if err := etc.Replace(root+"/etc/timezone", []byte(name+"\n"), 0o644); err != nil {
		return err
	}
	tmp := root + "/etc/localtime.bawn-new"
	_ = os.Remove(tmp) // left by a start that was killed
	if err := os.Symlink(zone, tmp); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	if err := os.Rename(tmp, root+"/etc/localtime"); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	return etc.Replace(root+ownTimezone, []byte(name+"\n"), 0o644) // last: it says that all is done
}

// unchangedTimezone reports whether the files still have the time zone that the agent set.
func unchangedTimezone(root, ours string) bool {
	target, err := os.Readlink(root + "/etc/localtime")
	return err == nil && target == filepath.Join(zoneinfo, ours) && firstLine(root+"/etc/timezone") == ours
}

func firstLine(file string) string {
	line, _, _ := strings.Cut(string(etc.Read(file)), "\n")
	return strings.TrimSpace(line)
}
