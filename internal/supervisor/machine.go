package supervisor

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
	"bawn.dev/bawn/internal/template"
	"bawn.dev/bawn/internal/wire"
)

// Serial numbers of the virtio-blk disks, by which the agent finds them
// (20 bytes at most, virtio 1.2 section 5.2.6.1).
const (
	serialImage   = "bawn-image"
	serialDisk    = "bawn-disk"
	serialModules = "bawn-modules"
)

// cardMAC is the address that every machine's card starts with. The agent then
// sets the sandbox's own (guestMAC), since a restored card has its template's
// in any case.
const cardMAC = "02:62:72:69:67:02"

// describe is the machine of a spec, without the disks, channels and memory that
// make it a particular one.
func describe(q qemu.Binary, a qemu.Accel, spec *sandbox.Spec) *qemu.Machine {
	parameters := kernel.Parameters
	if spec.CPUs > 1 && a.StaleCode() {
		parameters = slices.Concat(kernel.OneCPU(), parameters)
	}
	return &qemu.Machine{
		Binary: q.Path, Accel: a,
		CPUs: spec.CPUs, Memory: spec.Memory,
		Kernel: spec.Boot.Kernel, Initrd: spec.Boot.Initrd, Append: parameters,
		Ports: []qemu.Port{{Name: wire.PortControl}, {Name: wire.PortMux}},
		NIC:   &qemu.NIC{MAC: cardMAC, MTU: linkMTU},
		// Each place costs the guest some 40 ms of its boot under emulation.
		Plugs: 1 + len(spec.Mounts), Balloon: true,
	}
}

// channels are the host's ends of what leads into a machine.
type channels struct {
	console, control, mux, link net.Conn
}

func (c *channels) close() {
	for _, conn := range []net.Conn{c.console, c.control, c.mux, c.link} {
		if conn != nil {
			conn.Close()
		}
	}
}

// fit gives the machine its channels: socket pairs, so that QEMU neither makes
// sockets nor finds them by name.
func fit(m *qemu.Machine) (*channels, error) {
	var c channels
	var theirs [4]*os.File
	for i, conn := range []*net.Conn{&c.console, &c.control, &c.mux, &c.link} {
		var err error
		if *conn, theirs[i], err = qemu.SocketPair(); err != nil {
			for _, f := range theirs[:i] {
				f.Close()
			}
			c.close()
			return nil, err
		}
	}
	m.Console = theirs[0]
	m.Ports = slices.Clone(m.Ports)
	m.Ports[0].File, m.Ports[1].File = theirs[1], theirs[2]
	nic := *m.NIC
	nic.File = theirs[3]
	m.NIC = &nic
	return &c, nil
}

// openDisks opens what the machine boots from and its own disk, so that QEMU
// needs no rights to the paths.
func openDisks(b *sandbox.Boot, own string) (disks []qemu.Disk, closeAll func(), err error) {
	closeAll = func() {
		for _, d := range disks {
			d.File.Close()
		}
	}
	for _, d := range []struct {
		serial, path string
		flag         int
	}{
		{serialImage, b.Image, os.O_RDONLY},
		{serialModules, b.Modules, os.O_RDONLY},
		{serialDisk, own, os.O_RDWR},
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

// kindOf is the kind of template that the machine can start from.
func kindOf(q qemu.Binary, m *qemu.Machine, spec *sandbox.Spec, setup wire.SetupRequest) (string, error) {
	text, err := json.Marshal(struct {
		Setup wire.SetupRequest
		Disk  int64 // whose size the guest keeps in mind
	}{setup, spec.Disk})
	if err != nil {
		return "", err
	}
	return template.Kind(q, m, []string{spec.Boot.Image, spec.Boot.Modules}, string(text))
}

// source is where a machine was saved: a template or a snapshot.
type source interface {
	Unpack(ram *os.File) error
	State() (io.ReadCloser, error)
}

// atPoint is a template at a point.
type atPoint struct {
	t  *template.Template
	at template.Point
}

func (p atPoint) Unpack(ram *os.File) error     { return p.t.Unpack(p.at, ram) }
func (p atPoint) State() (io.ReadCloser, error) { return p.t.State(p.at) }

// origin is what a machine goes on from.
type origin struct {
	what   string // for errors
	source source
	// before, if not nil, does what is to be done between loading the machine
	// and letting it go on.
	before func(context.Context, *qemu.Process) error
}

// restore starts the machine as what was saved.
func (o *origin) restore(ctx context.Context, m *qemu.Machine, start func(*qemu.Machine) (*qemu.Process, error)) (*qemu.Process, error) {
	filled := make(chan error, 1)
	ram := m.RAM
	go func() { filled <- o.source.Unpack(ram) }()
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
		return nil, fmt.Errorf("restore the %s: %w", o.what, err)
	}
	return p, nil
}

func (o *origin) load(ctx context.Context, p *qemu.Process) error {
	state, err := o.source.State()
	if err != nil {
		return err
	}
	defer state.Close()
	if err := p.LoadState(ctx, state); err != nil {
		return err
	}
	if o.before != nil {
		if err := o.before(ctx, p); err != nil {
			return err
		}
	}
	return p.Resume(ctx)
}
