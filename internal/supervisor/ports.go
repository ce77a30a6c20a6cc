package supervisor

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"bawn.dev/bawn/internal/sandbox"
)

// maxPortConns bounds the connections that are open at once through one
// published port.
const maxPortConns = 512

// ports are the guest ports published on the host's loopback.
type ports struct {
	dial func(port uint16) (net.Conn, error)
	log  *slog.Logger

	conns atomic.Int64 // connections through them

	mu   sync.Mutex
	open map[uint16]*published
}

type published struct {
	port     sandbox.Port
	free     bool // whichever port of the host was free
	listener net.Listener
}

func newPorts(dial func(uint16) (net.Conn, error), log *slog.Logger) *ports {
	return &ports{dial: dial, log: log, open: map[uint16]*published{}}
}

// publish opens one port; a Host of 0 picks a free one, and stays with the one
// that was picked before.
func (p *ports) publish(port sandbox.Port) (sandbox.Port, error) {
	if port.Guest == 0 {
		return port, errors.New("guest port 0 cannot be published")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.open[port.Host]; ok && port.Host != 0 {
		if was.port == port {
			return port, nil
		}
		return port, fmt.Errorf("port %d is already published as %s; close it with 'bawn port --remove %d'", port.Host, was.port, port.Host)
	}
	for _, was := range p.open {
		if port.Host == 0 && was.free && was.port.Guest == port.Guest {
			return was.port, nil
		}
	}
	free := port.Host == 0
	l, err := listenOn(port)
	if err != nil {
		return port, err
	}
	port.Host = uint16(l.Addr().(*net.TCPAddr).Port)
	p.open[port.Host] = &published{port, free, l}
	go p.serve(l, port)
	return port, nil
}

// TryPort says why a port could not be published now, if so.
func TryPort(port sandbox.Port) error {
	l, err := listenOn(port)
	if err != nil {
		return err
	}
	return l.Close()
}

func listenOn(port sandbox.Port) (net.Listener, error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port.Host)))) //nolint:noctx // nothing to wait for
	if err != nil {
		return nil, listenError(port, err)
	}
	return l, nil
}

func listenError(port sandbox.Port, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("port %d of the host is in use by another program: choose another with -p HOST:%d", port.Host, port.Guest)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("port %d of the host is reserved to root: choose one above 1023 with -p HOST:%d", port.Host, port.Guest)
	}
	return fmt.Errorf("publish port %d: %w", port.Host, err)
}

func (p *ports) unpublish(host uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	was, ok := p.open[host]
	if !ok {
		return fmt.Errorf("port %d is not published", host)
	}
	delete(p.open, host)
	return was.listener.Close()
}

func (p *ports) list() []sandbox.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]sandbox.Port, 0, len(p.open))
	for _, o := range p.open {
		list = append(list, o.port)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Host < list[j].Host })
	return list
}

func (p *ports) close() {
	for _, o := range p.list() {
		_ = p.unpublish(o.Host)
	}
}

func (p *ports) serve(l net.Listener, port sandbox.Port) {
	slots := make(chan struct{}, maxPortConns)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			p.conns.Add(1)
			defer p.conns.Add(-1)
			g, err := p.dial(port.Guest)
			if err != nil {
				p.log.Info("published port", "port", port.String(), "error", err)
				reset(c)
				return
			}
			relay(c, g)
		}()
	}
}

// reset closes a connection with RST, so that the client sees a refusal and
// not an empty answer.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

// relay copies both ways, passing on each side's end of stream, until both
// have ended.
func relay(a, b net.Conn) {
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		defer wg.Done()
		_, err := io.Copy(dst, src)
		if err != nil { // broken, not ended: the other way has no use either
			a.Close()
			b.Close()
			return
		}
		closeWrite(dst)
	}
	wg.Add(2)
	go one(a, b)
	go one(b, a)
	wg.Wait()
	a.Close()
	b.Close()
}

// closeWrite ends one direction. A yamux stream's Close is that already: it
// still reads until the other side closes.
func closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
		return
	}
	c.Close()
}
