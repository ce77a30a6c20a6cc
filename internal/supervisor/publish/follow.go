package publish

import (
	"context"
	"net"
	"slices"
)

// Follow keeps the published ports open on the host while they are open in the guest, until
// ctx ends. It is called once. While the guest cannot tell, as agents of older builds of bawn
// cannot, all ports are open, and a connection to one that is closed in the guest is reset.
func (p *Ports) Follow(ctx context.Context) {
	for p.watch != nil && ctx.Err() == nil {
		guests, changed := p.watched()
		p.watchUntil(ctx, changed, guests)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// watchUntil watches ports of the guest until the published ports change, ctx ends or the
// guest cannot tell any more.
func (p *Ports) watchUntil(ctx context.Context, changed <-chan struct{}, guests []uint16) {
	if len(guests) == 0 {
		return
	}
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-changed:
		case <-watching.Done():
		}
	}()
	report := func(open []uint16) { p.report(guests, open) }
	if err := p.watch(watching, guests, report); err != nil && watching.Err() == nil {
		p.log.Info("the guest does not tell which ports are open: published ports are always open", "error", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.blind = true
		p.settle()
		p.tell()
	}
}

// watched returns the guest ports that are published, and a channel that is closed when that
// may have changed.
func (p *Ports) watched() (guests []uint16, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.open {
		guests = append(guests, o.port.Guest)
	}
	slices.Sort(guests)
	return slices.Compact(guests), p.changed
}

// report takes what the guest reports on the ports that it was asked for.
func (p *Ports) report(asked, open []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blind, p.inGuest = false, map[uint16]bool{}
	for _, guest := range asked {
		p.inGuest[guest] = slices.Contains(open, guest)
	}
	p.settle()
	p.tell()
}

// tell wakes Await. The caller holds the lock.
func (p *Ports) tell() {
	close(p.told)
	p.told = make(chan struct{})
}

// Await waits until all published ports are as the guest's are, or ctx ends: a port that
// the guest has open already can then be connected.
func (p *Ports) Await(ctx context.Context) {
	for {
		known, told := p.known()
		if known {
			return
		}
		select {
		case <-told:
		case <-ctx.Done():
			return
		}
	}
}

// known reports whether the guest has reported on all published ports, and returns a channel
// that is closed when that may have changed.
func (p *Ports) known() (bool, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.open {
		if _, ok := p.inGuest[o.port.Guest]; !ok && !p.blind {
			return false, p.told
		}
	}
	return true, p.told
}

// settle makes the published ports listen that should, and no others. The caller holds the
// lock.
func (p *Ports) settle() {
	for _, o := range p.open {
		for _, s := range o.sockets {
			var err error
			switch want := p.blind || p.inGuest[o.port.Guest]; {
			case want && s.listener == nil:
				err = p.listen(o, s)
			case !want:
				err = s.refuse()
			}
			if err != nil {
				p.log.Warn("published port", "port", o.port, "error", err)
			}
		}
	}
}

// listen serves the connections of one socket of a port.
func (p *Ports) listen(o *published, s *socket) error {
	l, err := s.listen(o.slots)
	if err != nil {
		return err
	}
	guest, slots := o.guest, o.slots
	p.serve.Serve(l, maxConns, func(ctx context.Context, c net.Conn) {
		defer slots.free()
		p.forward(ctx, c, uint16(guest.Load()))
	})
	return nil
}
