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
	if err := p.watch(watching, guests, p.report); err != nil && watching.Err() == nil {
		p.log.Info("the guest does not tell which ports are open: published ports are always open", "error", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.blind = true
		p.settle()
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

// report takes what the guest reports.
func (p *Ports) report(open []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blind, p.inGuest = false, map[uint16]bool{}
	for _, o := range p.open {
		if slices.Contains(open, o.port.Guest) {
			p.inGuest[o.port.Guest] = true
		}
	}
	p.settle()
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
