package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A client that ended its half and went away looks like one that still reads. The
// guest's kernel knows: it forgets such a connection after a minute (tcp_fin_timeout)
// and answers a probe with a reset. So each connection that is silent is probed, and
// one whose probes, or whose data, stay without an answer ends.

// aliveTimes say when a silent guest's side counts as gone.
type aliveTimes struct {
	idle, interval time.Duration // before the first probe, and between probes
	probes         int           // without an answer
	unacked        time.Duration // data without an acknowledgement (RFC 5482)
}

// defaultAlive notices within three minutes that a kernel forgot a connection, and
// within five that it does not answer at all. A machine is paused for seconds only:
// a suspended one loses its connections.
var defaultAlive = aliveTimes{idle: 2 * time.Minute, interval: 30 * time.Second, probes: 6, unacked: 5 * time.Minute}

// keepAlive makes the stack probe the guest's side.
func (c *Conn) keepAlive() {
	t := c.stack.alive
	idle, interval, unacked := tcpip.KeepaliveIdleOption(t.idle), tcpip.KeepaliveIntervalOption(t.interval), tcpip.TCPUserTimeoutOption(t.unacked)
	for _, o := range []tcpip.SettableSocketOption{&idle, &interval, &unacked} {
		_ = c.ep.SetSockOpt(o) // known options, which cannot fail
	}
	_ = c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, t.probes)
	c.ep.SocketOptions().SetKeepAlive(true)
}

// OnReset calls f, once and in a goroutine of its own, when the guest resets the
// connection or is found to be gone. A reader learns that by itself; one who has read
// the end of the guest's half does not read any more. An end in order is no reset.
func (c *Conn) OnReset(f func()) {
	w := &resetWatch{c: c, f: f}
	entry := waiter.Entry{}
	entry.Init(w, waiter.EventHUp|waiter.EventErr)
	c.wq.EventRegister(&entry)
	w.NotifyEvent(0) // it may have happened already
}

type resetWatch struct {
	c *Conn
	f func()
}

// NotifyEvent implements waiter.EventListener. It may not block, nor use the endpoint
// otherwise: the stack holds its locks.
func (w *resetWatch) NotifyEvent(waiter.EventMask) {
	state := tcp.EndpointState(w.c.ep.State())
	// A reset after the guest's end, RFC 9293 section 3.10.7.4, closes a connection whose
	// own end was never sent.
	if state == tcp.StateError || state == tcp.StateClose && !w.c.ending.Load() {
		w.c.reset.Do(func() { go w.f() })
	}
}
