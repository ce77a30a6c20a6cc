package qemu

import "strings"

// CommandLine is the kernel's command line for this machine.
func (m *Machine) CommandLine() string {
	var p []string
	add := func(s ...string) { p = append(p, s...) }
	if m.arch() == "arm64" {
		add("console=ttyAMA0")
	} else {
		add("console=ttyS0")
	}
	if !m.Verbose {
		add("quiet", "loglevel=3")
	}
	add("panic=-1")
	if m.arch() == "amd64" {
		add("reboot=t") // a triple fault resets at once; QEMU then ends (-no-reboot)
	}
	add(m.Append...)
	return strings.Join(p, " ")
}
