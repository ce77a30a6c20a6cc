package qemu

import (
	"path/filepath"
	"strings"

	"bawn.dev/bawn/internal/confine"
)

// Profile returns what QEMU may touch when it runs this machine. Everything else that
// it uses is passed as descriptors. The machine must pass Check.
func (m *Machine) Profile() confine.Profile {
	p := confine.Profile{
		Role:     confine.Emulator,
		Read:     append([]string{m.Kernel, m.Initrd, "/etc/ld.so.cache"}, m.arch().firmware...),
		ReadExec: []string{m.Binary, "/lib", "/lib64", "/usr/lib", "/usr/lib64"},
		Devices:  []string{"/dev/null"}, // on which it tries whether the kernel can lock
	}
	m.addForeignPrefix(&p)
	if m.Accel.OK() {
		p.Devices = append(p.Devices, kvmDevice)
	}
	return p
}

// addForeignPrefix adds the libraries and firmware of a QEMU outside /usr. It has them
// beside it, or in a store where every package has a folder of its own.
func (m *Machine) addForeignPrefix(p *confine.Profile) {
	binary := m.Binary
	if real, err := filepath.EvalSymlinks(binary); err == nil {
		binary = real
	}
	prefix := filepath.Dir(filepath.Dir(binary))
	if prefix == "/usr" || prefix == "/" {
		return
	}
	for _, store := range []string{"/nix/store", "/gnu/store"} {
		if strings.HasPrefix(prefix, store+"/") {
			p.ReadExec = append(p.ReadExec, store)
		}
	}
	p.ReadExec = append(p.ReadExec, binary, filepath.Join(prefix, "lib"), filepath.Join(prefix, "lib64"))
	for _, folder := range m.arch().bundled {
		p.Read = append(p.Read, filepath.Join(prefix, folder))
	}
}
