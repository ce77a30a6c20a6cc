package attack

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// redirectPath is where an allowed server redirects to one that is not.
const redirectPath = "/redirect"

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), tryLimit)
}

// dial connects to a host and port.
func dial(network, host string, port int) (net.Conn, error) {
	ctx, cancel := within()
	defer cancel()
	address := host
	if network != "unix" {
		address = net.JoinHostPort(host, strconv.Itoa(port))
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(tryLimit))
	return c, nil
}

// send dials, sends text and returns how that ended, with the first bytes of an answer.
func (p *probe) send(network, host string, port int, text string) string {
	c, err := dial(network, host, port)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err = io.WriteString(c, text); err != nil {
		return err.Error()
	}
	if strings.HasPrefix(network, "udp") {
		_ = c.SetReadDeadline(time.Now().Add(tryLimit / 10)) // long enough for an ICMP error
	}
	b := make([]byte, 200)
	n, err := c.Read(b)
	if n > 0 {
		return string(b[:n])
	}
	return fmt.Sprint(err)
}

func (p *probe) line() string { return "GET /" + p.Nonce + " HTTP/1.0\r\n\r\n" }

// evil is the name that an attack asks an allowed server for.
func (p *probe) evil(id string) string { return id + "." + p.Nonce + ".test" }

// errNoNames keeps a test from asking resolvers.
const errNoNames = notApplicable("no resolver is asked in this run")

func (p *probe) deniedName() (string, error) {
	if p.LoopbackOnly {
		return "", errNoNames
	}
	return p.send("tcp", p.Denied, p.Ports["name"], p.line()), nil
}

func (p *probe) loopName() (string, error) {
	if p.LoopbackOnly {
		return "", errNoNames
	}
	return p.send("tcp", p.Loop, p.Ports["loop"], p.line()), nil
}

func tcpTo(id string) func(*probe) (string, error) {
	return func(p *probe) (string, error) { return p.send("tcp", p.Addr, p.Ports[id], p.line()), nil }
}

func udpTo(id string, size int) func(*probe) (string, error) {
	return func(p *probe) (string, error) {
		return p.send("udp", p.Addr, p.Ports[id], p.Nonce+strings.Repeat("x", size-len(p.Nonce))), nil
	}
}

// query is a DNS query (RFC 1035, section 4.1) for TXT records, as a tunnel sends them.
func (p *probe) query() string {
	q := []byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for _, label := range []string{p.Nonce, "tunnel", "test"} {
		q = append(append(q, byte(len(label))), label...)
	}
	return string(append(q, 0, 0, 16, 0, 1))
}

func (p *probe) resolverUDP() (string, error) {
	return p.send("udp", p.Addr, p.Ports["resolver-udp"], p.query()), nil
}

func (p *probe) resolverTCP() (string, error) {
	q := p.query()
	return p.send("tcp", p.Addr, p.Ports["resolver-tcp"], string(binary.BigEndian.AppendUint16(nil, uint16(len(q))))+q), nil
}

func (p *probe) ipv6() (string, error) {
	if p.Ports["ipv6"] == 0 {
		return "", notApplicable("the host has no IPv6")
	}
	return p.send("tcp", "::1", p.Ports["ipv6"], p.line()), nil
}

// allowed connects to a server that the sandbox may allow: by its name, or where that
// leads nowhere by its address.
func (p *probe) allowed(port int) (net.Conn, error) {
	var c net.Conn
	err := error(errNoNames)
	if !p.LoopbackOnly {
		c, err = dial("tcp", p.Allowed, port)
	}
	if err != nil {
		c, err = dial("tcp", p.Addr, port)
	}
	if err != nil {
		return nil, notApplicable("the sandbox reaches no server whose name could be wrong: " + err.Error())
	}
	return c, nil
}

func (p *probe) hello(config *tls.Config) (string, error) {
	c, err := p.allowed(p.TLS)
	if err != nil {
		return "", err
	}
	defer c.Close()
	ctx, cancel := within()
	defer cancel()
	return fmt.Sprint(tls.Client(c, config).HandshakeContext(ctx)), nil
}

func (p *probe) otherSNI() (string, error) {
	return p.hello(&tls.Config{ServerName: p.evil("sni"), InsecureSkipVerify: true}) //nolint:gosec // the server has no name
}

func (p *probe) noSNI() (string, error) {
	return p.hello(&tls.Config{InsecureSkipVerify: true}) //nolint:gosec // as above
}

// httpText sends requests as they are written, with the names put in.
func httpText(id, text string) func(*probe) (string, error) {
	return func(p *probe) (string, error) {
		c, err := p.allowed(p.HTTP)
		if err != nil {
			return "", err
		}
		defer c.Close()
		good := net.JoinHostPort(p.Allowed, strconv.Itoa(p.HTTP))
		text := strings.NewReplacer("{good}", good, "{evil}", p.evil(id)).Replace(text)
		if _, err := io.WriteString(c, text); err != nil {
			return err.Error(), nil
		}
		return answers(c, strings.Count(text, " HTTP/1.1\r\n")), nil
	}
}

// answers reads so many answers, at most, and returns their first lines.
func answers(c net.Conn, n int) string {
	var got []string
	r := bufio.NewReader(c)
	for range n {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			got = append(got, err.Error())
			break
		}
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxOutput))
		_ = resp.Body.Close()
		got = append(got, resp.Status)
		if err != nil {
			break
		}
	}
	return strings.Join(got, "; ")
}

func (p *probe) client(dial func() (net.Conn, error)) *http.Client {
	t := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	t.Protocols.SetHTTP1(true)
	if dial != nil {
		t.Protocols.SetHTTP1(false)
		t.Protocols.SetUnencryptedHTTP2(true)
		t.DialContext = func(context.Context, string, string) (net.Conn, error) { return dial() }
	}
	return &http.Client{Transport: t, Timeout: tryLimit}
}

func get(c *http.Client, url string) (string, error) {
	ctx, cancel := within()
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	var na notApplicable
	if errors.As(err, &na) {
		return "", na
	}
	if err != nil {
		return err.Error(), nil
	}
	return resp.Status, resp.Body.Close()
}

// otherAuthority connects first, so that a sandbox whose resolver takes long to say that
// there is no such name has not used up the time of the request.
func (p *probe) otherAuthority() (string, error) {
	c, err := p.allowed(p.HTTP)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return get(p.client(func() (net.Conn, error) { return c, nil }), "http://"+p.evil("authority")+"/")
}

func (p *probe) redirect() (string, error) {
	if p.LoopbackOnly {
		return "", errNoNames
	}
	c, err := p.allowed(p.HTTP)
	if err != nil {
		return "", err
	}
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	c.Close()
	if err != nil {
		return "", err
	}
	ctx, cancel := within()
	defer cancel()
	if addrs, err := net.DefaultResolver.LookupHost(ctx, p.Allowed); err == nil && slices.Contains(addrs, host) {
		host = p.Allowed
	}
	return get(p.client(nil), "http://"+net.JoinHostPort(host, strconv.Itoa(p.HTTP))+redirectPath)
}

// gateways are names and addresses by which sandboxes reach their host.
func (p *probe) gateways() (string, error) {
	if p.LoopbackOnly {
		return p.send("tcp", "127.0.0.1", p.Ports["gateway"], p.line()), nil
	}
	hosts := []string{
		"127.0.0.1", "10.0.2.2", "10.0.2.3", "172.17.0.1", "192.168.65.2", "192.168.65.254", "192.168.127.254", "169.254.1.1", "169.254.1.2",
		"host.docker.internal", "gateway.docker.internal", "host.containers.internal", "host.lima.internal", "host.bawn.internal", "bawn.internal", p.Addr,
	}
	for _, h := range append(routes(), resolvers()...) {
		if !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	said := make(chan string, len(hosts))
	for _, h := range hosts {
		go func() { said <- h + ": " + p.send("tcp", h, p.Ports["gateway"], p.line()) }()
	}
	var all []string
	for range hosts {
		all = append(all, <-said)
	}
	return strings.Join(all, "; "), nil
}

// routes returns the gateways of the sandbox (proc_net(5): route).
func routes() []string {
	b, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		a, err := hex.DecodeString(f[2])
		if err == nil && len(a) == 4 && string(a) != "\x00\x00\x00\x00" {
			list = append(list, net.IPv4(a[3], a[2], a[1], a[0]).String()) // little-endian, as x86 and arm64 write it
		}
	}
	return list
}

// resolvers returns the nameservers of the sandbox (resolv.conf(5)).
func resolvers() []string {
	b, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return nil
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "nameserver" {
			list = append(list, f[1])
		}
	}
	return list
}

func (p *probe) abstractSocket() (string, error) {
	return p.send("unix", p.Abstract, 0, p.line()), nil
}

func (p *probe) fileSocket() (string, error) {
	return p.send("unix", p.Socket, 0, p.line()), nil
}

// nested runs this program again in a user namespace and makes a connection there, which is bounded there.
func (p *probe) nested() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit+tryLimit)
	defer cancel()
	c := exec.CommandContext(ctx, "/proc/self/exe", Verb, p.file, "nested")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if len(out) == 0 && err != nil {
		return "", notApplicable("no user namespace can be made: " + err.Error())
	}
	return string(out[:min(len(out), 500)]), nil
}
