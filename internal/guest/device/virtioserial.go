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

// findPort returns the device file of the virtio-serial port of the name, or "".
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

// Port opens the virtio-serial port of the name. It waits, without a limit, until the
// kernel has found the port.
func (u *Events) Port(name string) (*SerialPort, error) {
	var dev string
	if err := u.WaitFor(forever, func() bool { dev = findPort(portClass, name); return dev != "" }); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dev, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &SerialPort{f}, nil
}

// hostPause is how often a read looks for a host that has not opened its end: between
// QEMU's start and the supervisor's connection, or after a saved machine was restored.
const hostPause = 10 * time.Millisecond

// SerialPort is a virtio-serial port. It has no end: while the host's side is closed the
// kernel reports end of file, and Read waits.
type SerialPort struct{ *os.File }

// Read waits until the host has sent something.
func (p *SerialPort) Read(b []byte) (int, error) {
	for {
		n, err := p.File.Read(b)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err
		}
		time.Sleep(hostPause)
	}
}
