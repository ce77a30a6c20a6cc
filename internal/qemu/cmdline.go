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
	if m.OneCPU && m.CPUs > 1 {
		add(oneCPU(m.arch())...)
	}
	add(m.Append...)
	return strings.Join(p, " ")
}

// oneCPU has the kernel start one CPU and be ready for more.
func oneCPU(arch string) []string {
	if arch != "amd64" {
		return []string{"maxcpus=1"}
	}
	return []string{
		"maxcpus=1",
		"noreplace-smp", // or it takes its locks out, and puts them back for the second CPU
		// The loops of a jiffy, of 4 ms, at 4 GHz. It would measure them anew for each
		// CPU, 50 ms each; what waits by them may wait somewhat longer.
		"lpj=16000000",
	}
}
