package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrNoPlug means that a running machine has no slot left for another device.
var ErrNoPlug = errors.New("no slot is left for a hot-plugged device")

// Shares are plugged while the guest runs, each into one of the empty pcie-root-ports
// that Machine.Plugs made. PlugShare returns when QEMU has the device; the guest sees
// it a moment later.
//
// vhost-user-fs cannot be migrated, so no share may be plugged while the machine's
// state is saved: freeze.go detaches and attaches them.

// shareID is QEMU's name of a share's device and of its chardev.
func shareID(tag string) string { return "share-" + tag }

// anyPlug asks for any free root port.
const anyPlug = -1

// takePlug reserves a free root port for a device, or the wanted one.
func (p *Process) takePlug(device string, wanted int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.plugOf[device]; ok {
		return 0, fmt.Errorf("%s is plugged already", device)
	}
	for i, taken := range p.plugs {
		if !taken && (wanted == anyPlug || wanted == i) {
			p.plugs[i] = true
			p.plugOf[device] = i
			return i, nil
		}
	}
	if wanted != anyPlug {
		return 0, fmt.Errorf("slot %d for hot-plugged devices is in use or missing", wanted)
	}
	return 0, fmt.Errorf("%w: all %d are in use", ErrNoPlug, len(p.plugs))
}

func (p *Process) freePlug(device string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, ok := p.plugOf[device]; ok {
		p.plugs[at] = false
		delete(p.plugOf, device)
	}
}

// findPlug returns the root port that a device sits in.
func (p *Process) findPlug(device string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.plugOf[device]
	if !ok {
		return 0, fmt.Errorf("%s is not plugged", device)
	}
	return at, nil
}

// undo are the steps back after an operation that failed halfway. They run even if
// the caller's context has ended, as far as QEMU still answers.
type undo struct{ steps []func(context.Context) }

func (u *undo) add(step func(context.Context)) { u.steps = append(u.steps, step) }

// runIf runs the steps, the last one first, if *failed is an error.
func (u *undo) runIf(ctx context.Context, failed *error) {
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
// stream socket pair whose other end a vhost-user back end already serves; it is
// closed, also on failure. While QEMU talks to the back end, it does nothing
// else: if that hangs, ctx ends the wait and only Kill ends QEMU.
func (p *Process) PlugShare(ctx context.Context, tag string, f *os.File) error {
	return p.plugShare(ctx, tag, anyPlug, f)
}

func (p *Process) plugShare(ctx context.Context, tag string, wanted int, f *os.File) (err error) {
	defer f.Close()
	if !isPlain(tag) || len(tag) > maxTag {
		return fmt.Errorf("plug share: tag %q: must be at most %d letters, digits, '.', '-', '_'", tag, maxTag)
	}
	id := shareID(tag)
	var back undo
	defer func() {
		back.runIf(ctx, &err)
		if err != nil {
			err = fmt.Errorf("plug share %s: %w", tag, err)
		}
	}()
	plug, err := p.takePlug(id, wanted)
	if err != nil {
		return err
	}
	back.add(func(context.Context) { p.freePlug(id) })
	if err := p.addSocket(ctx, id, f); err != nil {
		return err
	}
	back.add(func(ctx context.Context) { _ = p.removeChardev(ctx, id) })
	return p.Execute(ctx, "device_add", map[string]any{
		"driver": "vhost-user-fs-pci", "id": id, "bus": plugBus(plug),
		"chardev": id, "tag": tag, "queue-size": shareQueue,
	}, nil)
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
