package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// deviceNode is a line of modules.devname (depmod(8)): a device file whose
// module the kernel loads when somebody first opens it.
type deviceNode struct {
	name         string
	mode         uint32 // S_IFCHR or S_IFBLK, and permissions
	major, minor uint32
}

// publicNodes may be opened by everyone, as udev's rules have it
// (50-udev-default.rules): what opening them allows is decided later.
var publicNodes = map[string]bool{"net/tun": true, "fuse": true}

func parseNode(line string) (deviceNode, bool) {
	f := strings.Fields(line)
	if len(f) != 3 || len(f[2]) < 4 || !filepath.IsLocal(f[1]) {
		return deviceNode{}, false // a comment, or nothing that we know
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

// MakeNodes makes the device files that the kernel's modules in dir ask for,
// such as net/tun and loop-control.
func MakeNodes(dev, dir string) error {
	err := eachLine(dir+"/modules.devname", func(line string) {
		n, ok := parseNode(line)
		path := filepath.Join(dev, n.name)
		if !ok || os.MkdirAll(filepath.Dir(path), 0o755) != nil {
			return
		}
		err := unix.Mknod(path, n.mode, int(unix.Mkdev(n.major, n.minor)))
		if err == nil || errors.Is(err, unix.EEXIST) && publicNodes[n.name] {
			_ = os.Chmod(path, os.FileMode(n.mode&0o777)) // without it, for root only
		}
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("device files: %w", err)
	}
	return nil
}
