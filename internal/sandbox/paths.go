package sandbox

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// NewID returns an ID for a new sandbox.
func NewID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// Beneath reports whether path is root or lies under it. Both are absolute and clean.
func Beneath(root, path string) bool {
	return root == path || strings.HasPrefix(path, strings.TrimSuffix(root, "/")+"/")
}

// SystemDirs are directories without which no system works. A guest may not change
// the host's, and nothing is mounted over its own; what lies in them is another matter.
var SystemDirs = []string{
	"/", "/bin", "/boot", "/etc", "/home", "/lib", "/lib32", "/lib64", "/run", "/sbin",
	"/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin", "/var", "/var/lib", "/var/run", "/var/tmp",
}

// KernelDirs are not files on a disk: neither they nor what lies in them is shared,
// nor mounted over.
var KernelDirs = []string{"/proc", "/sys", "/dev"}

// guestDirs are the folders in the guest that bawn itself needs.
var guestDirs = []string{"/run/bawn", "/var/lib/docker", "/opt/bawn"}

// checkTarget returns an error unless something may be mounted at the path in the guest.
func checkTarget(path string) error {
	within := func(dir string) bool { return Beneath(dir, path) }
	if slices.Contains(SystemDirs, path) || slices.ContainsFunc(KernelDirs, within) || slices.ContainsFunc(guestDirs, within) {
		return fmt.Errorf("the guest needs its own %s: choose another path in the guest, such as /mnt", path)
	}
	return nil
}
