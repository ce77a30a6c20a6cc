package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"

	"bawn.dev/bawn/internal/egress/audit"
	"bawn.dev/bawn/internal/egress/tunnel/tunneltest"
	"bawn.dev/bawn/internal/policy"
)

var errRejected = errors.New("rejected")

var (
	testPool4 = netip.MustParsePrefix("198.18.0.0/16")
	testPool6 = netip.MustParsePrefix("fd62:6177:6e00:1::/64")
)

// lab is a gateway between a test's clients and counting servers on loopback.
type lab struct {
	*Gateway
	t     *testing.T
	path  string
	ca    string // the file of the certificate by which TLS is ended here; empty: none is
	mu    sync.Mutex
	zone  map[string][]netip.Addr
	route map[string]string // "addr:port" as dialled -> the server's real address
}

var (
	testDNS   = netip.MustParseAddrPort("192.0.2.1:53")
	testGuest = netip.MustParseAddrPort("192.0.2.2:40000")
	testInfo  = netip.MustParseAddrPort("192.0.2.1:80")
)

func newLab(t *testing.T, r testRules, change ...func(*Config)) *lab {
	l := &lab{t: t, zone: map[string][]netip.Addr{}, route: map[string]string{}}
	l.path = filepath.Join(t.TempDir(), "net.log")
	log, err := audit.Open(l.path, 0)
	if err != nil {
		t.Fatal(err)
	}
	conf := Config{
		Policy: r.set(),
		Pool4:  testPool4, Pool6: testPool6, DNS: []netip.AddrPort{testDNS}, Info: []netip.AddrPort{testInfo},
		Log: log,
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if a, ok := l.zone[name]; ok {
				return a, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		},
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			l.mu.Lock()
			real, ok := l.route[addr]
			l.mu.Unlock()
			if !ok {
				return nil, fmt.Errorf("dial %s: connection refused", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, real)
		},
		HostNet: testHostNet,
		Records: func(_ context.Context, name string, qtype uint16) (*dns.Msg, error) {
			return new(dns.Msg).SetRcode(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), dns.RcodeNameError), nil
		},
	}
	for _, c := range change {
		c(&conf)
	}
	l.Gateway = New(conf)
	t.Cleanup(func() {
		l.Close()
		log.Close()
	})
	return l
}

// readAll returns the entries of a log.
func readAll(t *testing.T, path string) []audit.Entry {
	t.Helper()
	var all []audit.Entry
	if err := audit.Read(path, func(e audit.Entry) error { all = append(all, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

// serve routes addr:port to a server, under a name if there is one.
func (l *lab) serve(name, addrPort, real string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ap := netip.MustParseAddrPort(addrPort)
	if name != "" {
		l.zone[name] = []netip.Addr{ap.Addr()}
	}
	l.route[addrPort] = real
}

// guestRequest is a connection that the guest wants, over a real socket pair.
type guestRequest struct {
	accepted chan net.Conn
	rejected chan struct{}
}

func (r *guestRequest) Accept() (net.Conn, error) {
	inner, outer, err := socketPair()
	if err != nil {
		return nil, err
	}
	r.accepted <- outer
	return inner, nil
}

func (r *guestRequest) Reject() { close(r.rejected) }

func socketPair() (a, b net.Conn, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	if b, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		return nil, nil, err
	}
	a, err = ln.Accept()
	return a, b, err
}

// dialAddr connects like the guest; errRejected is a reset.
func (l *lab) dialAddr(dst netip.AddrPort) (net.Conn, error) {
	r := &guestRequest{accepted: make(chan net.Conn, 1), rejected: make(chan struct{})}
	go l.TCP(testGuest, dst, r)
	select {
	case c := <-r.accepted:
		l.t.Cleanup(func() { c.Close() })
		return c, nil
	case <-r.rejected:
		return nil, errRejected
	}
}

// ask queries the gateway's DNS server.
func (l *lab) ask(name string, qtype uint16) *dns.Msg {
	l.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, qtype)
	b, err := q.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	var out dns.Msg
	if err := out.Unpack(l.reply(b, nil, l.dns.Answer)); err != nil {
		l.t.Fatal(err)
	}
	return &out
}

// dialName looks the name up as the guest does, and connects.
func (l *lab) dialName(name string, port uint16) (net.Conn, error) {
	m := l.ask(name+".", dns.TypeA)
	if m.Rcode == dns.RcodeNameError {
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	a, _ := netip.AddrFromSlice(m.Answer[0].(*dns.A).A.To4())
	return l.dialAddr(netip.AddrPortFrom(a, port))
}

func (l *lab) mustDial(name string, port uint16) net.Conn {
	l.t.Helper()
	c, err := l.dialName(name, port)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// client is an HTTP client in the guest.
func (l *lab) client() *http.Client {
	tr := &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(addr)
			var n uint16
			fmt.Sscan(port, &n)
			if a, err := netip.ParseAddr(host); err == nil {
				return l.dialAddr(netip.AddrPortFrom(a, n))
			}
			return l.dialName(host, n)
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2: true,
	}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// send writes bytes and returns all that comes back until the end.
func send(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

// counter is an HTTP server that counts connections and requests.
type counter struct {
	*httptest.Server
	conns, requests atomic.Int32
}

func newCounter(t *testing.T, useTLS bool, h http.HandlerFunc) *counter {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetHTTP2(true)
	both.SetUnencryptedHTTP2(true)
	c := &counter{}
	if h == nil {
		h = func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.Host) }
	}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		h(w, r)
	}))
	c.Config.Protocols = &both
	c.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			c.conns.Add(1)
		}
	}
	c.EnableHTTP2 = true
	if useTLS {
		c.StartTLS()
	} else {
		c.Start()
	}
	t.Cleanup(c.Close)
	return c
}

func (c *counter) addr() string { return c.Listener.Addr().String() }

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return answered(t, r)
}

// answered returns the status and the body of an answer.
func answered(t *testing.T, r *http.Response) (int, string) {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	var api struct{ Message string }
	if r.Header.Get("X-Bawn") != "" && strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(b, &api); err != nil || api.Message == "" {
			t.Errorf("%v: %s", err, b)
		}
		return r.StatusCode, api.Message
	}
	return r.StatusCode, string(b)
}

func TestDeniedConnections(t *testing.T) {
	l := newLab(t, testRules{"good.example:443", "192.0.2.55:8080", "10.0.0.0/8:443"})
	s := newCounter(t, false, nil)
	for _, a := range []string{"203.0.113.1:22", "203.0.113.1:80", "203.0.113.9:443", "198.18.77.77:443", "169.254.169.254:80", "127.0.0.1:443", "192.0.2.1:22"} {
		l.serve("", a, s.addr())
	}
	l.serve("good.example", "203.0.113.1:22", s.addr())
	if _, err := l.dialName("good.example", 22); !errors.Is(err, errRejected) {
		t.Error("another port:", err)
	}
	for _, a := range []string{"203.0.113.9:443", "198.18.77.77:443", "169.254.169.254:80", "127.0.0.1:443", "192.0.2.1:22", "[::ffff:10.0.0.1]:443"} {
		if _, err := l.dialAddr(netip.MustParseAddrPort(a)); !errors.Is(err, errRejected) {
			t.Errorf("%s: %v", a, err)
		}
	}
	if _, err := l.dialName("evil.example", 443); err == nil {
		t.Error("an unknown name resolves")
	}
	// Port 80 of a known name explains itself.
	if code, body := get(t, l.client(), "http://good.example/x"); code != 403 || !strings.Contains(body, "bawn policy allow good.example:80\n") {
		t.Error(code, body)
	}
	if s.conns.Load() != 0 {
		t.Error("something reached the server")
	}
	if !slices.ContainsFunc(l.Denials(), func(d Denial) bool { return d.Name == "good.example" && d.Port == 22 && d.Suggest == "good.example:22" }) {
		t.Errorf("the denials are %+v", l.Denials())
	}
}

func TestDeniedByReservedRange(t *testing.T) {
	l := newLab(t, testRules{"inside.example:80", "inside.example:443", "inside.example:22", "none.example:80"})
	s := newCounter(t, false, nil)
	for _, port := range []string{"80", "443", "22"} {
		l.serve("inside.example", "10.0.0.1:"+port, s.addr())
	}
	code, body := get(t, l.client(), "http://inside.example/")
	if code != 403 || !strings.Contains(body, "10.0.0.1 is private") || !strings.Contains(body, "bawn policy allow private:inside.example:80\n") {
		t.Error(code, body)
	}
	c := l.mustDial("inside.example", 443)
	err := tls.Client(c, &tls.Config{ServerName: "inside.example"}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Error(err)
	}
	if _, err := l.dialName("inside.example", 22); !errors.Is(err, errRejected) {
		t.Error(err)
	}
	if code, body := get(t, l.client(), "http://none.example/"); code != 502 || !strings.Contains(body, "no such host") {
		t.Error(code, body)
	}
	if s.conns.Load() != 0 {
		t.Error("something reached the server")
	}
}

type zero struct{}

func (zero) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestSetRulesCuts(t *testing.T) {
	all := testRules{"a.example:80", "b.example:22", "c.example:22 raw", "d.example:22", "10.0.0.0/8:22", "203.0.113.9:22"}
	l := newLab(t, all)
	addr := tunneltest.Serve(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	l.serve("b.example", "203.0.113.1:22", addr)
	l.serve("c.example", "203.0.113.1:22", addr)
	l.serve("d.example", "10.0.0.1:22", addr)
	l.serve("", "203.0.113.9:22", addr)
	open := map[string]net.Conn{}
	for _, name := range []string{"b.example", "c.example", "d.example"} {
		open[name] = l.mustDial(name, 22)
	}
	var err error
	if open["ip"], err = l.dialAddr(netip.MustParseAddrPort("203.0.113.9:22")); err != nil {
		t.Fatal(err)
	}
	echo := func(name string) error {
		if _, err := io.WriteString(open[name], "\x00ping"); err != nil {
			return err
		}
		_, err := io.ReadFull(open[name], make([]byte, 5))
		return err
	}
	check := func(when string, alive ...string) {
		t.Helper()
		for name := range open {
			err := echo(name)
			if want := strings.Contains(strings.Join(alive, " "), name); (err == nil) != want {
				t.Errorf("%s: %s: %v", when, name, err)
			}
			if err != nil {
				delete(open, name)
			}
		}
	}
	check("before", "b.example", "c.example", "d.example", "ip")
	l.SetPolicy(testRules{"b.example:22", "c.example:22 raw", "d.example:22", "203.0.113.9:22"}.set())
	check("without the block", "b.example", "c.example", "ip")
	l.SetPolicy(testRules{"b.example:22", "c.example:22", "203.0.113.9:22"}.set())
	check("no longer has raw:", "b.example", "ip")
	l.SetPolicy(testRules{"b.example:22"}.set())
	check("without the address", "b.example")
	l.SetPolicy(nil)
	check("without rules")
	if _, err := l.dialName("b.example", 22); err == nil {
		t.Error("a flow without rules")
	}
	l.Close()
	cut := 0
	_ = audit.Read(l.path, func(e audit.Entry) error {
		if e.Event == audit.EventClose && strings.HasPrefix(e.Reason, "the rules changed") && e.Sent >= 5 && e.Got >= 5 {
			cut++
		}
		return nil
	})
	if cut != 4 {
		t.Errorf("%d cut flows are in the log", cut)
	}
}

func TestHostLoopback(t *testing.T) {
	l := newLab(t, testRules{"host:3000"})
	s := newCounter(t, false, nil)
	l.serve("", "127.0.0.1:3000", s.addr())
	l.serve("", "127.0.0.1:3001", s.addr())
	if code, body := get(t, l.client(), "http://host.bawn.internal:3000/"); code != 200 || body != "hello host.bawn.internal:3000" {
		t.Error(code, body)
	}
	if _, err := l.dialName(policy.HostName, 3001); !errors.Is(err, errRejected) {
		t.Error("another port of the host:", err)
	}
	if d := l.Denials(); len(d) != 1 || d[0].Suggest != "host:3001" {
		t.Error(d)
	}
}

// packetRequest is a UDP association over a real socket pair.
type packetRequest struct {
	guest    net.Conn
	inner    net.Conn
	accepted chan struct{}
	rejected chan struct{}
}

func (r *packetRequest) Accept() (net.Conn, error) { close(r.accepted); return r.inner, nil }
func (r *packetRequest) Reject()                   { close(r.rejected) }

func (l *lab) packets(dst netip.AddrPort) (net.Conn, error) {
	a, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	b, err := net.DialUDP("udp", nil, a.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return nil, err
	}
	local := a.LocalAddr().(*net.UDPAddr)
	a.Close()
	inner, err := net.DialUDP("udp", local, b.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return nil, err
	}
	r := &packetRequest{b, inner, make(chan struct{}), make(chan struct{})}
	go l.UDP(testGuest, dst, r)
	l.t.Cleanup(func() { b.Close(); inner.Close() })
	select {
	case <-r.accepted:
		return b, nil
	case <-r.rejected:
		return nil, errRejected
	}
}

// slowConn writes byte by byte.
type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestSlowClient(t *testing.T) {
	l := newLab(t, testRules{"good.example:80", "good.example:443", "good.example:9000", "good.example:9443"})
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	p, s := newCounter(t, false, echo), newCounter(t, true, echo)
	for port, server := range map[uint16]*counter{80: p, 9000: p, 443: s, 9443: s} {
		l.serve("good.example", fmt.Sprintf("203.0.113.1:%d", port), server.addr())
		c := net.Conn(slowConn{l.mustDial("good.example", port)})
		if server == s {
			c = tls.Client(c, &tls.Config{ServerName: "good.example", InsecureSkipVerify: true})
		}
		for range 2 {
			req, _ := http.NewRequest("POST", fmt.Sprintf("http://good.example:%d/", port), io.MultiReader(strings.NewReader("some "), strings.NewReader("words")))
			if err := req.Write(c); err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadResponse(bufio.NewReader(c), req)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(r.Body); err != nil || string(b) != "some words" {
				t.Errorf("port %d: %q, %v", port, b, err)
			}
		}
	}
}

// TestDenialsAreCounted: a denial is kept once, and anew after the rules changed.
func TestDenialsAreCounted(t *testing.T) {
	l := newLab(t, testRules{"good.example:443"})
	for range 5 {
		_, _ = l.dialName("good.example", 22)
	}
	if d := l.Denials(); len(d) != 1 || d[0].Count != 5 || d[0].Suggest != "good.example:22" {
		t.Errorf("%+v", d)
	}
	l.SetPolicy(testRules{"good.example:443", "good.example:23"}.set())
	_, _ = l.dialName("good.example", 22)
	if d := l.Denials(); len(d) != 1 || d[0].Count != 1 { // under other rules it is another
		t.Errorf("%+v", d)
	}
	// The audit log has each of them.
	n := 0
	_ = audit.Read(l.path, func(e audit.Entry) error {
		if e.Verdict == audit.Denied && e.Port == 22 && e.Suggest == "good.example:22" {
			n++
		}
		return nil
	})
	if n != 6 {
		t.Errorf("%d lines", n)
	}
}

// TestWithoutPolicy: nothing passes.
func TestWithoutPolicy(t *testing.T) {
	g := New(Config{Pool4: testPool4, Pool6: testPool6, DNS: []netip.AddrPort{testDNS}})
	defer g.Close()
	l := &lab{Gateway: g, t: t}
	if _, err := l.dialAddr(netip.MustParseAddrPort("203.0.113.1:443")); !errors.Is(err, errRejected) {
		t.Error("without a policy:", err)
	}
	g.Dropped("icmp", netip.MustParseAddr("203.0.113.1"), "not TCP or UDP")
	d := g.Denials()
	if len(d) != 2 || d[0].Proto != "icmp" || d[1].Reason != "the rules are not loaded, or have a mistake that the user must correct on the host" {
		t.Errorf("%+v", d)
	}
}

// TestAddressRule: a connection to an address by an IP rule may name that
// address, nothing, or a name that the rules allow; and with the name's rule it
// ends.
func TestAddressRule(t *testing.T) {
	l := newLab(t, testRules{"203.0.113.0/24:*", "good.example:*"})
	s, p := newCounter(t, true, nil), newCounter(t, false, nil)
	l.serve("", "203.0.113.1:443", s.addr())
	l.serve("", "203.0.113.1:80", p.addr())
	https, plain := netip.MustParseAddrPort("203.0.113.1:443"), netip.MustParseAddrPort("203.0.113.1:80")
	open := map[string]*tls.Conn{}
	for name, want := range map[string]bool{"": true, "good.example": true, "other.example": false} {
		raw, err := l.dialAddr(https)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := c.Handshake(); (err == nil) != want {
			t.Errorf("TLS for %q: %v", name, err)
		}
		open[name] = c
		raw, err = l.dialAddr(plain)
		if err != nil {
			t.Fatal(err)
		}
		host := name
		if host == "" {
			host = "203.0.113.1:80"
		}
		got := send(t, raw, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if strings.HasPrefix(got, "HTTP/1.1 200") != want {
			t.Errorf("HTTP for %q: %q", host, got)
		}
	}
	l.SetPolicy(testRules{"203.0.113.0/24:*", "third.example:*"}.set())
	if _, err := open["good.example"].Read(make([]byte, 1)); err == nil {
		t.Error("the connection lived on without the name's rule")
	}
	if _, err := fmt.Fprint(open[""], "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Error(err)
	}
	if _, err := open[""].Read(make([]byte, 1)); err != nil {
		t.Error("the connection that named nothing was cut:", err)
	}
}

// TestDefaults: without functions of the caller, a name that the host resolves
// to its loopback stays out of reach.
func TestDefaults(t *testing.T) {
	s := newCounter(t, false, nil)
	port := netip.MustParseAddrPort(s.addr()).Port()
	g := New(Config{Policy: testRules{"**:*"}.set(), Pool4: testPool4, Pool6: testPool6})
	defer g.Close()
	l := &lab{Gateway: g, t: t}
	if _, err := l.dialName("localhost", port); !errors.Is(err, errRejected) {
		t.Error(err)
	}
	if d := g.Denials(); len(d) != 1 || !strings.Contains(d[0].Reason, "loopback") || s.conns.Load() != 0 {
		t.Errorf("%+v", d)
	}
	if n, err := hostResolve(t.Context(), "localhost"); err != nil || len(n) == 0 {
		t.Error(n, err)
	}
}
