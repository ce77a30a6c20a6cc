package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// Shares across a save. QEMU refuses to save a machine with a vhost-user-fs
// device in it, and a guest that was asked to release one would have to
// unmount it. So the device is detached without the guest's knowledge, while its
// processors are paused, and attached again before they run:
//
//	Pause, FreezeShare, EjectShare, SaveState, ThawShare, Resume
//
// FreezeShare reads what the guest's driver wrote into the device's registers:
// its place in memory, its interrupts, its queues. EjectShare does what the
// guest's firmware does at the end of an unplug: it writes to the eject register
// of the ACPI hot-plug controller. ThawShare plugs a fresh device into the same
// place, does the driver's part of the initialisation again, with the same
// values (virtio 1.2, 3.1.1), and clears the event that announces a new device. The
// guest finds everything as it was; the queues continue at the index of the used ring,
// which the back end must look up by itself (vhostuser.Device.Resumed).
//
// Only x86 has those ports; elsewhere CanDetachShares is false.

// frozen is a share's device as the guest's driver has set it up. The guest chose its
// values: they are used for nothing but a device of the same guest.
type frozen struct {
	Tag  string `json:"tag"`
	Plug int    `json:"plug"`

	// Header is the writable part of the configuration space: the dwords at
	// headerAt.
	Header  []uint32    `json:"header"`
	MSIX    uint32      `json:"msix"` // message control, as the upper half of its dword
	Vectors [][4]uint32 `json:"vectors"`

	Status        uint8             `json:"status"` // of the virtio device
	Features      [2]uint32         `json:"features"`
	ConfigVector  uint16            `json:"configVector"`
	FeatureSelect [2]uint32         `json:"featureSelect"` // of device and driver
	QueueSelect   uint16            `json:"queueSelect"`
	Queues        []frozenVirtqueue `json:"queues"`
}

type frozenVirtqueue struct {
	Size   uint16    `json:"size"`
	Vector uint16    `json:"vector"`
	Enable uint16    `json:"enable"`
	Rings  [6]uint32 `json:"rings"` // descriptors, available, used: 64 bits each, low half first
}

// Configuration space of a PCI device (PCI Local Bus 3.0, 6.1).
const (
	pciCommand    = 0x04
	pciBAR0       = 0x10
	pciBARs       = 6
	pciCaps       = 0x34
	pciSecondary  = 0x18 // of a bridge: bus numbers
	pciInterrupt  = 0x3c
	pciCacheLine  = 0x0c
	capVendor     = 0x09
	capMSIX       = 0x11
	msixEntry     = 16 // bytes
	maxVectors    = 32 // a share has one a queue and one more
	msixLast      = 0x7ff
	barMemory64   = 0x4
	barAddress    = ^uint32(0xf)
	maxCaps       = 48
	virtioCommon  = 1   // VIRTIO_PCI_CAP_COMMON_CFG
	commandActive = 0x6 // memory space, bus master
)

// headerAt are the dwords that a guest's kernel writes. The command comes first: it is
// read first and written last.
var headerAt = []uint8{pciCommand, pciCacheLine, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, pciInterrupt}

// Common configuration of a virtio device (virtio 1.2, 4.1.4.3).
const (
	cfgDeviceFeatureSelect = 0
	cfgDriverFeatureSelect = 8
	cfgDriverFeature       = 12
	cfgConfigVector        = 16
	cfgNumQueues           = 18
	cfgDeviceStatus        = 20
	cfgQueueSelect         = 22
	cfgQueueSize           = 24
	cfgQueueVector         = 26
	cfgQueueEnable         = 28
	cfgQueueRings          = 32

	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8

	maxShareQueues = 8
)

// The ACPI hot-plug controller of q35 (QEMU's docs/specs/acpi_pci_hotplug).
const (
	acpiPorts  = 0x0cc0
	acpiUp     = acpiPorts + 0x0
	acpiEject  = acpiPorts + 0x8
	acpiSelect = acpiPorts + 0x10
)

// The bridge at 00:1f.0 of q35 has the address of its power management registers, the
// general-purpose events among them: writing ones clears them (Intel ICH9
// datasheet, 13.1.14 and 13.8.3.7). QEMU announces a hot-plug with the second event
// (hw/acpi/pcihp.c).
const (
	lpcDev       = 0x1f
	lpcPMBase    = 0x40
	lpcPMMask    = 0xff80
	pmEvents     = 0x20
	eventHotplug = 1 << 1
)

// ErrCannotDetach is the error of a machine without CanDetachShares.
var ErrCannotDetach = errors.New("only sandboxes on x86 can be suspended or saved; stop the sandbox instead")

// keepingSelectors runs f and leaves the two selector ports as the guest had set them.
func (p *Process) keepingSelectors(f func(r *registers) error) error {
	if p.registers == nil {
		return ErrCannotDetach
	}
	r := p.registers
	config, acpi := r.in32(pciAddress), r.in32(acpiSelect)
	err := f(r)
	r.out32(acpiSelect, acpi)
	r.out32(pciAddress, config)
	return errors.Join(r.failed(), err)
}

// deviceIn returns the device behind a root port.
func deviceIn(r *registers, plug int) function {
	bridge := function{r: r}
	bridge.dev, bridge.fn = plugAddr(plug)
	return function{r: r, bus: bridge.byte(pciSecondary + 1)}
}

// capability returns the place of the first capability for which ok holds, 0 if none.
func (f function) capability(ok func(at uint8) bool) uint8 {
	at := f.byte(pciCaps) &^ 3
	for range maxCaps {
		if at == 0 || ok(at) {
			return at
		}
		at = f.byte(at+1) &^ 3
	}
	return 0
}

// bar returns the address that the guest gave a BAR.
func (f function) bar(i uint8) uint64 {
	low := f.get(pciBAR0 + 4*i)
	at := uint64(low & barAddress)
	if low&barMemory64 != 0 && i+1 < pciBARs {
		at |= uint64(f.get(pciBAR0+4*(i+1))) << 32
	}
	return at
}

// common returns the address of the virtio registers, 0 if there are none.
func (f function) common() uint64 {
	at := f.capability(func(at uint8) bool { return f.byte(at) == capVendor && f.byte(at+3) == virtioCommon })
	if at == 0 {
		return 0
	}
	bar := f.byte(at + 4)
	if bar >= pciBARs {
		return 0
	}
	return f.bar(bar) + uint64(f.get(at+8))
}

// msix returns the place of the capability, the address of its table, and the number of
// entries; at is 0 if there is none.
func (f function) msix() (at uint8, table uint64, entries int) {
	at = f.capability(func(at uint8) bool { return f.byte(at) == capMSIX })
	if at == 0 {
		return 0, 0, 0
	}
	place := f.get(at + 4)
	if place&7 >= pciBARs {
		return 0, 0, 0
	}
	n := int(f.get(at)>>16&msixLast) + 1
	return at, f.bar(uint8(place&7)) + uint64(place&^7), min(n, maxVectors)
}

// FreezeShare reads the state of a share's device, for ThawShare here or in a machine
// that is restored from the same state. Only ThawShare reads what it returns. The guest
// must be paused.
func (p *Process) FreezeShare(tag string) (json.RawMessage, error) {
	z, err := p.readShare(tag)
	if err != nil {
		return nil, fmt.Errorf("save share %s: %w", tag, err)
	}
	return json.Marshal(z)
}

func (p *Process) readShare(tag string) (*frozen, error) {
	plug, err := p.findPlug(shareID(tag))
	if err != nil {
		return nil, err
	}
	z := &frozen{Tag: tag, Plug: plug}
	err = p.keepingSelectors(func(r *registers) error {
		f := deviceIn(r, plug)
		for _, o := range headerAt {
			z.Header = append(z.Header, f.get(o))
		}
		if z.Header[0]&commandActive != commandActive {
			return errors.New("the guest does not use the device")
		}
		control, table, n := f.msix()
		common := f.common()
		if control == 0 || common == 0 {
			return errors.New("the device has no virtio registers")
		}
		z.MSIX = f.get(control)
		for i := range uint64(n) {
			var e [4]uint32
			for j := range e {
				e[j] = r.read32(table + i*msixEntry + uint64(j)*4)
			}
			z.Vectors = append(z.Vectors, e)
		}
		z.readCommon(r, common)
		return nil
	})
	return z, err
}

func (z *frozen) readCommon(r *registers, at uint64) {
	z.FeatureSelect = [2]uint32{r.read32(at + cfgDeviceFeatureSelect), r.read32(at + cfgDriverFeatureSelect)}
	z.QueueSelect = r.read16(at + cfgQueueSelect)
	z.Status = r.read8(at + cfgDeviceStatus)
	z.ConfigVector = r.read16(at + cfgConfigVector)
	for i := range z.Features {
		r.write32(at+cfgDriverFeatureSelect, uint32(i))
		z.Features[i] = r.read32(at + cfgDriverFeature)
	}
	for i := range min(r.read16(at+cfgNumQueues), maxShareQueues) {
		r.write16(at+cfgQueueSelect, i)
		q := frozenVirtqueue{
			Size:   r.read16(at + cfgQueueSize),
			Vector: r.read16(at + cfgQueueVector),
			Enable: r.read16(at + cfgQueueEnable),
		}
		for j := range q.Rings {
			q.Rings[j] = r.read32(at + cfgQueueRings + uint64(j)*4)
		}
		z.Queues = append(z.Queues, q)
	}
	z.writeSelects(r, at)
}

func (z *frozen) writeSelects(r *registers, at uint64) {
	r.write32(at+cfgDeviceFeatureSelect, z.FeatureSelect[0])
	r.write32(at+cfgDriverFeatureSelect, z.FeatureSelect[1])
	r.write16(at+cfgQueueSelect, z.QueueSelect)
}

// EjectShare detaches a share's device from a paused machine. The guest does not learn
// of it and must not run before ThawShare.
func (p *Process) EjectShare(ctx context.Context, tag string) (err error) {
	device := shareID(tag)
	defer func() {
		if err != nil {
			err = fmt.Errorf("detach share %s: %w", tag, err)
		}
	}()
	plug, err := p.findPlug(device)
	if err != nil {
		return err
	}
	selector, err := p.hotplugSelector(ctx, plug)
	if err != nil {
		return err
	}
	gone, stop := p.Watch(func(e Event) bool { return e.Name == "DEVICE_DELETED" && deviceOf(e) == device })
	defer stop()
	err = p.keepingSelectors(func(r *registers) error {
		r.out32(acpiSelect, selector)
		r.out32(acpiEject, 1) // slot 0, the only one behind a root port
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case <-gone:
	case <-p.Closed():
		return errors.New("QEMU ended")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := p.removeChardev(ctx, device); err != nil {
		return err
	}
	p.freePlug(device)
	return nil
}

func deviceOf(e Event) string {
	var d struct {
		Device string `json:"device"`
	}
	_ = json.Unmarshal(e.Data, &d) // a wrong type leaves it empty
	return d.Device
}

// hotplugSelector returns the number by which the ACPI controller knows the bus
// behind a root port.
func (p *Process) hotplugSelector(ctx context.Context, plug int) (uint32, error) {
	var n uint32
	err := p.Execute(ctx, "qom-get", map[string]any{
		"path": "/machine/peripheral/" + plugBus(plug) + "/" + plugBus(plug), "property": "acpi-pcihp-bsel",
	}, &n)
	return n, err
}

// ThawShare attaches a share's device to a paused machine again, as FreezeShare
// found it. f is as for PlugShare; its back end must take the queues up at the index of
// the used rings.
func (p *Process) ThawShare(ctx context.Context, device json.RawMessage, f *os.File) error {
	var z frozen
	err := json.Unmarshal(device, &z)
	if err == nil {
		err = z.check()
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("attach share %s: its saved state is damaged: %w", clean(z.Tag), err)
	}
	if err := p.plugShare(ctx, z.Tag, z.Plug, f); err != nil {
		return err
	}
	selector, err := p.hotplugSelector(ctx, z.Plug)
	if err == nil {
		err = p.keepingSelectors(func(r *registers) error {
			clearHotplugEvent(r, selector)
			return z.write(r)
		})
	}
	if err != nil {
		return fmt.Errorf("attach share %s: %w", z.Tag, err)
	}
	return nil
}

// clearHotplugEvent keeps the guest from learning that a device was plugged: it clears
// the list of new devices, and the event that makes the guest read it.
func clearHotplugEvent(r *registers, selector uint32) {
	r.out32(acpiSelect, selector)
	r.in32(acpiUp) // reading it clears it
	pm := function{r: r, dev: lpcDev}.get(lpcPMBase) & lpcPMMask
	r.out8(uint16(pm)+pmEvents, eventHotplug)
}

// check refuses what FreezeShare would not have returned.
func (z *frozen) check() error {
	if len(z.Header) != len(headerAt) || len(z.Vectors) > maxVectors || len(z.Queues) > maxShareQueues || z.Plug < 0 || z.Plug >= MaxPlugs {
		return errors.New("a number is out of range")
	}
	return nil
}

func (z *frozen) write(r *registers) error {
	f := deviceIn(r, z.Plug)
	for i := len(headerAt) - 1; i >= 0; i-- {
		f.set(headerAt[i], z.Header[i]&^statusBits(headerAt[i]))
	}
	control, table, n := f.msix()
	common := f.common()
	if control == 0 || common == 0 || n != len(z.Vectors) {
		return errors.New("there is another device")
	}
	for i, e := range z.Vectors {
		for j, v := range e {
			r.write32(table+uint64(i)*msixEntry+uint64(j)*4, v)
		}
	}
	f.set(control, z.MSIX)
	z.writeCommon(r, common)
	if got := r.read8(common + cfgDeviceStatus); r.failed() == nil && got != z.Status {
		return fmt.Errorf("it has status %#x, not %#x", got, z.Status)
	}
	return nil
}

// statusBits returns the bits of a dword of the configuration space that are cleared by
// writing ones to them.
func statusBits(at uint8) uint32 {
	if at == pciCommand {
		return 0xffff0000
	}
	return 0
}

// writeCommon does the driver's part of the initialisation (virtio 1.2, 3.1.1).
func (z *frozen) writeCommon(r *registers, at uint64) {
	status := func(bits uint8) { r.write8(at+cfgDeviceStatus, z.Status&bits) }
	status(statusAcknowledge)
	status(statusAcknowledge | statusDriver)
	for i, v := range z.Features {
		r.write32(at+cfgDriverFeatureSelect, uint32(i))
		r.write32(at+cfgDriverFeature, v)
	}
	status(statusAcknowledge | statusDriver | statusFeaturesOK)
	r.write16(at+cfgConfigVector, z.ConfigVector)
	for i, q := range z.Queues {
		if q.Enable == 0 {
			continue
		}
		r.write16(at+cfgQueueSelect, uint16(i))
		r.write16(at+cfgQueueSize, q.Size)
		r.write16(at+cfgQueueVector, q.Vector)
		for j, v := range q.Rings {
			r.write32(at+cfgQueueRings+uint64(j)*4, v)
		}
		r.write16(at+cfgQueueEnable, 1)
	}
	r.write8(at+cfgDeviceStatus, z.Status)
	z.writeSelects(r, at)
}
