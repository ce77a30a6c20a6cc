// Package tunneltest has proxies for tests: real ones on the loopback, that reach the targets
// that a test names, and log who asked for what.
package tunneltest

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"bawn.dev/bawn/internal/sys/proxyenv"
	"bawn.dev/bawn/internal/sys/proxyenv/proxyenvtest"
	"bawn.dev/bawn/internal/sys/relay"
)

// User is the user name that proxies want.
const User = "staff"

// Password is the password that they want, with characters that a URL has encoded.
var Password = strings.Join([]string{"p@ss", "w0rd/%"}, ":")

// Proxy is a proxy on the loopback.
type Proxy struct {
	Addr string // host and port
	SOCKS,
	Auth bool // wants User and Password

	mu      sync.Mutex
	routes  map[string]string
	targets []string
}

// New starts a proxy that ends with the test. socks: it speaks SOCKS 5, else HTTP. auth: it wants
// User and Password.
func New(t *testing.T, socks, auth bool) *Proxy {
	t.Helper()
	p := &Proxy{SOCKS: socks, Auth: auth, routes: map[string]string{}}
	p.Addr = Serve(t, func(c net.Conn) {
		if socks {
			p.serveSOCKS(c)
		} else {
			p.serveHTTP(c)
		}
	})
	return p
}

// Serve answers each connection to the returned address by f, whose end closes it, until the
// test ends.
func Serve(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // does not block
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var open []net.Conn
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			tasks.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		tasks.Wait()
	})
	return l.Addr().String()
}

// Settings are those of a host whose environment names this proxy for all connections, and
// the variable NO_PROXY.
func (p *Proxy) Settings(t *testing.T, noProxy string) *proxyenv.Settings {
	t.Helper()
	return Settings(t, p.URL(), noProxy)
}

// Settings are those of a host with ALL_PROXY and NO_PROXY.
func Settings(t *testing.T, proxy, noProxy string) *proxyenv.Settings {
	t.Helper()
	proxyenvtest.Set(t, "ALL_PROXY="+proxy, "NO_PROXY="+noProxy)
	s, err := proxyenv.Read()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// URL is the proxy's, with user and password if it wants them.
func (p *Proxy) URL() string {
	scheme, user := "http", ""
	if p.SOCKS {
		scheme = "socks5h"
	}
	if p.Auth {
		user = url.UserPassword(User, Password).String() + "@"
	}
	return scheme + "://" + user + p.Addr
}

// Route makes a target, a host and port, reachable at a real address.
func (p *Proxy) Route(target, real string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routes[target] = real
}

// Targets returns what the proxy was asked for, in order.
func (p *Proxy) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.targets)
}

// dial connects to a target.
func (p *Proxy) dial(target string) (net.Conn, error) {
	p.mu.Lock()
	p.targets = append(p.targets, target)
	real, ok := p.routes[target]
	p.mu.Unlock()
	if !ok {
		return nil, errors.New("no such host")
	}
	return net.Dial("tcp", real) //nolint:noctx // on the loopback, at once
}

func (p *Proxy) serveHTTP(c net.Conn) {
	read := bufio.NewReader(c)
	r, err := http.ReadRequest(read)
	switch {
	case err != nil:
		return
	case r.Method != http.MethodConnect:
		_, _ = io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\n\r\n")
		return
	case p.Auth && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(User+":"+Password)):
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 6\r\n\r\nlog in")
		return
	}
	up, err := p.dial(r.RequestURI)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nnone")
		return
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n"); err == nil {
		join(c, read, up)
	}
}

// serveSOCKS is the server's side of RFC 1928 and RFC 1929.
func (p *Proxy) serveSOCKS(c net.Conn) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c, head); err != nil {
		return
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(c, methods); err != nil {
		return
	}
	method := byte(0)
	if p.Auth {
		method = 2
	}
	if !slices.Contains(methods, method) {
		_, _ = c.Write([]byte{5, 0xff})
		return
	}
	_, _ = c.Write([]byte{5, method})
	if p.Auth && !checkPassword(c) {
		return
	}
	target, err := readTarget(c)
	if err != nil {
		return
	}
	up, err := p.dial(target)
	if err != nil {
		_, _ = c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0}) // host unreachable
		return
	}
	if _, err := c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 1}); err == nil {
		join(c, c, up)
	}
}

// checkPassword serves RFC 1929.
func checkPassword(c net.Conn) bool {
	var fields [2]string
	version := make([]byte, 1)
	if _, err := io.ReadFull(c, version); err != nil {
		return false
	}
	for i := range fields {
		n := make([]byte, 1)
		if _, err := io.ReadFull(c, n); err != nil {
			return false
		}
		b := make([]byte, n[0])
		if _, err := io.ReadFull(c, b); err != nil {
			return false
		}
		fields[i] = string(b)
	}
	if fields != [2]string{User, Password} {
		_, _ = c.Write([]byte{1, 1})
		return false
	}
	_, err := c.Write([]byte{1, 0})
	return err == nil
}

// readTarget reads a request to connect.
func readTarget(c net.Conn) (string, error) {
	head := make([]byte, 5) // with the first byte of the address
	if _, err := io.ReadFull(c, head); err != nil {
		return "", err
	}
	n := map[byte]int{1: 3, 3: int(head[4]), 4: 15}[head[3]]
	rest := make([]byte, n+2)
	if _, err := io.ReadFull(c, rest); err != nil {
		return "", err
	}
	host := string(rest[:n])
	if head[3] != 3 {
		a, ok := netip.AddrFromSlice(append([]byte{head[4]}, rest[:n]...))
		if !ok {
			return "", errors.New("no address")
		}
		host = a.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(rest[n:])))), nil
}

// join copies both ways, with each half's end, and closes up. read reads from c.
func join(c net.Conn, read io.Reader, up net.Conn) {
	defer up.Close()
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c, up)
		_ = relay.CloseWrite(c)
	})
	_, _ = io.Copy(up, read)
	_ = relay.CloseWrite(up)
	back.Wait()
}
