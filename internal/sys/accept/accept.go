// Package accept serves the connections of listeners, and owns the goroutines that do: a
// Group that is closed has none left.
package accept

import (
	"context"
	"net"
	"sync"
)

// Group serves connections. Its methods may be called by several goroutines at once.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
	ended bool
}

// NewGroup returns a Group. The caller closes it.
func NewGroup() *Group {
	ctx, cancel := context.WithCancel(context.Background())
	return &Group{ctx: ctx, cancel: cancel, conns: map[net.Conn]bool{}}
}

// Serve accepts connections in the background until l or the group is closed, and calls
// handle for each in a goroutine of its own: at most limit at once, further connections
// wait. The group closes a connection when handle returns, or to end it: handle must
// return soon after the connection was closed and ctx has ended. Serve owns l.
func (g *Group) Serve(l net.Listener, limit int, handle func(ctx context.Context, c net.Conn)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		l.Close()
		return
	}
	g.tasks.Go(func() {
		stop := context.AfterFunc(g.ctx, func() { l.Close() })
		defer stop()
		defer l.Close()
		slots := make(chan struct{}, limit)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			select {
			case slots <- struct{}{}:
			case <-g.ctx.Done():
				c.Close()
				return
			}
			g.tasks.Go(func() {
				defer func() { <-slots }()
				if g.add(c) {
					defer g.remove(c)
					handle(g.ctx, c)
				}
			})
		}
	})
}

// add keeps a connection, so that Close can close it. A closed group closes it at once.
func (g *Group) add(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		c.Close()
		return false
	}
	g.conns[c] = true
	return true
}

func (g *Group) remove(c net.Conn) {
	c.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.conns, c)
}

// Close closes all listeners and connections, and returns when nothing is served any more.
func (g *Group) Close() {
	g.cancel()
	g.mu.Lock()
	g.ended = true
	for c := range g.conns {
		c.Close()
	}
	g.mu.Unlock()
	g.tasks.Wait()
}
