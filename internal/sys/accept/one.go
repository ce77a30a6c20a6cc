package accept

import (
	"net"
	"sync"
)

// One is a listener of one connection, for servers such as net/http's: the second Accept
// waits until the listener is closed. Its methods may be called by several goroutines at
// once. It does not close the connection.
type One struct {
	conn net.Conn
	done chan struct{}
	once sync.Once

	mu   sync.Mutex
	gone bool
}

// NewOne returns a listener of that connection.
func NewOne(conn net.Conn) *One { return &One{conn: conn, done: make(chan struct{})} }

// Accept implements net.Listener. After Close the error is net.ErrClosed.
func (l *One) Accept() (net.Conn, error) {
	l.mu.Lock()
	first := !l.gone
	l.gone = true
	l.mu.Unlock()
	if first {
		return l.conn, nil
	}
	<-l.done
	return nil, net.ErrClosed
}

// Close implements net.Listener. Call it when the connection has ended.
func (l *One) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *One) Addr() net.Addr { return l.conn.LocalAddr() }
