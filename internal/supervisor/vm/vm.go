// Package vm describes the machine of a sandbox to QEMU: its devices, its disks, the
// kind of template that it can start from, and the settings that all guests of a kind
// share. It starts a machine from a saved state; what the machine is used for is up to
// its callers (supervisor, templatebuild).
package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"bawn.dev/bawn/internal/kernel"
	"bawn.dev/bawn/internal/qemu"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/socketpair"
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// Serial numbers of the virtio-blk disks, by which the agent finds them
// (20 bytes at most, virtio 1.2 section 5.2.6.1).
const (
	SerialImage   = "bawn-image"
	SerialDisk    = "bawn-disk"
	SerialModules = "bawn-modules"
)

// cardMAC is the address that every machine's network card starts with. The agent then sets
// the sandbox's own (GuestMAC), since a restored card has its template's in any case.
const cardMAC = "02:62:61:77:6e:02"

// Describe returns the machine of a spec, without the disks, channels and memory that
// make it a particular one.
func Describe(q qemu.Binary, a qemu.Accel, spec *sandbox.Spec) *qemu.Machine {
	parameters := kernel.Parameters
	if spec.CPUs > 1 && a.StaleCode() {
		parameters = slices.Concat(kernel.OneCPU(), parameters)
	}
	return &qemu.Machine{
		Binary: q.Path, Accel: a,
		CPUs: spec.CPUs, Memory: spec.Memory,
		Kernel: spec.Boot.Kernel, Initrd: spec.Boot.Initrd, Append: parameters,
		Ports: []qemu.Port{{Name: wire.PortControl}, {Name: wire.PortMux}},
		NIC:   &qemu.NIC{MAC: cardMAC, MTU: LinkMTU},
		// Each place costs the guest some 40 ms of its boot under emulation. Those of one agent
		// are there in any case, so that it can be added while the machine runs, and starts from
		// the template that other sandboxes start from.
		Plugs: plugs(spec), Balloon: true,
	}
}

// plugs returns the number of places for shares. A sandbox with so many mounts that those of an
// agent do not fit starts without them, as long as it has none. Volumes and caches take these places too, so
// that one or two of them do not need a template of their own.
func plugs(spec *sandbox.Spec) int {
	n := len(spec.Shared())
	need := n + len(spec.Volumes) + len(spec.Boot.Caches) + sandbox.AgentShares*len(spec.Agents)
	return max(need, min(n+sandbox.AgentShares, qemu.MaxPlugs))
}

// Channels are the host's ends of the connections into a machine.
type Channels struct {
	Console, Control, Mux, Link net.Conn
}

// Close closes all channels.
func (c *Channels) Close() {
	for _, conn := range []net.Conn{c.Console, c.Control, c.Mux, c.Link} {
		if conn != nil {
			conn.Close()
		}
	}
}

// Connect gives the machine its channels: socket pairs, so that QEMU neither makes
// sockets nor finds them by name. The caller owns the channels; Machine.Start closes QEMU's
// ends.
func Connect(m *qemu.Machine) (*Channels, error) {
	var c Channels
	var theirs [4]*os.File
	for i, conn := range []*net.Conn{&c.Console, &c.Control, &c.Mux, &c.Link} {
		ours, file, err := socketpair.New()
		if err != nil {
			for _, f := range theirs[:i] {
				f.Close()
			}
			c.Close()
			return nil, err
		}
		*conn, theirs[i] = ours, file
	}
	m.Console = theirs[0]
	m.Ports = slices.Clone(m.Ports)
	m.Ports[0].File, m.Ports[1].File = theirs[1], theirs[2]
	nic := *m.NIC
	nic.File = theirs[3]
	m.NIC = &nic
	return &c, nil
}

// OpenDisks opens the disks that the machine boots from, and its own at the path, so that
// QEMU needs no rights to the paths. The caller calls closeAll once QEMU has started.
func OpenDisks(b *sandbox.Boot, own string) (disks []qemu.Disk, closeAll func(), err error) {
	closeAll = func() {
		for _, d := range disks {
			d.File.Close()
		}
	}
	for _, d := range []struct {
		serial, path string
		flag         int
	}{
		{SerialImage, b.Image, os.O_RDONLY},
		{SerialModules, b.Modules, os.O_RDONLY},
		{SerialDisk, own, os.O_RDWR},
	} {
		f, err := os.OpenFile(d.path, d.flag, 0)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("disk of the machine: %w", err)
		}
		disks = append(disks, qemu.Disk{Serial: d.serial, File: f, ReadOnly: d.flag == os.O_RDONLY})
	}
	return disks, closeAll, nil
}

// Kind returns the kind of template that the machine can start from: machines of one kind
// differ in nothing that a guest could have noticed before it gets its identity. The time zone does not
// count: it comes with the clock, before the first command, and a person who travels keeps what was suspended.
func Kind(q qemu.Binary, m *qemu.Machine, spec *sandbox.Spec, setup wire.SetupRequest) (string, error) {
	setup.Timezone = ""
	text, err := json.Marshal(struct {
		Setup wire.SetupRequest
		Disk  int64 // the guest remembers its size
	}{setup, spec.Disk})
	if err != nil {
		return "", err
	}
	return template.Kind(template.Machine{
		Monitor:   q.Build,
		Files:     []string{q.Path, m.Kernel, m.Initrd, spec.Boot.Image, spec.Boot.Modules},
		Accel:     m.Accel.Kind,
		OnHostCPU: m.Accel.OK(),
		Arguments: m.Args(),
		Setup:     string(text),
	})
}

// Source is a saved machine: a template or a snapshot.
type Source interface {
	Unpack(ram *os.File) error
	State() (io.ReadCloser, error)
}

// AtPoint is a template at a point.
type AtPoint struct {
	Template *template.Template
	Point    template.Point
}

// Unpack implements Source.
func (p AtPoint) Unpack(ram *os.File) error { return p.Template.Unpack(p.Point, ram) }

// State implements Source.
func (p AtPoint) State() (io.ReadCloser, error) { return p.Template.State(p.Point) }

// Origin is the saved machine from which another one starts.
type Origin struct {
	What   string // for errors
	Source Source
	// Before, if not nil, is called when the machine is loaded and still paused.
	Before func(context.Context, *qemu.Process) error
}

// Restore starts the machine, loads what was saved, and resumes it. After an error
// nothing of the machine is left.
func (o *Origin) Restore(ctx context.Context, m *qemu.Machine, start func(*qemu.Machine) (*qemu.Process, error)) (*qemu.Process, error) {
	filled := make(chan error, 1)
	ram := m.RAM
	go func() { filled <- o.Source.Unpack(ram) }()
	m.Incoming = true
	p, err := start(m)
	if ferr := <-filled; err == nil { // QEMU does not touch the memory before LoadState
		err = ferr
	}
	if err == nil {
		err = o.load(ctx, p)
	}
	if err != nil {
		if p != nil {
			p.Kill()
			_ = p.Wait() // killed: nothing to learn
		}
		return nil, fmt.Errorf("restore the %s: %w", o.What, err)
	}
	return p, nil
}

// load loads what was saved into a process that waits for it.
func (o *Origin) load(ctx context.Context, p *qemu.Process) error {
	state, err := o.Source.State()
	if err != nil {
		return err
	}
	defer state.Close()
	if err := p.LoadState(ctx, state); err != nil {
		return err
	}
	if o.Before != nil {
		if err := o.Before(ctx, p); err != nil {
			return err
		}
	}
	return p.Resume(ctx)
}
