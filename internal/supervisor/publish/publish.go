// Package publish publishes ports of a guest on the host's loopback, by IPv4 and IPv6.
//
// Not safe: the guest decides when its ports are open, and serves what it likes there. It
// decides about published ports only: nothing that it sends makes the host listen on
// another one, or on another address.
package publish

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sort"
	"sync"
	"sync/atomic"

	"bawn.dev/bawn/internal/control"
	"bawn.dev/bawn/internal/sandbox"
	"bawn.dev/bawn/internal/sys/accept"
	"bawn.dev/bawn/internal/sys/relay"
)

// maxConns bounds the connections that are open at once through one published port.
const maxConns = 512

// Watch reports which of some ports of the guest can be connected on its loopback: at once,
// and at every change, one call of report after the other. It returns when ctx ends, or with
// an error when the guest cannot tell, or no longer. What it reports beyond these ports is
// without effect.
type Watch func(ctx context.Context, ports []uint16, report func(open []uint16)) error

// Dial connects to a port of the guest's loopback.
type Dial func(ctx context.Context, port uint16) (net.Conn, error)

// Ports are the published ports of one sandbox. Its methods may be called by several
// goroutines at once.
type Ports struct {
	addrs []netip.Addr
	dial  Dial
	watch Watch
	log   *slog.Logger
	conns atomic.Int64 // open connections through all of them
	serve *accept.Group

	mu      sync.Mutex
	open    map[uint16]*published // by the number on the host
	inGuest map[uint16]bool       // of the ports that the guest last reported on, whether each is open
	blind   bool                  // the guest cannot tell which of its ports are open
	changed chan struct{}         // closed at the next change of open
	told    chan struct{}         // closed at the next change of inGuest or blind
}

// published is one published port.
type published struct {
	port    sandbox.Port
	free    bool           // no number on the host was asked for
	sockets []*socket      // which hold the port, one for each address
	slots   slots          // of its connections
	guest   *atomic.Uint32 // the guest port that new connections are forwarded to
}

// New returns the ports of a sandbox, none of which is published yet. They are published on all
// of addrs; an IPv6 address that the host does not have is left out. The caller closes them. With a
// watch they refuse connections until Follow runs and the guest's port is open; a watch of nil is that
// of a guest that cannot tell.
func New(addrs []netip.Addr, dial Dial, watch Watch, log *slog.Logger) *Ports {
	return &Ports{
		addrs: addrs, dial: dial, watch: watch, log: log, serve: accept.NewGroup(),
		open: map[uint16]*published{}, blind: watch == nil, changed: make(chan struct{}), told: make(chan struct{}),
	}
}

// Change closes the ports of the host in remove and publishes those in add: all, or after
// an error none. A Host of 0 picks a free port, or stays with the one that was picked for
// that guest port before. A port that is published so already stays. It returns the ports
// of add as they are published, in order. Connections through a closed port stay open.
func (p *Ports) Change(add []sandbox.Port, remove []uint16) ([]sandbox.Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := change{addrs: p.addrs, next: map[uint16]*published{}, removed: map[uint16]*published{}}
	for host, o := range p.open {
		c.next[host] = o
	}
	for _, host := range remove {
		o, ok := c.next[host]
		if !ok {
			return nil, control.PortErrorf(control.ReasonPortNotPublished, sandbox.Port{Host: host}, "port %d is not published", host)
		}
		delete(c.next, host)
		c.removed[host] = o
	}
	var opened []sandbox.Port
	for _, port := range add {
		o, err := c.publish(port)
		if err != nil {
			for _, o := range c.fresh {
				closeAll(o.sockets)
			}
			return nil, err
		}
		opened = append(opened, o)
	}
	p.open = c.next
	for _, o := range c.removed {
		closeAll(o.sockets)
	}
	for _, r := range c.reused {
		r.guest.Store(uint32(r.port.Guest))
	}
	p.settle()
	close(p.changed)
	p.changed = make(chan struct{})
	return opened, nil
}

// change is a change of the published ports that is not made yet.
type change struct {
	addrs   []netip.Addr
	next    map[uint16]*published // published after it
	removed map[uint16]*published // ports whose sockets are no longer needed
	reused  []*published          // those with the sockets of one that is removed
	fresh   []*published          // those with sockets of their own
}

// publish adds one port to the change.
func (c *change) publish(port sandbox.Port) (sandbox.Port, error) {
	if port.Guest == 0 {
		return port, control.PortErrorf(control.ReasonRequest, port, "port 0 of the guest cannot be published: name a port from 1 to 65535")
	}
	if was, ok := c.next[port.Host]; ok && port.Host != 0 {
		if was.port == port {
			return port, nil
		}
		return port, control.PortErrorf(control.ReasonPortPublished, port, "port %d of the host is already published, as %s", port.Host, was.port)
	}
	for _, was := range c.next {
		if port.Host == 0 && was.free && was.port.Guest == port.Guest {
			return was.port, nil
		}
	}
	if was, ok := c.removed[port.Host]; ok {
		o := &published{port: port, sockets: was.sockets, slots: was.slots, guest: was.guest}
		delete(c.removed, port.Host)
		c.next[port.Host] = o
		c.reused = append(c.reused, o)
		return port, nil
	}
	o := &published{free: port.Host == 0, slots: newSlots(), guest: new(atomic.Uint32)}
	var err error
	if port.Host, o.sockets, err = reserve(c.addrs, port); err != nil {
		return port, err
	}
	o.port = port
	o.guest.Store(uint32(port.Guest))
	c.next[port.Host] = o
	c.fresh = append(c.fresh, o)
	return port, nil
}

// Check returns why a port could not be published on addrs now, or nil.
func Check(addrs []netip.Addr, port sandbox.Port) error {
	_, list, err := reserve(addrs, port)
	closeAll(list)
	return err
}

// List returns the published ports, by their number on the host.
func (p *Ports) List() []sandbox.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]sandbox.Port, 0, len(p.open))
	for _, o := range p.open {
		list = append(list, o.port)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Host < list[j].Host })
	return list
}

// Conns returns how many connections are open through published ports.
func (p *Ports) Conns() int64 { return p.conns.Load() }

// Close closes all ports and the connections through them, and returns when nothing is
// forwarded any more.
func (p *Ports) Close() {
	p.mu.Lock()
	for _, o := range p.open {
		closeAll(o.sockets)
	}
	clear(p.open)
	p.mu.Unlock()
	p.serve.Close()
}

// forward joins a connection to a port of the guest.
func (p *Ports) forward(ctx context.Context, c net.Conn, guest uint16) {
	p.conns.Add(1)
	defer p.conns.Add(-1)
	g, err := p.dial(ctx, guest)
	if err != nil {
		p.log.Info("connection to a published port failed", "guest", guest, "error", err)
		reset(c)
		return
	}
	relay.Until(ctx, c, g)
}

// reset closes a connection with RST, so that the client sees a refusal and
// not an empty answer.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}
