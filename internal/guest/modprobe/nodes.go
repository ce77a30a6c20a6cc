package modprobe

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceNode is a line of modules.devname (depmod(8)): a device file whose module the
// kernel loads when the file is first opened.
type deviceNode struct {
	name         string
	mode         uint32 // S_IFCHR or S_IFBLK, and permissions
	major, minor uint32
}

// publicNodes are the device files that everyone may open, as udev's rules have it
// (50-udev-default.rules): their drivers check the caller's rights at each operation.
var publicNodes = map[string]bool{"net/tun": true, "fuse": true}

func parseNode(line string) (deviceNode, bool) {
	f := strings.Fields(line)
	if len(f) != 3 || len(f[2]) < 4 || !filepath.IsLocal(f[1]) {
		return deviceNode{}, false // a comment, or of an unknown form
	}
	n := deviceNode{name: f[1], mode: 0o600}
	switch f[2][0] {
	case 'c':
		n.mode |= unix.S_IFCHR
	case 'b':
		n.mode |= unix.S_IFBLK
	default:
		return deviceNode{}, false
	}
	if publicNodes[n.name] {
		n.mode |= 0o666
	}
	major, minor, _ := strings.Cut(f[2][1:], ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	if errors.Join(err1, err2) != nil {
		return deviceNode{}, false
	}
	n.major, n.minor = uint32(a), uint32(b)
	return n, true
}

// MakeNodes makes the device files below dev that the modules in dir ask for, such as
// net/tun and loop-control. One that cannot be made is left out. Permissions of those that
// exist are changed only if everyone may open them.
func MakeNodes(dev, dir string) error {
	err := makeListed(dev, dir)
	for name := range publicNodes { // those of drivers that the kernel has built in are in no list
		openToAll(filepath.Join(dev, name))
	}
	return err
}

// makeListed makes the device files that the modules in dir ask for.
func makeListed(dev, dir string) error {
	f, err := os.Open(dir + "/modules.devname")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("device files: %w", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if n, ok := parseNode(sc.Text()); ok {
			n.make(dev)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("device files: %w", err)
	}
	return nil
}

// make makes the device file below dev, unless it exists.
func (n deviceNode) make(dev string) {
	path := filepath.Join(dev, n.name)
	if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
		return
	}
	if unix.Mknod(path, n.mode, int(unix.Mkdev(n.major, n.minor))) == nil {
		_ = os.Chmod(path, os.FileMode(n.mode&0o777)) // whatever the umask is
	}
}

// openToAll lets everyone open a device file, if it is there.
func openToAll(path string) {
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeCharDevice != 0 {
		_ = os.Chmod(path, 0o666) // if it fails, only root can open it
	}
}
