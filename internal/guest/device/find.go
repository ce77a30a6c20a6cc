package device

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Limit is how long a device that the host has plugged may take to appear. Under software
// emulation on a busy host it takes seconds.
const Limit = 5 * time.Minute

// shareClass is the folder of the virtiofs devices, with their tags.
const shareClass = "/sys/fs/virtiofs"

// Disk waits for the virtio-blk disk with the serial number and returns its device file.
func (u *Events) Disk(serial string) (string, error) {
	var dev string
	err := u.WaitFor(Limit, func() bool {
		dev = diskOf("/sys/block", serial)
		return dev != ""
	})
	if err != nil {
		return "", fmt.Errorf("disk %s: %w", serial, err)
	}
	return dev, nil
}

// diskOf returns the device file of the disk with the serial number, or "".
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

// Share waits for the virtiofs device with the tag.
func (u *Events) Share(tag string) error {
	if err := u.WaitFor(Limit, func() bool { return hasTag(shareClass, tag) }); err != nil {
		return fmt.Errorf("share %s: %w", tag, err)
	}
	return nil
}

// hasTag reports whether there is a virtiofs device with the tag.
func hasTag(class, tag string) bool {
	entries, err := os.ReadDir(class)
	if err != nil {
		return false
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "tag"))
		if err == nil && strings.TrimSpace(string(b)) == tag {
			return true
		}
	}
	return false
}
