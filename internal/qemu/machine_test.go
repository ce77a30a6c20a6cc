package qemu

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bawn.dev/bawn/internal/confine"
)

var update = flag.Bool("update", false, "write the golden files anew")

// checkGolden compares text with a file of testdata.
func checkGolden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, text, want)
	}
}

// oneALine is an argument list with a line for each option and its value.
func oneALine(args []string) string {
	var b strings.Builder
	for i, a := range args {
		sep := "\n"
		if i+1 < len(args) && strings.HasPrefix(a, "-") && !strings.HasPrefix(args[i+1], "-") {
			sep = " "
		}
		b.WriteString(a + sep)
	}
	return b.String()
}

// fullMachine is a machine with everything that one can have.
func fullMachine(arch, accel string) *Machine {
	f := os.Stdin // any file: nothing is read
	return &Machine{
		Binary: "/usr/bin/qemu", Arch: arch, Accel: Accel{Kind: accel},
		CPUs: 2, Memory: 4096 * mib, RAM: f,
		Kernel: "/boot/kernel", Initrd: "/boot/initrd", Append: []string{"one=1", "two"},
		Console: f,
		Ports:   []Port{{Name: "control", File: f}, {Name: "mux", File: f}},
		Disks:   []Disk{{Serial: "image", File: f, ReadOnly: true}, {Serial: "own", File: f}},
		NIC:     &NIC{File: f, MAC: "02:00:00:00:00:01", MTU: 1400},
		Plugs:   9, Balloon: true,
	}
}

// TestArgs holds the arguments of every architecture. A change of them makes every
// template and snapshot another kind, and devices at other addresses are other
// hardware for a suspended guest.
func TestArgs(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		for _, accel := range []string{KVM, TCG} {
			t.Run(arch+"-"+accel, func(t *testing.T) {
				m := fullMachine(arch, accel)
				if err := m.Check(); err != nil {
					t.Fatal(err)
				}
				checkGolden(t, "args-"+arch+"-"+accel, oneALine(m.Args()))
			})
		}
		t.Run(arch+"-least", func(t *testing.T) {
			f := os.Stdin
			m := &Machine{
				Binary: "/usr/bin/qemu", Arch: arch, CPUs: 1, Memory: 64 * mib, RAM: f,
				Kernel: "/boot/kernel", Initrd: "/boot/initrd", Incoming: true,
			}
			if err := m.Check(); err != nil {
				t.Fatal(err)
			}
			checkGolden(t, "args-"+arch+"-least", oneALine(m.Args()))
		})
	}
}

// TestArchs: every architecture's entry is whole, whichever this host's is.
func TestArchs(t *testing.T) {
	for name, a := range archs {
		if a.program == "" || a.pkg == "" || a.board == "" || len(a.firmware) == 0 || len(a.firmware) != len(a.bundled) || len(a.parameters) == 0 {
			t.Errorf("%s: %+v", name, a)
		}
		if guest := a.proofGuest(); len(guest) < 4096 {
			t.Errorf("%s: the proof's guest has %d bytes; QEMU reads at least a page", name, len(guest))
		}
		checkGolden(t, "proof-"+name, oneALine(proofArgs(a, KVM, "/boot/proof")))
	}
}

// TestProfile: QEMU may read what it boots from and its own files, write nothing, and
// open the one device only if it needs it.
func TestProfile(t *testing.T) {
	for name, c := range map[string]struct {
		binary, arch, accel string
		read, device        string // must be there
		not                 string // must not
	}{
		"packaged":           {"/usr/bin/qemu", "amd64", TCG, "/usr/share/seabios", "/dev/null", "/dev/kvm"},
		"with KVM":           {"/usr/bin/qemu", "amd64", KVM, "/usr/share/qemu", "/dev/kvm", "/usr/local"},
		"arm64":              {"/usr/bin/qemu", "arm64", TCG, "/usr/share/qemu", "/dev/null", "/usr/share/seabios"},
		"of its own":         {"/opt/qemu/bin/qemu", "amd64", TCG, "/opt/qemu/share/seabios", "/dev/null", "/opt"},
		"of a package store": {"/nix/store/x-qemu/bin/qemu", "amd64", TCG, "/nix/store", "/dev/null", "/nix"},
	} {
		m := fullMachine(c.arch, c.accel)
		m.Binary = c.binary
		p := m.Profile()
		all := slices.Concat(p.Read, p.ReadExec, p.Devices)
		for _, path := range []string{m.Kernel, m.Initrd, m.Binary, c.read, c.device} {
			if !slices.Contains(all, path) {
				t.Errorf("%s: %s is not allowed", name, path)
			}
		}
		if slices.Contains(all, c.not) || len(p.Write) != 0 || p.Role != confine.Emulator {
			t.Errorf("%s: too much is allowed: %+v", name, p)
		}
	}
}

// TestDisksAreRaw: QEMU looks for no format in a disk, where a guest could have written a
// header that names a file of the host.
func TestDisksAreRaw(t *testing.T) {
	args := fullMachine("amd64", TCG).Args()
	disks := 0
	for i, a := range args {
		switch a {
		case "-drive", "-hda":
			t.Errorf("%s %s may probe for a format", a, args[i+1])
		case "-blockdev":
			disks++
			if !strings.Contains(args[i+1], `"driver":"file"`) { // the protocol alone, no format on it
				t.Errorf("%s", args[i+1])
			}
		}
	}
	if disks != 2 {
		t.Errorf("%d disks", disks)
	}
}

// TestCheck: what cannot be run is refused, with a word about the reason.
func TestCheck(t *testing.T) {
	f := os.Stdin
	for want, spoil := range map[string]func(*Machine){
		"architecture":          func(m *Machine) { m.Arch = "riscv64" },
		"0 CPUs":                func(m *Machine) { m.CPUs = 0 },
		"256 CPUs":              func(m *Machine) { m.CPUs = 256 },
		"1 bytes of memory":     func(m *Machine) { m.Memory = 1 },
		"67108865 bytes of":     func(m *Machine) { m.Memory = 64*mib + 1 },
		"no RAM":                func(m *Machine) { m.RAM = nil },
		"25 plugs":              func(m *Machine) { m.Plugs = 25 },
		"-1 plugs":              func(m *Machine) { m.Plugs = -1 },
		`path "qemu"`:           func(m *Machine) { m.Binary = "qemu" },
		`path ""`:               func(m *Machine) { m.Initrd = "" },
		"31 ports":              func(m *Machine) { m.Ports = make([]Port, 31) },
		`port "a,b"`:            func(m *Machine) { m.Ports[0].Name = "a,b" },
		`port "control"`:        func(m *Machine) { m.Ports[0].File = nil },
		"serial":                func(m *Machine) { m.Disks[0].Serial = "more than twenty bytes" },
		`disk "image": needs a`: func(m *Machine) { m.Disks[0].File = nil },
		"two disks":             func(m *Machine) { m.Disks[1].Serial = m.Disks[0].Serial },
		"MAC address":           func(m *Machine) { m.NIC = &NIC{File: f, MAC: "a,b=c"} },
		"network card: needs":   func(m *Machine) { m.NIC = &NIC{MAC: "02:00:00:00:00:01"} },
	} {
		m := fullMachine("amd64", TCG)
		spoil(m)
		if err := m.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
