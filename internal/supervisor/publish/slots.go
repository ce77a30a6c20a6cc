package publish

import (
	"net"
	"sync"
)

// slots bounds the connections through one published port, over all its sockets and however
// often they begin to listen. Further connections wait to be accepted.
type slots chan struct{}

func newSlots() slots { return make(slots, maxConns) }

// of returns a listener that accepts a connection only when it has taken a slot for it.
// Whoever serves the connection gives the slot back, by free.
func (s slots) of(l net.Listener) net.Listener {
	return &slotListener{Listener: l, slots: s, closed: make(chan struct{})}
}

func (s slots) free() { <-s }

type slotListener struct {
	net.Listener
	slots  slots
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener. It waits for a connection first, so that a listener that
// waits holds no slot.
func (l *slotListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	select {
	case l.slots <- struct{}{}:
		return c, nil
	default:
	}
	select {
	case l.slots <- struct{}{}:
		return c, nil
	case <-l.closed:
		c.Close()
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Calls of Accept under way end.
func (l *slotListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
