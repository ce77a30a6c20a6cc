package device

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const portClass = "/sys/class/virtio-ports"

// findPort returns the device of the virtio-serial port of the name, or "".
func findPort(class, name string) string {
	entries, err := os.ReadDir(class)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "name"))
		if err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + e.Name()
		}
	}
	return ""
}

// Port opens the virtio-serial port of the name, waiting until the kernel has found it.
func (u *Events) Port(name string) (*port, error) {
	var dev string
	if err := u.WaitFor(forever, func() bool { dev = findPort(portClass, name); return dev != "" }); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &port{f}, nil
}

// hostPause is how long to wait for a host that is not there: between QEMU's
// start and its chardev's connection, or around a saved machine's restart.
const hostPause = 10 * time.Millisecond

// port is a virtio-serial port. It never ends: while nobody holds the host's
// end, the kernel reports end of file, and the port waits.
type port struct{ *os.File }

// Read waits for the host's bytes.
func (p *port) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(hostPause)
	}
}
