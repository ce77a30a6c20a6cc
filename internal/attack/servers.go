package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// counts has what reached each server. Its methods may be called at once.
type counts struct {
	mu  sync.Mutex
	got map[string][]string
}

// maxCounted is how much is kept for each server.
const maxCounted = 100

func (c *counts) add(id, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.got == nil {
		c.got = map[string][]string{}
	}
	if len(c.got[id]) < maxCounted {
		c.got[id] = append(c.got[id], what)
	}
}

// first returns the first thing that reached a server, or empty.
func (c *counts) first(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got[id]) == 0 {
		return ""
	}
	return c.got[id][0]
}

// readLimit bounds the wait for the first bytes of a connection.
const readLimit = 10 * time.Second

// startServers starts a server for each attack that aims at one. Those of "gateway" and "loop" stand
// for services of the host: they are on 127.0.0.1, the former on Config.Addr if that is no
// address of the loopback.
func (h *host) startServers() error {
	addr := h.Config.Addr
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	service := addr
	if addr.IsLoopback() {
		service = loopback
	}
	h.spec.Addr, h.Ports = addr.String(), map[string]int{}
	for id, at := range map[string]netip.Addr{
		"name": addr, "address": addr, "redirect": addr, "nested": addr, "resolver-tcp": addr, "gateway": service, "loop": loopback,
	} {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
		if err != nil {
			return err
		}
		h.Ports[id] = int(portOf(l.Addr()))
		h.accept(id, l)
	}
	if l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp6", "[::1]:0"); err == nil { // else this host has no IPv6
		h.Ports["ipv6"] = int(portOf(l.Addr()))
		h.accept("ipv6", l)
	}
	for id, name := range map[string]string{"socket": h.Socket, "abstract": h.Abstract} {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", name)
		if err != nil {
			return err
		}
		h.accept(id, l)
	}
	for _, id := range []string{"udp", "fragments", "resolver-udp"} {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		if err != nil {
			return err
		}
		h.Ports[id] = int(portOf(c.LocalAddr()))
		h.receive(id, c)
	}
	return h.startAllowed(addr)
}

func portOf(a net.Addr) uint16 {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return 0
	}
	return p.Port()
}

// accept counts connections whose first bytes have the nonce, until close.
func (h *host) accept(id string, l net.Listener) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				b := make([]byte, 4096)
				_ = c.SetDeadline(time.Now().Add(readLimit))
				n, _ := c.Read(b)
				if bytes.Contains(bytes.ToLower(b[:n]), []byte(h.Nonce)) {
					h.counts.add(id, "a connection with data reached "+l.Addr().String())
				}
			})
		}
	})
	h.closers = append(h.closers, func() error { err := l.Close(); wg.Wait(); return err })
}

// receive counts datagrams with the nonce, until close.
func (h *host) receive(id string, c *net.UDPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			n, _, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && bytes.Contains(bytes.ToLower(b[:n]), []byte(h.Nonce)) {
				h.counts.add(id, fmt.Sprintf("a datagram of %d bytes reached %s", n, c.LocalAddr()))
			}
		}
	}()
	h.closers = append(h.closers, func() error { err := c.Close(); <-done; return err })
}

// startAllowed starts the servers that the sandbox may allow by name. They count
// requests and ClientHellos that are for another name.
func (h *host) startAllowed(addr netip.Addr) error {
	secure := httptest.NewUnstartedServer(http.HandlerFunc(h.serve))
	plain := httptest.NewUnstartedServer(http.HandlerFunc(h.serve))
	for _, s := range []struct {
		server *httptest.Server
		port   *int
	}{{secure, &h.TLS}, {plain, &h.HTTP}} {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			return err
		}
		if err := s.server.Listener.Close(); err != nil { // the one that httptest made
			return err
		}
		s.server.Listener, *s.port = l, int(portOf(l.Addr()))
		s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // attacks are full of errors
	}
	secure.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch id, rest, _ := strings.Cut(strings.ToLower(hello.ServerName), "."); {
		case hello.ServerName == "":
			h.counts.add("no-sni", "a ClientHello without a name reached the server")
		case rest == h.Nonce+".test" && id != "allowed":
			h.counts.add(id, "a ClientHello for "+hello.ServerName+" reached the server")
		}
		return nil, nil
	}}
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetHTTP1(true)
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	secure.StartTLS()
	plain.Start()
	h.closers = append(h.closers, func() error {
		secure.CloseClientConnections()
		plain.CloseClientConnections()
		secure.Close()
		plain.Close()
		return nil
	})
	return nil
}

// serve answers requests to the allowed servers.
func (h *host) serve(w http.ResponseWriter, r *http.Request) {
	host, _, _ := strings.Cut(strings.ToLower(r.Host), ":")
	id, rest, _ := strings.Cut(host, ".")
	switch {
	case rest == h.Nonce+".test" && id != "allowed":
		h.counts.add(id, "a request for "+host+" reached the server")
	case r.URL.Path == redirectPath:
		http.Redirect(w, r, fmt.Sprintf("http://%s/%s", net.JoinHostPort(h.Denied, fmt.Sprint(h.Ports["redirect"])), h.Nonce), http.StatusFound)
		return
	}
	fmt.Fprintln(w, "served")
}
