package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// Devices that come and go while the guest runs. Each takes one of the empty
// pcie-root-ports that Machine.Plugs made. Plugging is done when QEMU says so;
// the guest sees the device a moment later. Unplugging is the guest's to
// finish: it must let go first (umount), and QEMU reports DEVICE_DELETED.
//
// vhost-user-fs cannot be migrated, so no share may be plugged while the
// machine's state is saved.

// fdsetHot is the first descriptor set for plugged disks: the machine's own
// count from 0.
const fdsetHot = 1000

// plugged is where a device sits.
type plugged struct {
	plug int
	set  int64 // disks: the descriptor set
}

// takePlug finds a free root port. Plugs hold one device of an ID.
func (p *Process) takePlug(device string) (int, error) { return p.takePlugAt(device, anyPlug) }

// anyPlug asks for any free root port.
const anyPlug = -1

func (p *Process) takePlugAt(device string, wanted int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.where[device]; ok {
		return 0, fmt.Errorf("%s is plugged already", device)
	}
	for i, taken := range p.plugs {
		if !taken && (wanted == anyPlug || wanted == i) {
			p.plugs[i] = true
			p.where[device] = plugged{plug: i, set: fdsetHot + int64(i)}
			return i, nil
		}
	}
	if wanted != anyPlug {
		return 0, fmt.Errorf("place %d for plugged devices is taken or missing", wanted)
	}
	return 0, fmt.Errorf("all %d places for plugged devices are taken: restart the sandbox with its mounts named at the start", len(p.plugs))
}

func (p *Process) freePlug(device string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.where[device]; ok {
		p.plugs[at.plug] = false
		delete(p.where, device)
	}
}

func (p *Process) pluggedAt(device string) (plugged, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.where[device]
	if !ok {
		return plugged{}, fmt.Errorf("%s is not plugged", device)
	}
	return at, nil
}

// undo are the steps back after a plug that failed halfway. They run even if
// the caller's context has ended, as far as QEMU still answers.
type undo struct{ steps []func(context.Context) }

func (u *undo) add(step func(context.Context)) { u.steps = append(u.steps, step) }

func (u *undo) run(ctx context.Context, failed *error) {
	if *failed == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	for i := len(u.steps) - 1; i >= 0; i-- {
		u.steps[i](ctx)
	}
}

// undoTime bounds the steps back.
const undoTime = 10 * time.Second

// shareQueue is the length of a share's request queue. virtiofsd and QEMU's
// documentation use 1024.
const shareQueue = 1024

// PlugShare plugs a virtiofs share known to the guest by tag. f is one end of a
// stream socket pair whose other end a vhost-user backend already serves; it is
// closed, also on failure. While QEMU talks to the backend, nothing else is
// done: if that hangs, ctx ends the wait and only Kill ends QEMU.
func (p *Process) PlugShare(ctx context.Context, tag string, f *os.File) error {
	return p.plugShare(ctx, tag, anyPlug, f)
}

func (p *Process) plugShare(ctx context.Context, tag string, wanted int, f *os.File) (err error) {
	defer f.Close()
	if !plain(tag) || len(tag) > maxTag {
		return fmt.Errorf("plug share: tag %q: want at most %d letters, digits, '.', '-', '_'", tag, maxTag)
	}
	device, chardev := "share-"+tag, "share-"+tag
	var back undo
	defer func() {
		back.run(ctx, &err)
		if err != nil {
			err = fmt.Errorf("plug share %s: %w", tag, err)
		}
	}()
	plug, err := p.takePlugAt(device, wanted)
	if err != nil {
		return err
	}
	back.add(func(context.Context) { p.freePlug(device) })
	if err := p.addSocket(ctx, chardev, f); err != nil {
		return err
	}
	back.add(func(ctx context.Context) { _ = p.removeChardev(ctx, chardev) })
	return p.Execute(ctx, "device_add", map[string]any{
		"driver": "vhost-user-fs-pci", "id": device, "bus": plugBus(plug),
		"chardev": chardev, "tag": tag, "queue-size": shareQueue,
	}, nil)
}

// UnplugShare takes a share away and returns when the guest has let go of it.
func (p *Process) UnplugShare(ctx context.Context, tag string) error {
	device := "share-" + tag
	if err := p.unplug(ctx, device); err != nil {
		return err
	}
	if err := p.removeChardev(ctx, device); err != nil {
		return fmt.Errorf("unplug share %s: %w", tag, err)
	}
	p.freePlug(device)
	return nil
}

// addSocket makes a chardev of a connected socket.
func (p *Process) addSocket(ctx context.Context, id string, f *os.File) error {
	if err := p.ExecuteFile(ctx, "getfd", map[string]any{"fdname": id}, f, nil); err != nil {
		return err
	}
	err := p.Execute(ctx, "chardev-add", map[string]any{
		"id": id,
		"backend": map[string]any{"type": "socket", "data": map[string]any{
			"server": false,
			"addr":   map[string]any{"type": "fd", "data": map[string]any{"str": id}},
		}},
	}, nil)
	if err != nil {
		_ = p.Execute(ctx, "closefd", map[string]any{"fdname": id}, nil)
	}
	return err
}

func (p *Process) removeChardev(ctx context.Context, id string) error {
	return p.Execute(ctx, "chardev-remove", map[string]any{"id": id}, nil)
}

// PlugDisk plugs a disk, known to the guest by its serial. The file stays the
// caller's.
func (p *Process) PlugDisk(ctx context.Context, d Disk) (err error) {
	if err := d.check(); err != nil {
		return err
	}
	device, node := diskID(d.Serial), nodeName(d.Serial)
	var back undo
	defer func() {
		back.run(ctx, &err)
		if err != nil {
			err = fmt.Errorf("plug disk %s: %w", d.Serial, err)
		}
	}()
	plug, err := p.takePlug(device)
	if err != nil {
		return err
	}
	back.add(func(context.Context) { p.freePlug(device) })
	set := fdsetHot + int64(plug)
	if err := p.ExecuteFile(ctx, "add-fd", map[string]any{"fdset-id": set}, d.File, nil); err != nil {
		return err
	}
	back.add(func(ctx context.Context) { _ = p.removeSet(ctx, set) })
	if err := p.Execute(ctx, "blockdev-add", d.node(node, set), nil); err != nil {
		return err
	}
	back.add(func(ctx context.Context) { _ = p.removeNode(ctx, node) })
	return p.Execute(ctx, "device_add", d.device(plugBus(plug), ""), nil)
}

// UnplugDisk takes a plugged disk away and returns when the guest has let go of
// it and all is written.
func (p *Process) UnplugDisk(ctx context.Context, serial string) error {
	device := diskID(serial)
	at, err := p.pluggedAt(device)
	if err != nil {
		return err
	}
	if err := p.unplug(ctx, device); err != nil {
		return err
	}
	if err := p.removeNode(ctx, nodeName(serial)); err != nil {
		return fmt.Errorf("unplug disk %s: %w", serial, err)
	}
	if err := p.removeSet(ctx, at.set); err != nil {
		return fmt.Errorf("unplug disk %s: %w", serial, err)
	}
	p.freePlug(device)
	return nil
}

func (p *Process) removeNode(ctx context.Context, node string) error {
	return p.Execute(ctx, "blockdev-del", map[string]any{"node-name": node}, nil)
}

// removeSet lets go of a descriptor set. It is no error if QEMU already did,
// which it does when the last user of the set's descriptors has gone.
func (p *Process) removeSet(ctx context.Context, set int64) error {
	err := p.Execute(ctx, "remove-fd", map[string]any{"fdset-id": set}, nil)
	var refused *Error
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

// PlugNIC plugs the network card. The card's file is closed, also on failure.
func (p *Process) PlugNIC(ctx context.Context, n NIC) (err error) {
	if n.File != nil {
		defer n.File.Close()
	}
	if err := n.check(); err != nil {
		return err
	}
	const netdev = "plugged"
	const device = "nic-" + netdev
	var back undo
	defer func() {
		back.run(ctx, &err)
		if err != nil {
			err = fmt.Errorf("plug network card: %w", err)
		}
	}()
	plug, err := p.takePlug(device)
	if err != nil {
		return err
	}
	back.add(func(context.Context) { p.freePlug(device) })
	if err := p.ExecuteFile(ctx, "getfd", map[string]any{"fdname": netdev}, n.File, nil); err != nil {
		return err
	}
	err = p.Execute(ctx, "netdev_add", map[string]any{
		"type": "stream", "id": netdev, "server": false,
		"addr": map[string]any{"type": "fd", "str": netdev},
	}, nil)
	if err != nil {
		_ = p.Execute(ctx, "closefd", map[string]any{"fdname": netdev}, nil)
		return err
	}
	back.add(func(ctx context.Context) { _ = p.Execute(ctx, "netdev_del", map[string]any{"id": netdev}, nil) })
	return p.Execute(ctx, "device_add", n.device(netdev, plugBus(plug), ""), nil)
}

// UnplugNIC takes the plugged network card away and returns when the guest has
// let go of it.
func (p *Process) UnplugNIC(ctx context.Context) error {
	const device = "nic-plugged"
	if err := p.unplug(ctx, device); err != nil {
		return err
	}
	if err := p.Execute(ctx, "netdev_del", map[string]any{"id": "plugged"}, nil); err != nil {
		return fmt.Errorf("unplug network card: %w", err)
	}
	p.freePlug(device)
	return nil
}

// unplug asks the guest to let go of a device, and waits until it did.
func (p *Process) unplug(ctx context.Context, device string) error {
	if _, err := p.pluggedAt(device); err != nil {
		return err
	}
	gone, stop := p.Watch(func(e Event) bool {
		return (e.Name == "DEVICE_DELETED" || e.Name == "DEVICE_UNPLUG_GUEST_ERROR") && deviceOf(e) == device
	})
	defer stop()
	if err := p.Execute(ctx, "device_del", map[string]any{"id": device}, nil); err != nil {
		return fmt.Errorf("unplug %s: %w", device, err)
	}
	select {
	case e := <-gone:
		if e.Name != "DEVICE_DELETED" {
			return fmt.Errorf("unplug %s: the guest refuses to let go", device)
		}
		return nil
	case <-p.Closed():
		return fmt.Errorf("unplug %s: QEMU ended", device)
	case <-ctx.Done():
		return fmt.Errorf("unplug %s: the guest has not let go: %w", device, context.Cause(ctx))
	}
}
